"""Profiles: the shipped facts and their sources, `host`, and whether a device is what a profile describes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from edgetune.device.environment import processor_facts
from edgetune.errors import ProfileError, TargetError
from edgetune.profile import Profile, available_profiles, load_profile, mismatches, profiles_folder, require_match
from edgetune.schema import to_toml

SHIPPED = ("imx8mp", "jetson-orin-nano", "raspberry-pi-4", "raspberry-pi-5", "rk3588", "x86-avx2", "x86-vnni")
VNNI = {"architecture": "x86_64", "features": ["avx2", "avx512_vnni"], "name": "a server", "cores": 8}
AVX_VNNI = {"architecture": "x86_64", "features": ["avx2", "avx_vnni"], "name": "a laptop", "cores": 6}
AVX2 = {"architecture": "x86_64", "features": ["avx2"], "name": "an old PC", "cores": 2}
SSE = {"architecture": "x86_64", "features": ["sse4_1"], "name": "an older PC", "cores": 1}
A72 = {"architecture": "aarch64", "features": ["asimd", "crc32"], "name": "Cortex-A72", "cores": 4}
A76 = {"architecture": "aarch64", "features": ["asimd", "asimddp"], "name": "Cortex-A76", "cores": 3}
RISC = {"architecture": "riscv64", "features": [], "name": "", "cores": 4}


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((profiles_folder() / f"{name}.toml").read_text(encoding="utf-8"))


def test_the_promised_profiles_are_shipped() -> None:
    assert set(available_profiles()) == {"host", *SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_loads_under_its_own_name(name: str) -> None:
    assert load_profile(name).name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_every_fact_has_a_source(name: str) -> None:
    content = raw(name)
    sources = content.pop("sources")
    facts = {(table, key) for table, keys in content.items() if isinstance(keys, dict) for key in keys}
    assert {table for table, _ in facts} >= {"processor", "runtime", "quantization", "model"}
    assert [f"{t}.{k}" for t, k in sorted(facts) if t not in sources and f"{t}.{k}" not in sources] == []
    assert all(len(text) > 20 for text in sources.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_no_source_is_about_a_key_that_the_file_does_not_have(name: str) -> None:
    content = raw(name)
    for source in content["sources"]:
        table, _, key = source.partition(".")
        assert table in content
        assert not key or key in content[table]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_profile_is_consistent(name: str) -> None:
    profile = load_profile(name)
    assert not set(profile.processor.features) & set(profile.processor.absent)
    assert profile.runtime.intra_op_threads <= profile.processor.cores
    # Without VNNI or another remedy, U8S8 saturates on x86.
    if profile.processor.architecture == "x86_64" and profile.quantization.weight_type == "int8":
        vnni = any("vnni" in flag for flag in profile.processor.features)
        exact = profile.runtime.config.get("session.x64quantprecision") == "1"
        assert vnni or exact or profile.quantization.reduce_range
    assert profile.model.opset >= 17
    assert profile.model.ir_version >= 8


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_profile_prints_is_a_profile(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(profile.model_dump(mode="json", by_alias=True)), encoding="utf-8")
    assert load_profile(str(path)) == profile


@pytest.mark.parametrize(
    ("facts", "basis"),
    [(VNNI, "x86-vnni"), (AVX_VNNI, "x86-vnni"), (AVX2, "x86-avx2"), (A76, "raspberry-pi-5"), (A72, "raspberry-pi-4")],
)
def test_host_has_the_facts_of_the_first_profile_that_fits(
    facts: dict[str, Any], basis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetune.profile.shipped.processor_facts", lambda: facts)
    host, shipped = load_profile("host"), load_profile(basis)
    assert host.name == "host"
    assert (host.quantization, host.model, host.runtime.config) == (shipped.quantization, shipped.model, shipped.runtime.config)
    assert (host.processor.name, host.processor.cores) == (facts["name"], facts["cores"])
    assert host.runtime.intra_op_threads == min(facts["cores"], shipped.runtime.intra_op_threads)
    assert basis in host.title
    assert mismatches(host, facts) == []


@pytest.mark.parametrize("facts", [SSE, RISC])
def test_a_host_that_no_rule_describes_is_refused(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.profile.shipped.processor_facts", lambda: facts)
    with pytest.raises(TargetError, match=r"no rule of profiles/host\.toml .*\n.*--target"):
        load_profile("host")


def test_this_machine_fits_its_own_profile() -> None:
    assert mismatches(load_profile("host"), processor_facts()) == []


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile("rasberry-pi5")
    assert "did you mean 'raspberry-pi-5'?" in str(caught.value)
    assert all(name in str(caught.value) for name in available_profiles())


@pytest.mark.parametrize("target", ["../profiles/x86-vnni", "", "host/", "X86-VNNI"])
def test_only_names_are_names(target: str) -> None:
    with pytest.raises(ProfileError, match="the target is not known"):
        load_profile(target)


def test_a_profile_file_with_faults_names_them_all(tmp_path: Path) -> None:
    content = raw("x86-vnni")
    content["processor"] |= {"cores": 0, "feature": ["avx2"]}
    content["runtime"] |= {"graph_optimization": "al", "min_onnxruntime": "1.18"}
    content["model"]["opset"] = 99
    del content["title"]
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(content), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_profile(str(path))
    faults = {fault.where: fault.hint for fault in caught.value.faults}
    assert faults == {
        "title": "",
        "processor.cores": "",
        "processor.feature": "did you mean 'features'?",
        "runtime.graph_optimization": "did you mean 'all'?",
        "runtime.min_onnxruntime": "",
        "model.opset": "",
    }


def test_a_source_of_nothing_is_a_fault(tmp_path: Path) -> None:
    content = raw("x86-vnni")
    content["sources"]["procesor"] = "a datasheet"
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(content), encoding="utf-8")
    with pytest.raises(ProfileError, match="'procesor', which is not a key of a profile"):
        load_profile(str(path))


def test_profile_files_that_are_not_there_or_newer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        load_profile(str(tmp_path / "none.toml"))
    newer = tmp_path / "newer.toml"
    newer.write_text("schema = 2\n", encoding="utf-8")
    with pytest.raises(ProfileError, match="has schema 2; this edgetune knows schema 1"):
        load_profile(str(newer))


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("x86-vnni", VNNI, []),
        ("x86-vnni", AVX_VNNI, []),
        ("x86-vnni", AVX2, ["processor lacks avx512_vnni or avx_vnni"]),
        ("x86-avx2", AVX2, []),
        ("x86-avx2", VNNI, ["processor has avx512_vnni, which this board does not"]),
        ("raspberry-pi-4", A72, []),
        ("raspberry-pi-4", A76, ["processor has asimddp, which this board does not"]),
        ("raspberry-pi-5", A72, ["processor lacks asimddp"]),
        ("raspberry-pi-5", VNNI, ["architecture: got x86_64, expected aarch64"]),
        (
            "jetson-orin-nano",
            {**A76, "providers": ["CPUExecutionProvider"]},
            ["provider: expected TensorrtExecutionProvider, got CPUExecutionProvider"],
        ),
        ("imx8mp", {**A72, "onnxruntime": "1.9.0"}, ["ONNX Runtime: got 1.9.0, expected 1.18.0 or newer"]),
        ("imx8mp", {**A72, "onnxruntime": "1.18.0"}, []),
        ("imx8mp", {**A72, "onnxruntime": "1.100.0+cpu", "providers": ["CPUExecutionProvider"]}, []),
    ],
)
def test_mismatches(name: str, facts: dict[str, Any], expected: list[str]) -> None:
    profile = load_profile(name)
    assert mismatches(profile, facts) == expected
    if not expected:
        require_match(profile, facts)


def test_a_device_that_does_not_match_is_refused_with_every_difference() -> None:
    facts = {**A72, "onnxruntime": "1.2.3", "providers": ["CPUExecutionProvider"]}
    with pytest.raises(TargetError) as caught:
        require_match(load_profile("jetson-orin-nano"), facts)
    assert len(caught.value.faults) == 3
    assert int(caught.value.exit_code) == 3


def test_profiles_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_profile("rk3588").name = "x"


def test_a_profile_without_sources_is_refused() -> None:
    content = raw("x86-vnni")
    del content["sources"]
    with pytest.raises(ValueError, match="sources"):
        Profile.model_validate(content)
