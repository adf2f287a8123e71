"""Frozen values on disk: canonical JSON, digests, and writing that a kill or a full disk cannot tear."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.artefacts import Bundle, Dataset, Preprocessing
from edgetune.files import canonical_json, changed_files, digest_of, file_table, link_or_copy, write_atomic, write_json

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


def shuffled(value: Any) -> Any:
    """The same value with the keys of its objects in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@given(JSON)
def test_canonical_json_reads_back(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(JSON)
def test_the_digest_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    assert canonical_json(shuffled(value)) == canonical_json(value)
    assert digest_of(shuffled(value)) == digest_of(value)
    assert len(digest_of(value)) == 64


@given(JSON, JSON)
def test_different_values_have_different_texts(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical_json(one) == canonical_json(other)) is same


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_numbers_that_json_has_no_word_for_are_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", value)
    assert list(tmp_path.iterdir()) == []


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_write_json_is_for_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": [1], "a": "ü"})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": [\n    1\n  ]\n}\n'


def test_a_target_that_is_a_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "x", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from edgetune.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails with EFBIG, as it fails with ENOSPC on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomic(Path(sys.argv[1]), b"n" * 100_000)
except OSError as fault:
    print(type(fault).__name__)
"""


def test_a_write_that_finds_no_space_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_atomic(path, b"old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout == "OSError\n"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from edgetune.files import write_atomic
number = 0
while True:
    write_atomic(Path(sys.argv[1]), bytes([number % 256]) * 300_000)
    number += 1
"""


def test_a_kill_in_the_middle_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.bin"
    for pause in (0.0, 0.003, 0.011):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)])
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(pause)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1, "bytes of two writes are mixed"


def test_link_or_copy_gives_the_same_bytes_and_another_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").write_bytes(b"two")
    assert (tmp_path / "b").read_bytes() == b"one"


def test_file_tables_find_what_was_changed_or_lost(tmp_path: Path) -> None:
    for name in ("kept", "flipped", "cut", "lost", "below/kept", "manifest.json"):
        write_atomic(tmp_path / name, name.encode())
    table = file_table(tmp_path, exclude=["manifest.json"])
    assert list(table) == ["below/kept", "cut", "flipped", "kept", "lost"]
    assert changed_files(tmp_path, table) == []
    (tmp_path / "flipped").write_bytes(b"flippee")
    (tmp_path / "cut").write_bytes(b"cu")
    (tmp_path / "lost").unlink()
    assert changed_files(tmp_path, table) == ["cut was changed", "flipped was changed", "lost is missing"]


def dataset(**changes: Any) -> Dataset:
    values: dict[str, Any] = {
        "source": "digits",
        "classes": ("0", "1"),
        "preprocessing": Preprocessing(height=48, width=48),
        "source_size": (64, 64),
        "counts": {"train": 2, "val": 1, "test": 1},
        "class_counts": {"train": (1, 1), "val": (1, 0), "test": (0, 1)},
        "content_digest": "0" * 64,
        "golden": (("a.png", 0),),
    }
    return Dataset.model_validate({**values, **changes})


def test_a_value_reads_back_from_its_json() -> None:
    value = dataset()
    assert Dataset.model_validate_json(canonical_json(value.to_json())) == value
    assert Dataset.model_validate(value.to_json()).to_json() == value.to_json()


def test_values_are_frozen_and_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="frozen"):
        dataset().source = "elsewhere"  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra inputs"):
        dataset(colour="red")


def test_a_value_must_be_bound_to_a_folder_before_its_files_are_read(tmp_path: Path) -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "images.npy", images)
    value = dataset()
    with pytest.raises(ValueError, match=r"not bound to a folder; call \.at\(folder\)"):
        value.images("train")
    bound = value.at(tmp_path)
    np.testing.assert_array_equal(bound.images("train"), images)
    assert isinstance(bound.images("train"), np.memmap)
    assert bound.to_json() == value.to_json(), "the folder is where a value lies, not what it is"
    with pytest.raises(ValueError, match="not bound"):
        _ = value.folder


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    np.save(tmp_path / "test" / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        dataset().at(tmp_path).labels("test")


def test_a_bundle_has_no_room_for_nan() -> None:
    with pytest.raises(ValueError, match="finite number"):
        Bundle(manifest_sha256="0" * 64, size_bytes=math.nan)  # type: ignore[arg-type]
