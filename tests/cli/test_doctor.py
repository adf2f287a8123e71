"""`edgetune doctor`: what this machine is, what it fits and what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from typing import Any

import onnxruntime
import pytest

from edgetune.cli import doctor
from edgetune.cli.main import main
from edgetune.device.environment import processor_facts


def test_it_describes_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr()
    facts = processor_facts()
    assert facts["architecture"] in output.out
    assert f"{facts['cores']} cores" in output.out
    assert metadata.version("torch") in output.out
    assert "CPUExecutionProvider" in output.out
    assert output.err == ""


def test_json_says_which_profiles_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert content["environment"]["onnxruntime"] == onnxruntime.__version__ == content["packages"]["onnxruntime"]
    other = "aarch64" if content["environment"]["architecture"] == "x86_64" else "x86_64"
    board = "raspberry-pi-5" if other == "aarch64" else "x86-vnni"
    assert content["profiles"][board] == [f"architecture: got {content['environment']['architecture']}, expected {other}"]
    assert content["disk_free_bytes"] > 0


def test_a_target_that_this_machine_is_not_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--target", "jetson-orin-nano"]) == 3
    output = capsys.readouterr()
    assert "jetson-orin-nano" in output.out
    assert "this machine is not what 'jetson-orin-nano' describes" in output.err


def test_the_host_fits_itself() -> None:
    assert main(["doctor", "--target", "host"]) == 0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(doctor.PACKAGES, "a-package-that-nobody-has", "tests")
    assert main(["doctor"]) == 2
    output = capsys.readouterr()
    assert "MISSING" in output.out
    assert "missing: a-package-that-nobody-has" in output.err


def test_it_does_not_import_torch_to_learn_its_version() -> None:
    code = "import sys; from edgetune.cli.main import main; main(['doctor', '--json']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
