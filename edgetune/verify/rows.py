"""The rows about what a model computes: logits, decisions, accuracy, golden images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.artefacts import Head, Measurement, NumericParity, VerdictRow
from edgetune.device.decisions import is_classifier
from edgetune.device.decoders import CONTRACT
from edgetune.device.heads import columns_of
from edgetune.numeric import head_nmse, on_one_scale
from edgetune.verify.statistics import paired_drop, wilson_interval

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "accuracy",
    "decision",
    "golden_decoding",
    "golden_logits",
    "has_numbers",
    "numeric_export",
    "other_decoders",
    "sane_outputs",
    "skipped",
    "undecided",
]

DECISIONS = "decisions"
TOP1 = "top-1"


def against_fp32(candidate: str, what: str) -> str:
    """Return the name of a row that compares a precision with fp32."""
    return f"{candidate} ↔ fp32 {what}"


def skipped(kind: str, name: str, reason: str, figure: str = "", limit: str = "") -> VerdictRow:
    """Return a row that was not judged, with the reason."""
    return VerdictRow(kind=kind, name=name, verdict="SKIPPED", figure=figure, limit=limit, reason=reason)


def undecided(kind: str, name: str, reason: str, limit: str = "", figure: str = "") -> VerdictRow:
    """Return a row that lacks what it takes to judge it: never KEPT, but no regression either."""
    return VerdictRow(kind=kind, name=name, verdict="INCONCLUSIVE", figure=figure, limit=limit, reason=reason)


def has_numbers(measurement: Measurement, name: str) -> bool:
    """Return whether a model was run on images and all of its logits are numbers."""
    model = measurement.raw["models"].get(name)
    return bool(model and model["eval"] and model["eval"]["finite"])


def numeric_export(
    measurement: Measurement, parity: NumericParity | None, limit: float, heads: Sequence[Head], reference: str = "torch"
) -> VerdictRow:
    """Judge whether the fp32 file computes what it was made from computes.

    Args:
        measurement: gives the scale: the largest logit of fp32 on the test set.
        parity: the reference against the file.
        limit: the largest difference, relative to the largest logit; for other tasks than a single label, to its head's scale.
        heads: what the columns of the logits mean.
        reference: what the file was made from, in a word or two.
    """
    name = f"{reference} ↔ ONNX fp32 logits"
    if parity is None:
        return skipped("numeric", name, f"there is no {reference} model to compare with")
    if not has_numbers(measurement, "fp32"):
        return skipped("numeric", name, "fp32 has no logits to take the scale from")
    # Heads of unlike units were brought to one scale when they were compared.
    largest = float(np.abs(measurement.logits("fp32")).max()) if is_classifier(heads) else 1.0
    relative = parity.max_abs / largest if largest else parity.max_abs
    kept = relative <= limit
    return VerdictRow(
        kind="numeric",
        name=name,
        verdict="KEPT" if kept else "BROKEN",
        figure=f"{relative:.1e} of the {'largest logit' if is_classifier(heads) else 'scale of its head'}",
        limit=f"≤ {limit:.1e}",
        reason="" if kept else f"the export changed the network; the worst image is {parity.worst}",
        data={
            "max_abs": parity.max_abs,
            "relative": relative,
            "nmse": parity.nmse,
            "images": parity.images,
            "worst": parity.worst,
        },
    )


def sane_outputs(measurement: Measurement, name: str, heads: Sequence[Head]) -> VerdictRow:
    """Judge whether a model's logits are numbers and depend on the image; report how far it is from fp32, head by head."""
    outputs = measurement.raw["models"][name]["eval"]
    if outputs is None:
        return undecided("numeric", f"{name} logits", "no images were run", "numbers that vary")
    against = "fp32" if name != "fp32" and "fp32" in measurement.raw["models"] else None
    figure, reason = "finite, varying", ""
    data: dict[str, Any] = {}
    if not outputs["finite"]:
        figure, reason = "NaN or infinity", f"logits of {name} are not numbers"
    elif outputs["constant"]:
        figure, reason = "constant", f"{name} gives the same logits for every image"
    elif stuck := _constant_heads(measurement.logits(name), heads):
        figure, reason = "constant", f"{name} gives the same answer for every image: {', '.join(stuck)}"
    elif against and has_numbers(measurement, against):
        figure, data = _distance(measurement.logits(against), measurement.logits(name), heads)
    return VerdictRow(
        kind="numeric",
        name=f"{name} ↔ {against} logits" if against else f"{name} logits",
        verdict="BROKEN" if reason else "KEPT",
        figure=figure,
        limit="numbers that vary",
        reason=reason,
        data=data,
    )


def _constant_heads(logits: npt.NDArray[np.float32], heads: Sequence[Head]) -> list[str]:
    """Return the names of the heads, where there are several, whose columns do not depend on the image."""
    if len(heads) == 1 or len(logits) == 1:
        return []
    varies = (logits != logits[0]).any(axis=0)
    return [head.name for head, columns in zip(heads, columns_of(heads), strict=True) if not varies[columns].any()]


