"""`check BUNDLE`: is this what was built, and does it answer here as it did where it was built?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bundle import ShippedModel, read_bundle
from .decisions import is_classifier
from .latency import LatencyPlan
from .measure import measure
from .request import ModelRequest, Request

NAME = "shipped"
QUICK = LatencyPlan(warmup=2, rounds=4, queries_per_round=8)
MAX_PIXEL_DIFFERENCE = 8
"""In levels of 255: JPEG decoders may round differently; more than this is another rule of decoding or resizing."""


def check(bundle: Path | str, quick: bool, say: Callable[[str], None]) -> tuple[dict[str, Any], list[str]]:
    """Check a bundle on this machine: the digests of its files first, then golden images, latency and footprint.

    Args:
        bundle: the folder.
        quick: few queries and no footprint.
        say: told, in one line, what happens next.

    Returns:
        The measurement, laid out as in `measure` with one model named `shipped`; and what is broken, one sentence each: golden
        logits that are not finite or further off than the profile tolerates, golden images that are decoded by another rule.

    Raises:
        RunnerError: as `read_bundle` and `measure`.
    """
    say("digests")
    shipped = read_bundle(bundle)
    request = Request(
        models=(ModelRequest(NAME, shipped.path, shipped.sha256),),
        session=shipped.session,
        latency=QUICK if quick else LatencyPlan(),
        footprint=not quick,
        golden=shipped.golden,
        golden_model=NAME,
        preprocessing=shipped.preprocessing,
    )
    measurement = measure(request, None, say)
    return measurement, broken_golden(measurement["golden"], shipped)


def _tolerance(shipped: ShippedModel) -> float | None:
    """Return how far the profile lets a golden logit be off; None where the manifest does not say."""
    profile = shipped.manifest.get("profile")
    tolerance = profile.get("tolerance") if isinstance(profile, dict) else None
    limit = tolerance.get("logit_max_abs") if isinstance(tolerance, dict) else None
    return float(limit) if isinstance(limit, (int, float)) else None


def broken_golden(golden: dict[str, Any], shipped: ShippedModel) -> list[str]:
    """Return what `check_golden` found that a bundle's profile does not tolerate, one sentence each."""
    logits, decode, tolerance = golden["logits"], golden["decode"], _tolerance(shipped)
    if not logits["finite"]:
        return ["golden logits: not all are numbers"]
    broken = []
    if tolerance is not None and logits["max_abs"] > tolerance:
        broken.append(f"golden logits: off by up to {logits['max_abs']:.3g}, the profile tolerates {tolerance:.3g}")
    # Even within the tolerance: these images were decided otherwise where the bundle was built.
    if logits["top1_changed"]:
        how = "have another top-1" if is_classifier(shipped.heads) else "are decided otherwise"
        broken.append(f"golden images: {logits['top1_changed']} of {golden['images']} {how}")
    if decode["status"] == "different" and decode["max_pixel_difference"] > MAX_PIXEL_DIFFERENCE:
        broken.append(f"golden images are decoded differently here: {decode['reason']}")
    return broken


def lines(measurement: dict[str, Any], broken: list[str]) -> list[str]:
    """Return a checked bundle's measurement for a person to read."""
    facts, model, golden = measurement["environment"], measurement["models"][NAME], measurement["golden"]
    decode, logits, latency, footprint = golden["decode"], golden["logits"], model["latency"], model["footprint"]
    result = [
        "digests    all files are as built",
        f"machine    {facts['name'] or facts['architecture']}, {facts['cores']} cores, onnxruntime {facts['onnxruntime']}",
        f"provider   {model['providers'][0]}",
        f"decoding   {decode['status']}" + (f": {decode['reason']}" if decode["reason"] else ""),
        *_decoder_lines(golden.get("decoders", {})),
        f"logits     {_logits_line(logits)} on {golden['images']} golden images",
        f"latency    p50 {latency['p50_ms']:.3f} ms, p90 {latency['p90_ms']:.3f} ms, p99 {latency['p99_ms']:.3f} ms "
        f"(batch 1, {queries_in_words(latency)})",
        f"confidence {confidence_in_words(latency)}",
    ]
    if footprint:
        peak = footprint["peak_memory_bytes"]
        memory = "unknown" if peak is None else f"{peak / 1e6:.1f} MB"
        result.append(f"footprint  cold start {footprint['cold_start_ms']:.1f} ms, peak memory of the model {memory}")
    return result + [f"BROKEN     {reason}" for reason in broken]


def _decoder_lines(decoders: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each way of decoding that this machine has and that is not exactly the contract."""
    return [
        f"{way:<14} pixels differ by up to {found['max_pixel_difference']} of 255, {found['decisions_changed']} of "
        f"{found['images']} decisions changed ({found['what']})"
        for way, found in decoders.items()
        if found["status"] == "different"
    ]


def _logits_line(logits: dict[str, Any]) -> str:
    if logits["bit_equal"]:
        return "the same bits"
    if not logits["finite"]:
        return "not finite"
    return f"within {logits['max_abs']:.3g}, {logits['top1_changed']} decisions changed"


def queries_in_words(latency: dict[str, Any]) -> str:
    """Return how much a latency rests on: `1024 queries`, `64 queries, quick: no measurement`."""
    words = f"{latency['queries']} queries"
    if latency.get("period_ms"):
        words += f", one every {latency['period_ms']:g} ms"
    if latency.get("cut_short"):
        words += ", as many as the time allowed"
    return words + (", quick: a look, not a measurement" if latency.get("quick") else "")


def confidence_in_words(latency: dict[str, Any]) -> str:
    """Return the early-stopping estimates as one clause, or why there are none."""
    found = latency["early_stopping"]
    known = [f"{name} ≤ {found[f'{name}_ms']:.3f} ms" for name in ("p50", "p90", "p99") if found[f"{name}_ms"] is not None]
    parts = [f"{found['confidence'] * 100:.0f} % sure of {', '.join(known)}"] if known else []
    return "; ".join([*parts, *(f"no {key[:3]}: {reason}" for key, reason in found["skipped"].items())])
