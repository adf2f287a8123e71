"""`edgetune profiles`: the boards that edgetune knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.cli.main import main
from edgetune.profile import available_profiles, load_profile


def test_the_table_has_a_row_for_every_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert set(available_profiles()) <= set(rows)
    assert "Cortex-A76" in rows["raspberry-pi-5"]
    assert "U8S8 per channel" in rows["raspberry-pi-5"]
    assert "Tensorrt" in rows["jetson-orin-nano"]
    assert "facts of" in rows["host"]


def test_the_table_as_json_is_whole_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "--json"]) == 0
    content = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert content["imx8mp"] == load_profile("imx8mp").model_dump(mode="json", by_alias=True)


def test_one_profile_with_its_sources_is_a_file_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "rk3588"]) == 0
    text = capsys.readouterr().out
    assert "[sources]" in text
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace("intra_op_threads = 4", "intra_op_threads = 2"), encoding="utf-8")
    assert main(["profiles", str(mine), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["name"], content["runtime"]["intra_op_threads"]) == ("rk3588", 2)


def test_an_unknown_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "rk3599"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "did you mean 'rk3588'?" in output.err


def test_a_host_that_no_rule_describes_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"architecture": "riscv64", "features": [], "name": "", "cores": 1}
    monkeypatch.setattr("edgetune.profile.shipped.processor_facts", lambda: facts)
    assert main(["profiles"]) == 0
    output = capsys.readouterr()
    assert "raspberry-pi-4" in output.out
    assert "host: no rule of profiles/host.toml describes this machine" in output.err
