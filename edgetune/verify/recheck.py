"""A bundle measured and judged again, by its own manifest: is it on this machine what it was where it was built?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.artefacts import Dataset, Measurement, Preprocessing, VerdictName, VerdictRow
from edgetune.profile import device_mismatches
from edgetune.progress import Progress
from edgetune.verify import costs, rows
from edgetune.verify.statistics import wilson_interval
from edgetune.verify.targets.interface import EvalRequest, LatencyRequest, ModelRequest, Request
from edgetune.verify.targets.local import LocalTarget

__all__ = ["judge_again", "measure_again"]

QUICK = LatencyRequest(warmup=5, rounds=4, queries_per_round=16)


def measure_again(
    bundle: Path, manifest: Mapping[str, Any], dataset: Dataset | None, *, quick: bool, folder: Path, progress: Progress
) -> Measurement:
    """Have this machine measure a bundle whose digests were verified.

    Args:
        bundle: its folder.
        manifest: its content.
        dataset: labelled images to run as well; None for none.
        quick: few queries.
        folder: receives the measurement.
        progress: told what goes on.

    Raises:
        TargetError: the provider that the bundle wants is not available here, or the runner died.
    """
    target = LocalTarget()
    model = ModelRequest(
        name=manifest["model"]["precision"],
        path=(bundle / manifest["model"]["file"]).resolve(),
        sha256=manifest["model"]["sha256"],
    )
    images = None if dataset is None else EvalRequest(images=(dataset.folder / "test" / "images.npy").resolve())
    request = Request(
        models=(model,),
        session=dict(manifest["session"]),
        eval=images,
        latency=QUICK if quick else LatencyRequest(),
        golden=(bundle / "golden").resolve(),
        preprocessing=Preprocessing.from_dict(manifest["preprocessing"]),
    )
    raw = target.measure(request, folder, progress)
    promised = manifest["profile"]
    reasons = device_mismatches(
        raw["environment"],
        architecture=promised["architecture"],
        features=promised["features"],
        absent=promised["absent"],
        provider=manifest["session"]["providers"][0],
        min_onnxruntime=promised["min_onnxruntime"],
    )
    where = f"{target.describe()}, {raw['environment'].get('name') or raw['environment']['architecture']}"
    reason = "; ".join(reasons)
    return Measurement(where=where, is_target=not reasons, stand_in_reason=reason, raw=raw).at(folder)


def judge_again(measurement: Measurement, manifest: Mapping[str, Any], dataset: Dataset | None) -> tuple[VerdictRow, ...]:
    """Return the verdicts on a bundle that was measured again, by the limits in its manifest."""
    precision = manifest["model"]["precision"]
    limits = manifest["limits"]
    golden = measurement.raw["golden"]
    return (
        rows.golden_decoding(golden),
        rows.golden_logits(golden, limits["golden_max_abs"]),
        *((rows.sane_outputs(measurement, precision),) if dataset is not None else ()),
        _accuracy(measurement, manifest, dataset),
        costs.latency_budget(measurement, precision, limits["latency_p90_ms"]),
        costs.size_budget(precision, manifest["model"]["size_bytes"], limits["size_bytes"]),
        costs.memory_budget(measurement, precision, limits["peak_memory_bytes"]),
    )


def _accuracy(measurement: Measurement, manifest: Mapping[str, Any], dataset: Dataset | None) -> VerdictRow:
    """Return whether the top-1 on labelled images is what the manifest says, within the tolerance and what chance explains.

    The fp32 model is not in the bundle, so the images cannot be compared one by one: the interval of the share measured here
    is held against the figure of the manifest.
    """
    precision = manifest["model"]["precision"]
    name = f"{precision} top-1 against the manifest"
    claimed = manifest["figures"]["accuracy"].get(precision, {}).get("top1_percent")
    if dataset is None:
        return rows.skipped("accuracy", name, "no labelled images were given; use --data DIR")
    if claimed is None or not rows.has_numbers(measurement, precision):
        return rows.undecided("accuracy", name, "there are no two figures to compare")
    import numpy as np

    labels = np.asarray(dataset.labels("test"))
    hits = int((measurement.logits(precision).argmax(axis=1) == labels).sum())
    low, high = (100 * end for end in wilson_interval(hits, len(labels)))
    least = claimed - manifest["limits"]["top1_drop_points"]
    verdict: VerdictName = "KEPT" if 100 * hits / len(labels) >= least else "INCONCLUSIVE" if high >= least else "BROKEN"
    return VerdictRow(
        kind="accuracy",
        name=name,
        verdict=verdict,
        figure=f"{100 * hits / len(labels):.2f} % of {len(labels)} images [{low:.2f}, {high:.2f}]",
        limit=f"≥ {least:.2f} % ({claimed:.2f} % less {manifest['limits']['top1_drop_points']:g} points)",
        reason="" if verdict == "KEPT" else "fewer decisions are right than the manifest says",
        data={"hits": hits, "images": len(labels), "claimed_percent": claimed},
    )
