"""Signals to a real process: the first ends it after its step, the second at once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CHILD = """
import sys, time
from edgetune.stopping import Stop

def say(text):
    print(text, flush=True)

stop = Stop()
with stop.on_signals():
    try:
        if sys.argv[1] == "polled":
            with stop.polled():
                say("step")
                while not stop():
                    time.sleep(0.01)
                say("asked")
                if sys.argv[2] == "obeys":
                    say("saved")
                    sys.exit(130)
                while True:
                    time.sleep(0.01)
        say("step")
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(3)
"""


@pytest.fixture
def child():
    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "step\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_a_step_finish(child, number):
    process = child("polled", "obeys")
    process.send_signal(number)
    assert process.stdout.read() == "asked\nsaved\n"
    assert process.wait(10) == 130


def test_the_second_signal_interrupts(child):
    process = child("polled", "goes on")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "interrupted\n"
    assert process.wait(10) == 3


def test_a_signal_while_nobody_asks_interrupts(child):
    process = child("not polled", "")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "interrupted\n"
    assert process.wait(10) == 3


def test_the_handlers_come_back():
    from edgetune.stopping import Stop

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with stop.on_signals():
        assert signal.getsignal(signal.SIGINT) == stop._take
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with stop.polled():
        assert not stop()
