from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetune.errors import DataError, UsageError
from edgetune.train.distill.cache import ANSWERS_FILE, FACTS_FILE, AnswerCache, as_stored

WRITER = """
import sys
from pathlib import Path
import numpy as np
from edgetune.train.distill.cache import AnswerCache

folder, first, step, value, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:])
cache = AnswerCache(folder, "key", views=2, rows=400, width=50)
rows = np.arange(first, 400, step)
answers = np.full((len(rows), 50), value, np.float32) if value else np.repeat(rows[:, None], 50, 1).astype(np.float32)
print("ready", flush=True)
for _ in range(rounds):
    cache.put(1, rows, answers)
"""


def table(folder: Path, *, key: str = "key", views: int = 3, rows: int = 10, width: int = 4, **more: object) -> AnswerCache:
    return AnswerCache(folder, key, views=views, rows=rows, width=width, **more)  # type: ignore[arg-type]


def some(rows: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5, (rows, width)).astype(np.float32)


def write(folder: Path, *arguments: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextmanager
def file_size_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(arrays(np.float32, (3, 2), elements=st.floats(-60_000, 60_000, width=32)))
def test_rounding_is_done_once(answers: np.ndarray) -> None:
    stored = as_stored(answers)
    assert stored.dtype == np.float32
    assert np.array_equal(as_stored(stored), stored)
    assert np.all(np.abs(stored - answers) <= np.maximum(np.abs(answers) * 2.0**-11, 2.0**-25))


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_what_float16_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="65504"):
        as_stored(np.array([[1.0, value]], np.float32))


def test_what_was_put_is_got_in_any_order_and_from_its_own_view_only(tmp_path: Path) -> None:
    cache, answers = table(tmp_path / "a"), some(4)
    rows = np.array([7, 2, 9, 0])
    cache.put(1, rows, answers)
    found, known = cache.get(1, np.array([0, 1, 2, 2, 7, 9]))
    assert known.tolist() == [True, False, True, True, True, True]
    assert np.array_equal(found[known], as_stored(answers)[[3, 1, 1, 0, 2]])
    assert np.isnan(found[1]).all()
    assert [cache.known(view) for view in range(3)] == [0, 4, 0]


def test_zeros_are_an_answer(tmp_path: Path) -> None:
    cache = table(tmp_path / "a")
    cache.put(0, np.array([3]), np.zeros((1, 4), np.float32))
    assert cache.get(0, np.array([2, 3]))[1].tolist() == [False, True]


@pytest.mark.parametrize("width", [1, 2, 9, 1000, 4096])
def test_nothing_is_known_that_was_not_put(tmp_path: Path, width: int) -> None:
    assert table(tmp_path / "a", width=width).known(0) == 0


def test_it_is_still_there_when_opened_again(tmp_path: Path) -> None:
    answers = some(10)
    table(tmp_path / "a").put(2, np.arange(10), answers)
    found, known = table(tmp_path / "a").get(2, np.arange(10))
    assert known.all()
    assert np.array_equal(found, as_stored(answers))


def test_more_views_keep_the_answers_and_fewer_lose_none(tmp_path: Path) -> None:
    table(tmp_path / "a", views=2).put(1, np.arange(10), some(10))
    grown = table(tmp_path / "a", views=5)
    assert [grown.known(view) for view in range(5)] == [0, 10, 0, 0, 0]
    grown.put(4, np.arange(10), some(10))
    assert table(tmp_path / "a", views=1).known(0) == 0
    assert table(tmp_path / "a", views=5).known(4) == 10


