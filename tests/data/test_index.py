from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetune.data import fingerprint, index
from edgetune.data.source import Item
from edgetune.recipe import DataRecipe

Fill = Callable[..., None]


@pytest.fixture
def source(tmp_path: Path, fill: Fill) -> Path:
    fill(tmp_path / "photos", cats=4, dogs=4)
    return tmp_path / "photos"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the items that were read, growing as they are."""
    names: list[str] = []
    original = Item.read

    def read(item: Item) -> bytes:
        names.append(item.name)
        return original(item)

    monkeypatch.setattr(Item, "read", read)
    return names


def digest(source: Path, index: Path | None = None) -> str:
    return fingerprint(DataRecipe(source=str(source)), index)


def test_unchanged_files_are_read_once(source: Path, tmp_path: Path, reads: list[str]) -> None:
    first = digest(source, tmp_path / "index.json")
    assert len(reads) == 8
    assert digest(source, tmp_path / "index.json") == first
    assert len(reads) == 8
    assert digest(source) == first


def test_a_second_call_writes_nothing(source: Path, tmp_path: Path) -> None:
    digest(source, tmp_path / "index.json")
    before = (tmp_path / "index.json").stat()
    digest(source, tmp_path / "index.json")
    after = (tmp_path / "index.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_file_is_read_again(source: Path, tmp_path: Path, reads: list[str]) -> None:
    first = digest(source, tmp_path / "index.json")
    reads.clear()
    (source / "cats" / "0001.png").write_bytes((source / "dogs" / "0005.png").read_bytes())
    assert digest(source, tmp_path / "index.json") != first
    assert reads == ["cats/0001.png"]


def test_a_change_that_keeps_size_and_time_is_seen(source: Path, tmp_path: Path) -> None:
    first = digest(source, tmp_path / "index.json")
    path = source / "cats" / "0001.png"
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(source, tmp_path / "index.json") != first


def test_a_file_modified_just_now_is_not_trusted(source: Path, tmp_path: Path, reads: list[str]) -> None:
    (source / "cats" / "0001.png").touch()
    digest(source, tmp_path / "index.json")
    reads.clear()
    digest(source, tmp_path / "index.json")
    assert reads == ["cats/0001.png"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 99, "files": {}}', b'{"schema": 1, "files": {"cats/0000.png": [1]}}']
)
def test_a_damaged_index_remembers_nothing(source: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.json").write_bytes(content)
    assert digest(source, tmp_path / "index.json") == digest(source)
    assert len(json.loads((tmp_path / "index.json").read_text())["files"]) == 8


def test_names_and_classes_count_but_other_files_do_not(source: Path) -> None:
    first = digest(source)
    (source / "notes.txt").write_text("x")
    (source / ".DS_Store").write_bytes(b"x")
    assert digest(source) == first
    (source / "empty").mkdir()
    with_class = digest(source)
    assert with_class != first
    (source / "cats" / "0000.png").rename(source / "cats" / "renamed.png")
    assert digest(source) not in (first, with_class)


def test_moving_the_folder_changes_nothing(source: Path, tmp_path: Path) -> None:
    first = digest(source)
    source.rename(tmp_path / "elsewhere")
    assert digest(tmp_path / "elsewhere") == first


def test_cached_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("a", "b"):
        (tmp_path / "many" / label).mkdir(parents=True)
        for number in range(20):
            path = tmp_path / "many" / label / f"{number}.png"
            path.write_bytes(b"%d" % number)
            os.utime(path, (1_600_000_000, 1_600_000_000))
    first = digest(tmp_path / "many", tmp_path / "index.json")

    def refuse(item: Item) -> str:
        raise AssertionError(f"{item.name} was read again")

    monkeypatch.setattr(index, "_digest", refuse)
    assert digest(tmp_path / "many", tmp_path / "index.json") == first
    (tmp_path / "many" / "b" / "7.png").write_bytes(b"another")
    with pytest.raises(AssertionError, match=r"b/7\.png was read again"):
        digest(tmp_path / "many", tmp_path / "index.json")


def test_a_fingerprint_loads_nothing_heavy(source: Path) -> None:
    program = (
        "import sys, edgetune.data as data\n"
        "from edgetune.recipe import DataRecipe\n"
        "data.fingerprint(DataRecipe(), None), data.fingerprint(DataRecipe(source=sys.argv[1]), None)\n"
        "print(sorted({'numpy', 'PIL', 'sklearn', 'scipy', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(source)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
