"""Combinations of processor, ONNX Runtime and quantization that are known to go wrong, as data, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KNOWN_BAD", "READS", "KnownBad", "known_bad", "reads", "version_of"]

COMPATIBILITY = (
    "measured with releases from 1.17 on, which read or refuse files of each opset and IR version; "
    "https://onnxruntime.ai/docs/reference/compatibility.html"
)
WITHOUT_DOT_PRODUCT = ("Cortex-A35", "Cortex-A53", "Cortex-A57", "Cortex-A72", "Cortex-A73")
ARMV8_0 = "gcc/config/aarch64/aarch64-cores.def of https://github.com/gcc-mirror/gcc: these cores are Armv8.0"


@dataclass(frozen=True, kw_only=True)
class KnownBad:
    """One combination. A device is concerned if everything that is given holds.

    Attributes:
        what: what goes wrong, in one sentence.
        remedy: what to do.
        source: who says so.
        cores: names of cores, one of which the processor has.
        architecture: as `uname -m` prints it.
        has: flags of the processor, all of them.
        lacks: flags, all of which are missing; `a|b` is missing if both are.
        onnxruntime: versions from the first on and below the second.
        types: of activations and weights, such as U8S8; needs a profile to be known.
        without_config: a session entry that would cure it.
    """

    what: str
    remedy: str
    source: str
    cores: tuple[str, ...] = ()
    architecture: str = ""
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    onnxruntime: tuple[str, str] | None = None
    types: str = ""
    without_config: str = ""


KNOWN_BAD = (
    KnownBad(
        what="/proc/cpuinfo claims the dot product (asimddp), which this core does not have: int8 models die by SIGILL",
        remedy="an emulator or a container shows another processor's cpuinfo; run on the bare system",
        source=f"{ARMV8_0}; measured: int8 dies, fp32 passes",
        cores=WITHOUT_DOT_PRODUCT,
        has=("asimddp",),
    ),
    KnownBad(
        what="ONNX Runtime 1.21 dies by SIGILL when it is imported on an Armv8.0 core, such as a Raspberry Pi 4's",
        remedy="install another release: pip install 'onnxruntime!=1.21.*'",
        source="https://github.com/microsoft/onnxruntime/issues/24112, https://github.com/microsoft/onnxruntime/issues/23957",
        architecture="aarch64",
        lacks=("atomics",),
        onnxruntime=("1.21", "1.22"),
    ),
    KnownBad(
        what="U8S8 saturates in 16 bits on AVX2 without VNNI: wrong logits without an error",
        remedy="runtime.config: session.x64quantprecision = '1', as the profile x86-avx2 has it",
        source="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html; measured on an emulated "
        "Haswell: logits off by up to 1.4",
        architecture="x86_64",
        has=("avx2",),
        lacks=("avx512_vnni|avx_vnni",),
        types="U8S8",
        without_config="session.x64quantprecision",
    ),
)

READS = (("1.17", 20, 9), ("1.18", 21, 10), ("1.21", 22, 10), ("1.23", 23, 11), ("1.24", 25, 13))
"""From which ONNX Runtime on which opset and IR version are read; measured with 1.17.3, 1.18.1, 1.19.2, 1.20.1, 1.21.1, 1.22.1,
1.23.2 and 1.24.1."""


def version_of(text: str) -> tuple[int, ...]:
    """Return a version's numbers, without what follows them."""
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())


def reads(onnxruntime: str) -> tuple[int, int] | None:
    """Return the newest opset and IR version that a release reads; None for one older than those that were measured."""
    known = [(opset, ir) for first, opset, ir in READS if version_of(first) <= version_of(onnxruntime)]
    return known[-1] if known else None


def known_bad(facts: Mapping[str, Any], types: str = "", config: Mapping[str, str] | None = None) -> list[KnownBad]:
    """Return the combinations that a device is.

    Args:
        facts: the device's environment.
        types: of a profile's or bundle's activations and weights, such as U8S8; empty if there is none to judge.
        config: the session entries that it ships.
    """
    return [one for one in KNOWN_BAD if _concerns(one, facts, types, config or {})]


def _concerns(one: KnownBad, facts: Mapping[str, Any], types: str, config: Mapping[str, str]) -> bool:
    flags, names = set(facts["features"]), str(facts.get("name") or "")
    version = version_of(str(facts.get("onnxruntime") or "0"))
    conditions = (
        not one.cores or any(core in names.split(" + ") for core in one.cores),
        not one.architecture or facts["architecture"] == one.architecture,
        flags.issuperset(one.has),
        all(flags.isdisjoint(flag.split("|")) for flag in one.lacks),
        one.onnxruntime is None or version_of(one.onnxruntime[0]) <= version < version_of(one.onnxruntime[1]),
        not one.types or one.types == types,
        not one.without_config or one.without_config not in config,
    )
    return all(conditions)
