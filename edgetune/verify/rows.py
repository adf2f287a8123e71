"""The rows about what a model computes: logits, decisions, accuracy, golden images."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.artefacts import Measurement, NumericParity, VerdictRow
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
    "sane_outputs",
    "skipped",
    "undecided",
]

DECISION = "int8 ↔ fp32 decisions"
ACCURACY = "int8 ↔ fp32 top-1"
EXPORT = "torch ↔ ONNX fp32 logits"


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


def numeric_export(measurement: Measurement, parity: NumericParity | None, limit: float) -> VerdictRow:
    """Judge whether the fp32 file computes what torch computed.

    Args:
        measurement: gives the scale: the largest logit of fp32 on the test set.
        parity: torch against the file.
        limit: the largest difference, relative to the largest logit.
    """
    if parity is None:
        return skipped("numeric", EXPORT, "there is no torch model to compare with")
    if not has_numbers(measurement, "fp32"):
        return skipped("numeric", EXPORT, "fp32 has no logits to take the scale from")
    largest = float(np.abs(measurement.logits("fp32")).max())
    relative = parity.max_abs / largest if largest else parity.max_abs
    kept = relative <= limit
    return VerdictRow(
        kind="numeric",
        name=EXPORT,
        verdict="KEPT" if kept else "BROKEN",
        figure=f"{relative:.1e} of the largest logit",
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


def sane_outputs(measurement: Measurement, name: str) -> VerdictRow:
    """Judge whether a model's logits are numbers and depend on the image; report how far int8 is from fp32."""
    outputs = measurement.raw["models"][name]["eval"]
    if outputs is None:
        return undecided("numeric", f"{name} logits", "no images were run", "numbers that vary")
    against = "fp32" if name != "fp32" and "fp32" in measurement.raw["models"] else None
    figure, reason, data = "finite, varying", "", {}
    if not outputs["finite"]:
        figure, reason = "NaN or infinity", f"logits of {name} are not numbers"
    elif outputs["constant"]:
        figure, reason = "constant", f"{name} gives the same logits for every image"
    elif against and has_numbers(measurement, against):
        nmse, largest = _distance(measurement.logits(against), measurement.logits(name))
        figure, data = f"NMSE {nmse:.2e}, at most {largest:.2g} apart", {"nmse": nmse, "max_abs": largest}
    return VerdictRow(
        kind="numeric",
        name=f"{name} ↔ {against} logits" if against else f"{name} logits",
        verdict="BROKEN" if reason else "KEPT",
        figure=figure,
        limit="numbers that vary",
        reason=reason,
        data=data,
    )


def _distance(reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the squared difference over the squared reference, and the largest difference, of logits `[N, C]`."""
    difference = other.astype(np.float64) - reference
    power = float(np.square(reference, dtype=np.float64).sum())
    return float(np.square(difference).sum()) / (power or 1.0), float(np.abs(difference).max())


def decision(fp32: npt.NDArray[np.int64], int8: npt.NDArray[np.int64], tolerance_percent: float) -> VerdictRow:
    """Judge how many decisions stayed the same.

    Both models are deterministic and the tolerance speaks of these images, so the share itself decides; the interval says how
    far it carries to other images of the same kind.

    Args:
        fp32: decisions `[N]` of the baseline.
        int8: decisions `[N]` of the candidate.
        tolerance_percent: the least share of equal decisions.
    """
    same, images = int((fp32 == int8).sum()), len(fp32)
    percent = 100 * same / images
    low, high = (100 * end for end in wilson_interval(same, images))
    kept = percent >= tolerance_percent
    return VerdictRow(
        kind="decision",
        name=DECISION,
        verdict="KEPT" if kept else "BROKEN",
        figure=f"{percent:.2f} % the same [{low:.2f}, {high:.2f}]",
        limit=f"≥ {tolerance_percent:g} %",
        reason="" if kept else f"{images - same} of {images} decisions changed",
        data={"same": same, "images": images, "percent": percent, "low_percent": low, "high_percent": high},
    )


def accuracy(fp32_right: npt.NDArray[np.bool_], int8_right: npt.NDArray[np.bool_], tolerance_points: float) -> VerdictRow:
    """Judge whether int8 is less accurate than fp32 by no more than a tolerance, on the same images.

    Args:
        fp32_right: `[N]`, whether the baseline is right.
        int8_right: `[N]`, whether the candidate is right.
        tolerance_points: the allowed drop of top-1, in points.
    """
    lost = int((fp32_right & ~int8_right).sum())
    gained = int((~fp32_right & int8_right).sum())
    result = paired_drop(lost, gained, len(fp32_right), tolerance_points / 100)
    reason = result.reason
    if result.verdict == "INCONCLUSIVE":
        reason += (
            f"; with so many images only a tolerance of {result.smallest_drop_points:.2f} points is likely to be confirmed"
        )
    return VerdictRow(
        kind="accuracy",
        name=ACCURACY,
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
