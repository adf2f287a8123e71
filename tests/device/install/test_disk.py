"""No space left, and a disk that fails, at every write of an installation: the old release lives, the cause is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgetune

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that fails writes."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        assert os.environ.get("CI") != "true", "CI has a C compiler"
        pytest.skip("there is no C compiler here")
    path = tmp_path_factory.mktemp("shim") / "failing_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", path, HERE / "failing_disk.c", "-ldl"], check=True)
    return path


def play(stage: Path, shim: Path, stride: int) -> dict[str, object]:
    environment = {**os.environ, "PYTHONPATH": str(Path(edgetune.__file__).parents[1]), "LD_PRELOAD": str(shim)}
    command = [sys.executable, str(HERE / "failing_disk.py"), str(stage), str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_writes_fail_once_with_no_space_and_once_with_an_io_error(stage, shim, stride):
    """Every fifth write for each fault, other ones for the other; all of them take half a minute."""
    result = play(stage, shim, stride)
    assert result["wrong"] == []
    assert result["No space left on device"] == result["Input/output error"] > 50
