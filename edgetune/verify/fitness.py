"""Whether a device fits a profile or a bundle: every difference, before anything is built or sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgetune.profile import Profile, device_mismatches, mismatches, short_of_threads
from edgetune.verify.knownbad import known_bad, reads

__all__ = ["bundle_differences", "profile_differences", "quantized_types"]

SHORT = {"uint8": "U8", "int8": "S8"}
MARGIN = 2
"""Space for a release and for the one that it replaces."""


def quantized_types(profile: Profile) -> str:
    """Return the types of activations and weights as the known-bad combinations name them; empty for fp32."""
    quantization = profile.quantization
    if quantization.precision == "fp32" or quantization.reduce_range:
        return ""
    return SHORT[quantization.activation_type] + SHORT[quantization.weight_type]


def profile_differences(profile: Profile, facts: Mapping[str, Any]) -> list[str]:
    """Return how a device is not what a profile describes or asks for, one sentence each; empty when it fits."""
    found = mismatches(profile, dict(facts))
    if facts["architecture"] != profile.processor.architecture:
        return found
    found += short_of_threads(facts, profile.runtime.intra_op_threads)
    found += _format(facts, profile.model.opset, profile.model.ir_version)
    found += _memory(facts, profile.budget.peak_memory_bytes)
    return [*found, *(one.what for one in known_bad(facts, quantized_types(profile), profile.runtime.config))]


def bundle_differences(manifest: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Return why a device cannot run a bundle as it is meant to, one sentence each; empty when it fits.

    Args:
        manifest: the bundle's, verified.
        facts: the device's environment.
    """
    promised, session, model = manifest["profile"], manifest["session"], manifest["model"]
    found = device_mismatches(
        facts,
        architecture=promised["architecture"],
        features=promised["features"],
        absent=promised["absent"],
        provider=session["providers"][0],
        min_onnxruntime=promised["min_onnxruntime"],
    )
    found += short_of_threads(facts, session.get("intra_op_threads", 1))
    found += _format(facts, model.get("opset", 0), model.get("ir_version", 0))
    costs = manifest["figures"].get("latency", {}).get(model["precision"], {})
    found += _memory(facts, costs.get("peak_memory_bytes"))
    size, free = sum(entry["size_bytes"] for entry in manifest["files"].values()), facts.get("disk_free_bytes")
    if free is not None and free < MARGIN * size:
        found.append(f"disk: {free / 1e6:.0f} MB free, expected {MARGIN * size / 1e6:.0f} MB for this release and the last")
    return [*found, *(one.what for one in known_bad(facts))]


def _format(facts: Mapping[str, Any], opset: int, ir_version: int) -> list[str]:
    version = facts.get("onnxruntime")
    newest = reads(version) if version else None
    if newest is None:
        return []
    names = (("opset", opset, newest[0]), ("IR version", ir_version, newest[1]))
    return [f"{name}: {got}, but its ONNX Runtime {version} reads up to {most}" for name, got, most in names if got > most]


def _memory(facts: Mapping[str, Any], needed: float | None) -> list[str]:
    free = facts.get("memory_available_bytes")
    if not needed or free is None or free >= needed:
        return []
    return [f"memory: {free / 1e6:.0f} MB available, the model needs {needed / 1e6:.0f} MB at its peak"]
