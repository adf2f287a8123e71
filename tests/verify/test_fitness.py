"""Known-bad combinations, and every difference between a device and what it is to run."""

from __future__ import annotations

import re

import pytest

from edgetune.profile import load_profile
from edgetune.verify.fitness import bundle_differences, profile_differences
from edgetune.verify.knownbad import KNOWN_BAD, known_bad, reads

A72 = {
    "architecture": "aarch64",
    "name": "Cortex-A72",
    "cores": 4,
    "logical_cores": 4,
    "features": ["asimd", "fp"],
    "providers": ["CPUExecutionProvider"],
    "onnxruntime": "1.20.1",
    "memory_available_bytes": 400_000_000,
    "disk_free_bytes": 10**9,
    "python": "3.11.2",
    "machine_model": "Raspberry Pi 4 Model B Rev 1.4",
}
HASWELL = {**A72, "architecture": "x86_64", "name": "Haswell", "features": ["avx2"]}


def test_every_combination_has_a_source_and_a_remedy() -> None:
    assert all(re.search("https?://", one.source) and one.remedy for one in KNOWN_BAD)


def test_an_honest_board_is_not_accused() -> None:
    assert known_bad(A72, "U8S8") == []
    assert profile_differences(load_profile("raspberry-pi-4"), A72) == []


def test_a_dot_product_that_the_core_does_not_have() -> None:
    liar = {**A72, "features": ["asimd", "asimddp"]}
    assert ["SIGILL" in one.what for one in known_bad(liar)] == [True]
    assert known_bad({**liar, "name": "Cortex-A76"}) == []
    assert any("claims the dot product" in reason for reason in profile_differences(load_profile("raspberry-pi-4"), liar))


@pytest.mark.parametrize(("version", "count"), [("1.20.1", 0), ("1.21.0", 1), ("1.21.1", 1), ("1.22.0", 0)])
def test_the_release_that_dies_on_a_raspberry_pi_4(version: str, count: int) -> None:
    assert len(known_bad({**A72, "onnxruntime": version})) == count
    assert known_bad({**A72, "onnxruntime": version, "features": ["asimd", "atomics"]}) == []


def test_u8s8_on_avx2_alone_saturates_unless_the_session_cures_it() -> None:
    assert len(known_bad(HASWELL, "U8S8")) == 1
    assert known_bad(HASWELL, "U8S8", {"session.x64quantprecision": "1"}) == []
    assert known_bad(HASWELL, "U8U8") == known_bad({**HASWELL, "features": ["avx2", "avx_vnni"]}, "U8S8") == []
    assert profile_differences(load_profile("x86-avx2"), HASWELL) == []


@pytest.mark.parametrize(
    ("version", "newest"),
    [("1.16.3", None), ("1.17.3", (20, 9)), ("1.20.1", (21, 10)), ("1.23.2", (23, 11)), ("1.32.0", (25, 13))],
)
def test_what_a_release_reads(version: str, newest: tuple[int, int] | None) -> None:
    assert reads(version) == newest


def test_every_difference_of_a_profile_comes_at_once() -> None:
    weak = {**A72, "onnxruntime": "1.17.1", "logical_cores": 2, "features": ["asimddp"], "name": "Cortex-A76"}
    found = "\n".join(profile_differences(load_profile("raspberry-pi-4"), weak))
    for words in ("asimddp", "expected 1.18.0", "asks for 4", "opset: 21", "IR version: 10"):
        assert words in found


def test_a_bundle_that_does_not_fit() -> None:
    manifest = {
        "profile": {"architecture": "aarch64", "features": [], "absent": [], "min_onnxruntime": "1.18.0"},
        "session": {"providers": ["CPUExecutionProvider"], "intra_op_threads": 8},
        "model": {"precision": "int8", "opset": 22, "ir_version": 10},
        "figures": {"latency": {"int8": {"peak_memory_bytes": 5e8}}},
        "files": {"model.onnx": {"size_bytes": 6 * 10**8}},
    }
    found = bundle_differences(manifest, A72)
    assert [reason.split(":")[0] for reason in found] == ["threads", "opset", "memory", "disk"]
