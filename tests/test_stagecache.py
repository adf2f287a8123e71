"""The stage cache: what is taken up, what is made again, and what a key depends on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune import stagecache
from edgetune.artefacts import Bundle
from edgetune.stagecache import StageCache, identity


class Talk:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        raise AssertionError("the cache has no long work")


class Bench:
    """A cache, what it said, and how often its stage ran."""

    def __init__(self, run: Path) -> None:
        self.talk = Talk()
        self.cache = StageCache(run, self.talk)
        self.runs = 0

    def value(self, depends: dict | None = None, *, content: bytes = b"content", resumes: bool = False) -> Bundle:
        def compute(folder: Path, key: str) -> Bundle:
            assert len(key) == 64
            self.runs += 1
            (folder / "inner").mkdir(exist_ok=True)
            (folder / "inner" / "file").write_bytes(content)
            (folder / "notes").write_bytes(b"notes")
            return Bundle(manifest_sha256="0" * 64, size_bytes=len(content)).at(folder)

        return self.cache.value(Bundle, "stage", depends or {"a": 1}, compute, resumes=resumes)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_same_dependencies_run_once_and_give_the_same_value(bench):
    first = bench.value()
    assert bench.value() == first
    assert bench.value().folder == first.folder
    assert bench.runs == 1
    assert bench.talk.lines == ["stage: unchanged"] * 2


def test_other_dependencies_run_again_and_the_first_value_stays(bench):
    bench.value({"a": 1})
    bench.value({"a": 2})
    bench.value({"a": 1})
    assert bench.runs == 2


@pytest.mark.parametrize("fault", ["changed", "missing", "record", "schema"])
def test_a_damaged_value_is_put_aside_said_and_made_again(bench, fault):
    folder = bench.value().folder
    if fault == "changed":
        (folder / "inner" / "file").write_bytes(b"contenT")
    elif fault == "missing":
        (folder / "notes").unlink()
    elif fault == "record":
        (folder / "stage.json").write_text("{")
    else:
        record = json.loads((folder / "stage.json").read_text())
        (folder / "stage.json").write_text(json.dumps({**record, "schema": 99}))
    assert (bench.value().folder / "inner" / "file").read_bytes() == b"content"
    assert bench.runs == 2
    assert "is damaged" in bench.talk.lines[0]
    assert folder.with_name(f"{folder.name}.damaged").is_dir()


def test_a_huge_file_is_hashed_only_if_it_was_written_since(bench, monkeypatch):
    monkeypatch.setattr(stagecache, "HUGE_BYTES", 3)
    path = bench.value().folder / "inner" / "file"
    time = path.stat().st_mtime_ns
    path.write_bytes(b"contenT")
    os.utime(path, ns=(time, time))
    bench.value()
    assert bench.runs == 1
    os.utime(path, ns=(time, time + 1))
    bench.value()
    assert bench.runs == 2


def test_unfinished_work_is_dropped_unless_the_stage_resumes(bench):
    folder = bench.value().folder
    (folder / "stage.json").unlink()
    (folder / "left").write_bytes(b"over")
    bench.value(resumes=True)
    assert (folder / "left").exists()
    (folder / "stage.json").unlink()
    bench.value()
    assert not (folder / "left").exists()


def test_the_identity_of_a_value_leaves_out_what_later_stages_do_not_read(tmp_path):
    one = Bench(tmp_path / "one").value()
    other = Bench(tmp_path / "other").value({"b": 2}, content=b"another")
    assert identity(one) == identity(Bench(tmp_path / "moved").value())
    assert identity(one) != identity(other)
    ignored = ("inner/file", "size_bytes")
    assert identity(one, ignore=ignored) == identity(other, ignore=ignored)


@settings(max_examples=25)
@given(st.dictionaries(st.text(min_size=1), st.integers() | st.booleans() | st.text(), min_size=1))
def test_the_order_of_dependencies_does_not_matter(tmp_path_factory, depends):
    bench = Bench(tmp_path_factory.mktemp("run"))
    bench.value(depends)
    bench.value(dict(reversed(depends.items())))
    assert bench.runs == 1
