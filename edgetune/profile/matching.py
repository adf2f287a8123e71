"""Whether a device is what a profile, or a bundle, promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgetune.errors import Fault, TargetError
from edgetune.profile.values import Profile

__all__ = ["THREADS", "device_mismatches", "honoured", "lacking", "mismatches", "require_match", "short_of_threads"]

THREADS = ("intra_op_threads", "inter_op_threads")


def mismatches(profile: Profile, facts: dict[str, Any]) -> list[str]:
    """Return how a device is not what a profile describes, one sentence each; empty when it fits.

    Args:
        profile: the promise.
        facts: the device's `environment` as `edgetune.device.environment` reads it, or its processor's part.
    """
    return device_mismatches(
        facts,
        architecture=profile.processor.architecture,
        features=profile.processor.features,
        absent=profile.processor.absent,
        provider=profile.runtime.providers[0],
        min_onnxruntime=profile.runtime.min_onnxruntime,
    )


def device_mismatches(
    facts: Mapping[str, Any],
    *,
    architecture: str,
    features: Iterable[str],
    absent: Iterable[str],
    provider: str,
    min_onnxruntime: str,
) -> list[str]:
    """Return how a device is not what a profile, or a bundle's manifest, promises; see `mismatches`."""
    if facts["architecture"] != architecture:
        return [f"architecture: got {facts['architecture']}, expected {architecture}"]
    found = []
    if missing := lacking(features, facts["features"]):
        found.append(f"processor lacks {', '.join(name.replace('|', ' or ') for name in missing)}")
    if foreign := [name for name in absent if name in facts["features"]]:
        found.append(f"processor has {', '.join(foreign)}, which this board does not")
    providers = facts.get("providers")
    if providers is not None and provider not in providers:
        found.append(f"provider: expected {provider}, got {', '.join(providers)}")
    version = facts.get("onnxruntime")
    if version and _version(version) < _version(min_onnxruntime):
        found.append(f"ONNX Runtime: got {version}, expected {min_onnxruntime} or newer")
    return found


def short_of_threads(facts: Mapping[str, Any], threads: int) -> list[str]:
    """Return a sentence where a device has fewer hardware threads than a session asks for; empty where it has enough."""
    usable = facts.get("logical_cores") or facts["cores"]
    return [f"threads: asks for {threads}, the device has {usable} hardware threads"] if threads > usable else []


def honoured(session: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return session options with no more threads than a device has, and a sentence for each that was lowered.

    More of them than there are hardware threads wait for each other: on one emulated core four took 3.7 times as long as one.
    """
    options, said = dict(session), []
    for key in THREADS:
        if short_of_threads(facts, options.get(key, 1)):
            said.append(f"{key} = {facts['cores']} instead of {options[key]}, as it has no more cores")
            options[key] = int(facts["cores"])
    return options, said


def lacking(wanted: Iterable[str], features: Iterable[str]) -> list[str]:
    """Return the wanted flags that are not there; of `a|b`, one is enough."""
    there = set(features)
    return [name for name in wanted if there.isdisjoint(name.split("|"))]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())


def require_match(profile: Profile, facts: dict[str, Any], where: str = "this machine") -> None:
    """Raise unless a device is what a profile describes.

    Args:
        profile: the promise.
        facts: the device's environment.
        where: the device, in words.

    Raises:
        TargetError: with every difference.
    """
    if found := mismatches(profile, facts):
        raise TargetError(
            f"{where} is not what the profile {profile.name!r} describes",
            faults=[Fault(where="", problem=text) for text in found],
            remedy="choose another --target or --device; without a device (verify.device = auto), this machine stands in",
        )
