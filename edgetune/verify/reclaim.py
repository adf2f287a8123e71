"""The rows about accuracy when a bundle is checked again: are the manifest's figures reached on labelled images?

The fp32 model is not in the bundle, so the images cannot be compared one by one: the interval of the figure measured here is
held against the figure of the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.artefacts import Dataset, Head, Measurement, VerdictName, VerdictRow
from edgetune.device.decisions import decisions, is_classifier
from edgetune.device.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, columns_of, targets_of
from edgetune.verify import rows
from edgetune.verify.bootstrap import bounds, mean_precisions, resampled, rmses
from edgetune.verify.statistics import wilson_interval
from edgetune.verify.tasks import prefix

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Targets = npt.NDArray[np.float32]

__all__ = ["claimed", "reclaimed"]

FIGURES = {SINGLE_LABEL: "top-1", MULTI_LABEL: "mAP"}
TINY = 1e-30
NO_FIGURES = "there are no two figures to compare"


def reclaimed(
    measurement: Measurement, manifest: Mapping[str, Any], heads: Sequence[Head], dataset: Dataset | None
) -> Iterator[VerdictRow]:
    """Yield, per head, whether its accuracy is what the manifest says, within the tolerance and what chance explains.

    Args:
        measurement: with the logits of the shipped model on the test images of `dataset`.
        manifest: the bundle's.
        heads: what the columns of logits and targets mean.
        dataset: the labelled images; None for none.
    """
    precision = manifest["model"]["precision"]
    claims = manifest["figures"]["accuracy"].get(precision) or {}
    measured = dataset is not None and rows.has_numbers(measurement, precision)
    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        name = f"{prefix(head, heads)}{precision} {FIGURES.get(head.kind, 'RMSE')} against the manifest"
        claim = claims if is_classifier(heads) else claims.get("heads", {}).get(head.name)
        if dataset is None:
            yield rows.skipped("accuracy", name, "no labelled images were given; use --data DIR")
        elif not claim or not measured:
            yield rows.undecided("accuracy", name, NO_FIGURES)
        else:
            targets = np.asarray(dataset.targets("test"))[:, place]
            known = np.isfinite(targets).any(axis=1)
            logits = measurement.logits(precision)[:, columns]
            yield _KINDS[head.kind](name, head, logits[known], targets[known], claim, manifest["limits"])


def _top1(
    name: str, head: Head, logits: Logits, targets: Targets, claim: Mapping[str, Any], limits: Mapping[str, Any]
) -> VerdictRow:
    claimed, tolerance = claim.get("top1_percent"), limits["top1_drop_points"]
    if claimed is None or not len(targets):
        return rows.undecided("accuracy", name, NO_FIGURES)
    hits = int((decisions(logits, head)[:, 0] == targets[:, 0]).sum())
    low, high = (100 * end for end in wilson_interval(hits, len(targets)))
    percent, least = 100 * hits / len(targets), claimed - tolerance
    verdict: VerdictName = "KEPT" if percent >= least else "INCONCLUSIVE" if high >= least else "BROKEN"
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=verdict,
        figure=f"{percent:.2f} % of {len(targets)} images [{low:.2f}, {high:.2f}]",
        limit=f"≥ {least:.2f} % ({claimed:.2f} % less {tolerance:g} points)",
        reason="" if verdict == "KEPT" else "fewer decisions are right than the manifest says",
        data={"hits": hits, "images": len(targets), "claimed_percent": claimed},
    )


def _map(
    name: str, head: Head, logits: Logits, targets: Targets, claim: Mapping[str, Any], limits: Mapping[str, Any]
) -> VerdictRow:
    claimed, tolerance = claim.get("map_percent"), limits["map_drop_points"]
    if claimed is None or not (targets == 1).any():
        return rows.undecided("accuracy", name, NO_FIGURES)

    def percents(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return 100 * mean_precisions(logits, targets, weights)

    percent = float(percents(np.ones((len(targets), 1), np.float32))[0])
    low, high = bounds(resampled(percents, len(targets)))
    least = claimed - tolerance
    verdict: VerdictName = "KEPT" if percent >= least else "INCONCLUSIVE" if high >= least else "BROKEN"
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=verdict,
        figure=f"{percent:.2f} % over {len(targets)} images [{low:.2f}, {high:.2f}]",
        limit=f"≥ {least:.2f} % ({claimed:.2f} % less {tolerance:g} points)",
        reason="" if verdict == "KEPT" else "the mean average precision is lower than the manifest says",
        data={"percent": percent, "images": len(targets), "claimed_percent": claimed, "low_percent": low, "high_percent": high},
    )


def _rmse(
    name: str, head: Head, logits: Logits, targets: Targets, claim: Mapping[str, Any], limits: Mapping[str, Any]
) -> VerdictRow:
    tolerance, claims = limits["rmse_increase_percent"], claim.get("per_value", {})
    usable = [i for i, column in enumerate(head.columns) if column in claims and np.isfinite(targets[:, i]).any()]
    if not usable:
        return rows.undecided("accuracy", name, NO_FIGURES)
    squared = np.square(logits[:, usable].astype(np.float64) - targets[:, usable]).T
    found = rmses(squared, np.ones((len(targets), 1), np.float32))[:, 0]
    samples = resampled(lambda weights: rmses(squared, weights), len(targets))
    results = {}
    for i, rmse, sample in zip(usable, found, samples, strict=True):
        low, high = bounds(sample, family=len(usable))
        most = claims[head.columns[i]]["rmse"] * (1 + tolerance / 100)
        verdict: VerdictName = "KEPT" if rmse <= most else "INCONCLUSIVE" if low <= most else "BROKEN"
        ratio = float(rmse) / (most or TINY)
        results[head.columns[i]] = {
            "verdict": verdict,
            "rmse": float(rmse),
            "low": low,
            "high": high,
            "most": most,
            "ratio": ratio,
        }
    severity = ("KEPT", "INCONCLUSIVE", "BROKEN")
    worst = max(results, key=lambda key: (severity.index(results[key]["verdict"]), results[key]["ratio"]))
    one = results[worst]
    of = f" ({worst})" if len(head.columns) > 1 else ""
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=one["verdict"],
        figure=f"{one['rmse']:.4g} over {len(targets)} images [{one['low']:.4g}, {one['high']:.4g}]{of}",
        limit=f"≤ {one['most']:.4g} ({claims[worst]['rmse']:.4g} plus {tolerance:g} %)",
        reason="" if one["verdict"] == "KEPT" else "the error is larger than the manifest says",
        data={"images": len(targets), "values": results},
    )


_KINDS = {SINGLE_LABEL: _top1, MULTI_LABEL: _map, REGRESSION: _rmse}


def claimed(
    name: str, head: Head, logits: Logits, targets: Targets, claim: Mapping[str, Any], limits: Mapping[str, Any]
) -> VerdictRow:
    """Judge whether one head reaches the figures that are claimed for it.

    Args:
        name: of the row.
        head: which one.
        logits: float32 `[N, columns]`, of this head alone.
        targets: float32 `[N, width]`, likewise; something is known of each image.
        claim: its figures, as in a manifest.
        limits: the tolerances, likewise.
    """
    return _KINDS[head.kind](name, head, logits, targets, claim, limits)
