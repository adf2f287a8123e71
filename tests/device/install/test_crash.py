"""A kill after every step, and again on the way back: the old release or the new one, never a mixture, and it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgetune

SCRIPT = Path(__file__).with_name("schedules.py")


def play(stage: Path, how: str) -> dict[str, object]:
    environment = {**os.environ, "PYTHONPATH": str(Path(edgetune.__file__).parents[1])}
    command = [sys.executable, str(SCRIPT), str(stage), how]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kill_at_every_step_and_again_on_the_way_back(stage):
    result = play(stage, "single")
    assert result["wrong"] == []
    assert result["schedules"] == 14 + 6 + 2 * 4 * 3


@pytest.mark.slow
def test_a_kill_at_every_pair_of_steps(stage):
    """Two and three deaths in every order that can be: some minutes."""
    result = play(stage, "double")
    assert result["wrong"] == []
    assert result["schedules"] > 400
