"""`edgetune profile new`: a board's profile, from facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.cli.main import main
from edgetune.device.environment import processor_facts
from edgetune.errors import TargetError
from edgetune.profile import load_profile
from edgetune.schema import to_toml
from edgetune.verify.newprofile import profile_of

PI5 = {
    "architecture": "aarch64",
    "name": "Cortex-A76",
    "cores": 2,
    "features": ["asimd", "asimddp", "atomics"],
    "onnxruntime": "1.17.3",
    "python": "3.11.2",
    "machine_model": "Raspberry Pi 5 Model B Rev 1.0",
}


def test_this_machine_fits_the_profile_that_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    assert main(["profile", "new", "--name", "mine", "--output", str(path)]) == 0
    assert f"--target {path}" in capsys.readouterr().out
    assert load_profile(str(path)).processor.cores == processor_facts()["cores"]
    assert main(["doctor", "--profile", str(path)]) == 0


def test_every_key_has_a_source_and_what_an_old_runtime_reads_is_the_cap(tmp_path: Path) -> None:
    profile = profile_of(PI5, None, "a board over SSH")
    content = profile.model_dump(mode="json", by_alias=True, exclude_none=True)
    for table in ("processor", "runtime", "quantization", "model", "tolerance"):
        assert all(content["sources"][f"{table}.{key}"] for key in content[table])
    assert (profile.name, profile.model.opset, profile.model.ir_version) == ("raspberry-pi-5-model-b-rev-1.0", 20, 9)
    assert (profile.runtime.intra_op_threads, profile.runtime.min_onnxruntime) == (2, "1.17.0")
    (tmp_path / "board.toml").write_text(to_toml(content), encoding="utf-8")
    assert load_profile(str(tmp_path / "board.toml")) == profile


def test_a_processor_that_no_profile_is_near_to() -> None:
    with pytest.raises(TargetError, match=r"no rule of profiles/host\.toml describes a board"):
        profile_of({**PI5, "architecture": "riscv64"}, None, "a board")


def test_a_name_that_target_would_not_take_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "new", "--output", str(tmp_path / "board")]) == 2
    assert "ends in .toml" in capsys.readouterr().err
