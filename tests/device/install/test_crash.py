"""A kill after every step, and again on the way back: the old release or the new one, never a mixture, and it goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import edgetune
from edgetune.device.install.settings import read_settings
from edgetune.device.install.setup import set_up
from edgetune.device.install.state import read_state

SCRIPT = Path(__file__).with_name("schedules.py")


@pytest.fixture
def stage(place, release, install) -> Iterator[Path]:
    """A folder as the script wants it, in memory: what is durable is another test's matter, and disks are slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="edgetune-crash-") as name:
        folder = Path(name)
        set_up(place, replace(read_settings(place), trust="hash-only"), None, None)
        names = [install(release(number)) for number in (1, 2)]
        shutil.copytree(place.folder, folder / "place", symlinks=True)
        second = release(20, counter=20)
        shutil.copytree(second, folder / "release-2")
        shutil.copytree(release(30), folder / "release-3")
        names = {"install": [_name(second)], "rollback": [names[0]]}
        (folder / "names.json").write_text(json.dumps(names))
        assert read_state(place).current != names["rollback"][0]
        yield folder


def _name(bundle: Path) -> str:
    import hashlib

    content = (bundle / "manifest.json").read_bytes()
    return f"{json.loads(content)['counter']}-{hashlib.sha256(content).hexdigest()[:12]}"


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