@pytest.mark.parametrize("change", [{"key": "other"}, {"rows": 11}, {"width": 5}])
def test_another_key_or_shape_starts_anew_and_says_so(tmp_path: Path, lines, change: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    table(tmp_path / "a", progress=lines).put(0, np.arange(10), some(10))
    assert lines.text == ""
    assert table(tmp_path / "a", progress=lines, **change).known(0) == 0  # type: ignore[arg-type]
    assert "is made anew" in lines.text


def test_a_damaged_file_of_facts_starts_anew(tmp_path: Path, lines) -> None:  # type: ignore[no-untyped-def]
    table(tmp_path / "a").put(0, np.arange(10), some(10))
    (tmp_path / "a" / FACTS_FILE).write_text('{"key": "ke')
    assert AnswerCache.stored_width(tmp_path / "a", "key") is None
    assert table(tmp_path / "a", progress=lines).known(0) == 0
    assert "is made anew" in lines.text


def test_the_width_can_be_asked_without_opening(tmp_path: Path) -> None:
    assert AnswerCache.stored_width(tmp_path / "a", "key") is None
    table(tmp_path / "a", width=7)
    assert AnswerCache.stored_width(tmp_path / "a", "key") == 7
    assert AnswerCache.stored_width(tmp_path / "a", "other") is None


@pytest.mark.parametrize("place", range(12))
def test_a_changed_byte_makes_the_record_unknown(tmp_path: Path, place: int) -> None:
    table(tmp_path / "a").put(0, np.arange(10), some(10))
    path = tmp_path / "a" / ANSWERS_FILE
    content = bytearray(path.read_bytes())
    content[3 * 12 + place] ^= 1
    path.write_bytes(content)
    cache = table(tmp_path / "a")
    assert np.flatnonzero(~cache.get(0, np.arange(10))[1]).tolist() == [3]
    cache.put(0, np.array([3]), some(1))
    assert cache.known(0) == 10


def test_a_cut_file_loses_only_what_was_cut(tmp_path: Path) -> None:
    table(tmp_path / "a").put(0, np.arange(10), some(10))
    path = tmp_path / "a" / ANSWERS_FILE
    path.write_bytes(path.read_bytes()[: 6 * 12 + 5])
    assert table(tmp_path / "a").get(0, np.arange(10))[1].tolist() == [True] * 6 + [False] * 4


def test_a_kill_leaves_whole_answers_only(tmp_path: Path) -> None:
    writer = write(tmp_path / "a", 0, 1, 0, 10**9)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    watched = table(tmp_path / "a", views=2, rows=400, width=50)
    while not watched.known(1):
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    cache = table(tmp_path / "a", views=2, rows=400, width=50)
    found, known = cache.get(1, np.arange(400))
    assert np.array_equal(found[known], np.repeat(np.arange(400)[known, None], 50, 1))
    cache.put(1, np.arange(400), some(400, 50))
    assert cache.known(1) == 400


def test_processes_write_at_once(tmp_path: Path) -> None:
    """Two take the even and the odd rows; two more write other answers over all of the first ones' again and again."""
    writers = [write(tmp_path / "a", 0, 2, 0, 1), write(tmp_path / "a", 1, 2, 0, 1)]
    writers += [write(tmp_path / "b", 0, 1, value, 20) for value in (1, 2)]
    assert [writer.communicate()[0] for writer in writers] == ["ready\n"] * 4
    assert [writer.returncode for writer in writers] == [0] * 4
    found, known = table(tmp_path / "a", views=2, rows=400, width=50).get(1, np.arange(400))
    assert known.all()
    assert np.array_equal(found, np.repeat(np.arange(400)[:, None], 50, 1))
    found, known = table(tmp_path / "b", views=2, rows=400, width=50).get(1, np.arange(400))
    assert np.isin(found[known, 0], (1, 2)).all()
    assert (found[known] == found[known, :1]).all()


def test_a_disk_that_is_too_small_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with file_size_at_most(10_000), pytest.raises(UsageError) as caught:
        table(tmp_path / "a", views=100, rows=1000)
    assert "cannot be made (1.2 MB for 100 views of 1000 images)" in str(caught.value)
    assert "distill.cache = false" in str(caught.value)
    assert (tmp_path / "a" / ANSWERS_FILE).stat().st_size == 0
    assert table(tmp_path / "a").known(0) == 0


def test_a_disk_that_fails_later_is_said(tmp_path: Path) -> None:
    cache = table(tmp_path / "a")
    with file_size_at_most(100), pytest.raises(UsageError, match="cannot be written"):
        cache.put(2, np.arange(10), some(10))
    assert cache.known(2) == 0


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    cache = table(tmp_path / "a")
    for view, rows in ((3, [0]), (-1, [0]), (0, [10]), (0, [-1])):
        with pytest.raises(IndexError):
            cache.get(view, np.array(rows))
        with pytest.raises(IndexError):
            cache.put(view, np.array(rows), some(1))
    with pytest.raises(ValueError, match="expected"):
        cache.put(0, np.array([1]), some(1, 5))


def test_no_rows_are_no_answers(tmp_path: Path) -> None:
    cache = table(tmp_path / "a")
    cache.put(0, np.array([], np.int64), some(0))
    assert cache.get(0, np.array([], np.int64))[0].shape == (0, 4)
    cache.close()
    cache.close()
