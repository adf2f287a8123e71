"""What a command says while it works: plain lines in a log, a live display on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty

import pytest

from edgetune.cli.console import Plain, duration, progress


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


def lines(log: io.StringIO) -> list[str]:
    return log.getvalue().splitlines()


def test_sentences_are_lines(log: io.StringIO) -> None:
    with progress(log) as talk:
        talk.line("data: 3 classes")
    assert lines(log) == ["data: 3 classes"]


def test_fast_work_says_only_that_it_is_done(log: io.StringIO, clock: Clock) -> None:
    plain = Plain(log, clock)
    for done in range(1001):
        plain.advance("decode", done, 1000)
        clock.now += 0.001
    assert lines(log) == ["decode: 1000/1000"]


def test_slow_work_is_heard_of_at_most_every_tenth_with_the_time_left(log: io.StringIO, clock: Clock) -> None:
    plain = Plain(log, clock)
    for done in range(101):
        plain.advance("train", done, 100, "loss 1.2")
        clock.now += 2.0
    assert len(lines(log)) == 10
    assert lines(log)[0] == "train: 10/100  loss 1.2  3 min left"
    assert lines(log)[-1] == "train: 100/100  loss 1.2"


def test_very_slow_work_is_heard_of_every_minute(log: io.StringIO, clock: Clock) -> None:
    plain = Plain(log, clock)
    for done in range(7):
        plain.advance("probe", done, 1000)
        clock.now += 30.0
    assert lines(log) == ["probe: 2/1000  8 h 19 min left", "probe: 4/1000  8 h 18 min left", "probe: 6/1000  8 h 17 min left"]


def test_a_resumed_stage_does_not_boast_of_its_pace(log: io.StringIO, clock: Clock) -> None:
    plain = Plain(log, clock)
    plain.advance("train", 50, 100)
    clock.now += 60.0
    plain.advance("train", 60, 100)
    assert lines(log) == ["train: 60/100  4 min left"]


def test_labels_do_not_disturb_each_other_and_may_begin_again(log: io.StringIO, clock: Clock) -> None:
    plain = Plain(log, clock)
    for label in ("a", "b", "a"):
        plain.advance(label, 0, 2)
        plain.advance(label, 2, 2)
        plain.advance(label, 2, 2)
    assert lines(log) == ["a: 2/2", "b: 2/2", "a: 2/2"]


def test_one_step_and_no_step_at_all(log: io.StringIO, clock: Clock) -> None:
    plain = Plain(log, clock)
    plain.advance("once", 1, 1)
    plain.advance("nothing", 0, 0)
    assert lines(log) == ["once: 1/1", "nothing: 0/0"]


def everything(parent: int) -> str:
    """Return what was written to a terminal whose other end is closed: it comes in pieces, then as an error."""
    pieces = []
    with contextlib.suppress(OSError):
        while piece := os.read(parent, 100_000):
            pieces.append(piece)
    os.close(parent)
    return b"".join(pieces).decode()


def test_a_terminal_gets_a_live_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal, progress(terminal) as talk:
        talk.line("train: [tf_efficientnet_lite0] from the pip package")
        talk.advance("epoch [1]", 1, 4, "loss [1.25]")
        talk.advance("epoch [1]", 4, 4, "loss [0.75]")
    shown = everything(parent)
    # Square brackets are rich's markup: what a stage says must come out as it is.
    assert "train: [tf_efficientnet_lite0] from the pip package" in shown
    assert "epoch [1]" in shown
    assert "4/4" in shown
    assert "loss [0.75]" in shown


def test_nothing_is_drawn_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as talk:
        talk.line("a sentence")
        talk.advance("work", 1, 1)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "a sentence\nwork: 1/1\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (3600 * 25, "25 h 0 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