def _distance(
    reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32], heads: Sequence[Head]
) -> tuple[str, dict[str, Any]]:
    """Return how far finite logits `[N, C]` are from a reference: NMSE and largest difference, in words and in numbers."""
    nmse = head_nmse(reference, other, heads)
    difference = np.abs(other.astype(np.float64) - reference)
    if is_classifier(heads):
        (only,), largest = nmse.values(), float(difference.max())
        return f"NMSE {only:.2e}, at most {largest:.2g} apart", {"nmse": only, "max_abs": largest}
    relative = float((difference / on_one_scale(reference, heads)[1]).max())
    words = ", ".join(f"{name} {value:.2e}" if len(heads) > 1 else f"{value:.2e}" for name, value in nmse.items())
    return f"NMSE {words}", {"nmse": max(nmse.values()), "max_abs": relative, "heads": nmse}


def decision(fp32: npt.NDArray[np.int64], other: npt.NDArray[np.int64], tolerance_percent: float, name: str) -> VerdictRow:
    """Judge how many decisions stayed the same.

    Both models are deterministic and the tolerance speaks of these images, so the share itself decides; the interval says how
    far it carries to other images of the same kind.

    Args:
        fp32: decisions `[N]` of the baseline.
        other: decisions `[N]` of the candidate.
        tolerance_percent: the least share of equal decisions.
        name: of the row.
    """
    same, images = int((fp32 == other).sum()), len(fp32)
    percent = 100 * same / images
    low, high = (100 * end for end in wilson_interval(same, images))
    kept = percent >= tolerance_percent
    return VerdictRow(
        kind="decision",
        name=name,
        verdict="KEPT" if kept else "BROKEN",
        figure=f"{percent:.2f} % the same [{low:.2f}, {high:.2f}]",
        limit=f"≥ {tolerance_percent:g} %",
        reason="" if kept else f"{images - same} of {images} decisions changed",
        data={"same": same, "images": images, "percent": percent, "low_percent": low, "high_percent": high},
    )


def accuracy(
    fp32_right: npt.NDArray[np.bool_], other_right: npt.NDArray[np.bool_], tolerance_points: float, name: str
) -> VerdictRow:
    """Judge whether a candidate is less accurate than fp32 by no more than a tolerance, on the same images.

    Args:
        fp32_right: `[N]`, whether the baseline is right.
        other_right: `[N]`, whether the candidate is right.
        tolerance_points: the allowed drop of top-1, in points.
        name: of the row.
    """
    lost = int((fp32_right & ~other_right).sum())
    gained = int((~fp32_right & other_right).sum())
    result = paired_drop(lost, gained, len(fp32_right), tolerance_points / 100)
    reason = result.reason
    if result.verdict == "INCONCLUSIVE":
        reason += (
            f"; with so many images only a tolerance of {result.smallest_drop_points:.2f} points is likely to be confirmed"
        )
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=result.verdict,
        figure=f"{result.drop_points:+.2f} points lost [{result.low_points:+.2f}, {result.high_points:+.2f}]",
        limit=f"≤ {tolerance_points:g} points",
        reason=reason,
        data={"test": "Tango score", "tolerance_points": tolerance_points, **asdict(result)},
    )


def golden_decoding(golden: dict[str, Any]) -> VerdictRow:
    """Judge whether the device decodes the golden images to the tensors that they were built with."""
    decode = golden["decode"]
    name, status = "golden images decoded", decode["status"]
    if status == "skipped":
        return skipped("golden", name, decode.get("reason") or "the device has no decoder")
    difference = decode.get("max_pixel_difference") or 0
    exact = status == "exact"
    return VerdictRow(
        kind="golden",
        name=name,
        verdict="KEPT" if exact else "BROKEN",
        figure="the same pixels" if exact else f"up to {difference} of 255 apart",
        limit="the same pixels",
        reason="" if exact else decode.get("reason") or "the device decodes or resizes images in another way than training did",
        data=dict(decode),
    )


def other_decoders(golden: dict[str, Any]) -> tuple[VerdictRow, ...]:
    """Return what the device's other ways of decoding make of the golden images: no verdict, for they are not the contract.

    Args:
        golden: `decoders` is what `edgetune.device.decoders.try_decoders` gives.
    """
    found = []
    for way, tried in golden.get("decoders", {}).items():
        if way == CONTRACT or tried["status"] == "skipped":
            continue
        figure = f"pixels up to {tried['max_pixel_difference']} of 255 apart, {tried['decisions_changed']} decisions changed"
        figure = "the same pixels" if tried["status"] == "exact" else figure
        reason = f"not the contract, for applications that do so: {tried['what']}"
        found.append(skipped("golden", f"golden images, {way}", reason, f"{figure}, {tried['images']} images"))
    return tuple(found)


def golden_logits(golden: dict[str, Any], limit: float) -> VerdictRow:
    """Judge whether the model gives the golden logits, with room for another processor's rounding."""
    logits = golden["logits"]
    changed, far = int(logits["top1_changed"]), logits["max_abs"]
    kept = far is not None and far <= limit and not changed
    figure = "NaN or infinity" if far is None else f"up to {far:.3g} apart, {changed} decisions changed"
    return VerdictRow(
        kind="golden",
        name="golden logits",
        verdict="KEPT" if kept else "BROKEN",
        figure="bit-equal" if logits["bit_equal"] else figure,
        limit=f"≤ {limit:g} apart, no decision changed",
        reason="" if kept else "the model does not compute here what it computed where it was built",
        data={"images": golden["images"], **logits},
    )
