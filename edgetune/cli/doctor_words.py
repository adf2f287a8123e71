"""What `edgetune doctor` found, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["in_words"]

GIB = 2**30
TELLING = ("asimd", "asimddp", "i8mm", "sve", "bf16", "atomics", "avx2", "avx_vnni", "avx512_vnni", "avx512f", "amx_int8")
"""The flags of a processor that decide about inference; --json has all."""
EPOCH_YEARS = ("1970", "1980", "2000")


def in_words(found: Mapping[str, Any], purposes: Mapping[str, str]) -> str:
    """Return what was found, in lines.

    Args:
        found: as `--json` prints it.
        purposes: of the packages that building needs.
    """
    return "\n".join([*_machine(found), *_faults(found), *_packages(found["packages"], purposes), *_fits(found)])


def _machine(found: Mapping[str, Any]) -> Iterator[str]:
    facts = found["environment"]
    yield f"edgetune {found['edgetune']}, Python {facts['python']}, {facts['os']}, {facts['kernel']}"
    if facts.get("machine_model"):
        yield f"machine: {facts['machine_model']}"
    yield f"processor: {facts['name'] or facts['architecture']}, {facts['cores']} cores ({facts['architecture']})"
    yield f"instructions: {', '.join(flag for flag in TELLING if flag in facts['features']) or 'none that inference could use'}"
    yield f"memory: {_gib(facts.get('memory_total_bytes'))}, {_gib(facts.get('memory_available_bytes'))} available"
    yield f"disk: {_gib(found['disk_free_bytes'])} free"
    yield from _state(facts)
    yield f"clock: {facts['clock']}{_clock_note(facts['clock'])}"
    yield f"numpy: {facts['numpy'] or 'MISSING'}, ONNX Runtime: {facts['onnxruntime'] or 'MISSING'}"
    yield f"ONNX Runtime's providers: {', '.join(facts.get('providers') or ['none'])}"
    decoders = [f"{name} {version}" for name, version in facts.get("decoders", {}).items() if version]
    yield f"image decoders: {', '.join(decoders) or 'none; .npy files only'}"


def _state(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield temperature, governor and throttling, or why they are not known."""
    heat = facts.get("temperature_c")
    slowed = "YES: slowed down by heat or a weak supply" if facts.get("throttled") else "no"
    shown = {
        "temperature_c": ("temperature", f"{heat} °C"),
        "governor": ("governor", str(facts.get("governor"))),
        "throttled": ("throttled", slowed),
    }
    for key, (name, words) in shown.items():
        reason = facts.get("skipped", {}).get(key, "the device does not tell")
        yield f"{name}: {words}" if facts.get(key) is not None else f"{name}: not known ({reason})"


def _clock_note(clock: str) -> str:
    return " (not set; that works, nothing here depends on it)" if clock[:4] in EPOCH_YEARS else ""


def _gib(size: int | None) -> str:
    return f"{size / GIB:.1f} GiB" if size is not None else "not known"


def _faults(found: Mapping[str, Any]) -> Iterator[str]:
    for one in found["known_bad"]:
        yield f"KNOWN BAD: {one['what']}"
        yield f"  → {one['remedy']}"
        yield f"  source: {one['source']}"


def _packages(packages: Mapping[str, str | None], purposes: Mapping[str, str]) -> Iterator[str]:
    if packages:
        yield from ("", "packages:")
    for name, version in packages.items():
        missing = "not installed" if "edgetune[" in purposes[name] else "MISSING"
        yield f"  {name:<34}{version or missing:<15}{purposes[name]}"


def _fits(found: Mapping[str, Any]) -> Iterator[str]:
    if found["profiles"]:
        yield from ("", "profiles:")
    width = max(map(len, found["profiles"]), default=0) + 2
    for name, reasons in found["profiles"].items():
        yield f"  {name:<{width}}{'; '.join(reasons) or 'fits'}"
    if found["bundle"]:
        yield from ("", f"bundle {found['bundle']['product']}, built for {found['bundle']['made_for']}:")
        yield from (f"  {reason}" for reason in found["bundle"]["differences"] or ["fits"])
