from __future__ import annotations

import threading

import pytest

from edgetune.errors import TargetError, UsageError
from edgetune.outside.fleet import at_once, devices_of


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int, int, str]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((label, done, total, note))


def test_devices_come_from_a_file_and_from_the_command_line(tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text('schema = 1\n[devices]\npi = "ssh://pi@board"\n')
    assert devices_of(("local",), file) == {"pi": "ssh://pi@board", "local": "local"}
    assert devices_of((), None) == {}
    with pytest.raises(UsageError, match="named twice"):
        devices_of(("local", "local"), None)


def test_every_fault_of_a_fleet_file_is_said(tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text("schema = 1\nspeed = 1\n[devices]\npi = 7\n")
    with pytest.raises(UsageError) as caught:
        devices_of((), file)
    assert "speed" in str(caught.value)
    assert "devices.pi" in str(caught.value)


def test_devices_work_at_the_same_time_and_speak_with_their_names():
    together = threading.Barrier(3, timeout=30)
    heard = Heard()

    def work(name, talk):
        together.wait()
        talk.line("begun")
        talk.advance("measure", 1, 2, "half")
        return name.upper()

    assert at_once(["a", "b", "c"], work, heard) == {"a": "A", "b": "B", "c": "C"}
    assert sorted(heard.lines) == ["a: begun", "b: begun", "c: begun"]
    assert ("b", 1, 2, "half") in heard.steps


def test_a_device_that_fails_does_not_end_the_others():
    heard = Heard()

    def work(name, talk):
        if name == "b":
            raise TargetError("gone")
        return name

    found = at_once(["a", "b"], work, heard)
    assert found["a"] == "a"
    assert isinstance(found["b"], TargetError)
    assert heard.lines == ["b: gone"]
    assert isinstance(at_once(["b"], work, heard)["b"], TargetError)


def test_a_bug_is_not_swallowed():
    def work(name, talk):
        raise ZeroDivisionError

    for names in (["a"], ["a", "b"]):
        with pytest.raises(ZeroDivisionError):
            at_once(names, work, Heard())
