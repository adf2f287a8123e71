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


def test_what_is_not_known_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["environment"]
    assert facts["skipped"].keys() == {key for key, value in facts.items() if value is None}
    assert all(facts["skipped"].values())


def test_another_interpreter_is_described_as_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", f"python:{sys.executable}", "--profile", "host"]) == 0
    output = capsys.readouterr().out
    assert "packages:" not in output
    assert onnxruntime.__version__ in output


def test_a_known_bad_combination_is_told_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    liar = {**doctor.environment(), "architecture": "aarch64", "name": "Cortex-A72", "features": ["asimddp"]}
    monkeypatch.setattr(doctor, "environment", lambda: {**liar, "clock": "1970-01-01T00:00:05Z"})
    assert main(["doctor", "--profile", "raspberry-pi-4"]) == 3
    output = capsys.readouterr().out
    assert "KNOWN BAD: /proc/cpuinfo claims the dot product" in output
    assert "source: gcc" in output
    assert "not set; that works" in output


def test_profile_and_bundle_together_are_refused(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--profile", "host", "--bundle", str(tmp_path)]) == 2
    assert "expected one of them" in capsys.readouterr().err
