"""A bundle measured and judged again, by its own manifest: is it on this machine what it was where it was built?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.artefacts import Dataset, Head, Measurement, Preprocessing, VerdictRow
from edgetune.errors import Fault, TargetError
from edgetune.profile import device_mismatches, short_of_threads
from edgetune.progress import Progress
from edgetune.verify import costs, rows
from edgetune.verify.reclaim import reclaimed
from edgetune.verify.targets.interface import EvalRequest, LatencyRequest, ModelRequest, Request, ThroughputRequest
from edgetune.verify.targets.opening import open_target

__all__ = ["Extent", "judge_again", "measure_again"]

QUICK = LatencyRequest(warmup=5, rounds=4, queries_per_round=16)
QUICK_STREAM_S = 1.5


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes:
        quick: few queries.
        period_s: a query begins so long after the one before it, as on a device that sleeps meanwhile; 0 for at once.
        min_seconds: the least time for which latency is measured.
        streams: numbers of parallel streams whose throughput is measured; empty for none.
    """

    quick: bool = False
    period_s: float = 0.0
    min_seconds: float = 0.0
    streams: tuple[int, ...] = ()

    @property
    def latency(self) -> LatencyRequest:
        """What is asked of latency."""
        plan = QUICK if self.quick else LatencyRequest()
        return plan.model_copy(update={"period_seconds": self.period_s, "min_seconds": self.min_seconds})

    @property
    def throughput(self) -> ThroughputRequest | None:
        """What is asked of throughput."""
        if not self.streams:
            return None
        plan = ThroughputRequest(threads=self.streams)
        return plan.model_copy(update={"seconds": QUICK_STREAM_S}) if self.quick else plan


def measure_again(
    bundle: Path,
    manifest: Mapping[str, Any],
    dataset: Dataset | None,
    *,
    extent: Extent,
    folder: Path,
    progress: Progress,
    device: str = "auto",
    stand_in: bool = True,
    golden_logits: bool = False,
) -> Measurement:
    """Have a machine measure a bundle whose digests were verified.

    Args:
        bundle: its folder.
        manifest: its content.
        dataset: labelled images to run as well; None for none.
        extent: how much.
        folder: receives the measurement.
        progress: told what goes on.
        device: the machine's address.
        stand_in: whether a machine that the bundle was not built for may measure it.
        golden_logits: without labelled images, whether to bring the logits of the golden images.

    Raises:
        TargetError: the machine is not what the bundle was built for and may not stand in, with every difference; it cannot be
            reached; the provider that the bundle wants is not available there; or the runner died.
    """
    target = open_target(device)
    if not stand_in:
        _require_match(manifest, target.environment(), target.describe())
    model = ModelRequest(
        name=manifest["model"]["precision"],
        path=(bundle / manifest["model"]["file"]).resolve(),
        sha256=manifest["model"]["sha256"],
    )
    images = None if dataset is None else EvalRequest(images=(dataset.folder / "test" / "images.npy").resolve())
    if images is None and golden_logits:
        images = EvalRequest(images=(bundle / "golden" / "tensors.npy").resolve())
    request = Request(
        models=(model,),
        session=dict(manifest["session"]),
        eval=images,
        latency=extent.latency,
        throughput=extent.throughput,
        golden=(bundle / "golden").resolve(),
        preprocessing=Preprocessing.from_dict(manifest["preprocessing"]),
    )
    raw = target.measure(request, folder, progress)
    # A board with fewer threads may measure, as accuracy does not hang on them, but its times are not the target's.
    threads = short_of_threads(raw["environment"], manifest["session"].get("intra_op_threads", 1))
    reasons = _mismatches(manifest, raw["environment"]) + [f"{words}; edgetune tune lowers that" for words in threads]
    where = f"{target.describe()}, {raw['environment'].get('name') or raw['environment']['architecture']}"
    reason = "; ".join(reasons)
    return Measurement(where=where, is_target=not reasons, stand_in_reason=reason, raw=raw).at(folder)


def _mismatches(manifest: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    promised = manifest["profile"]
    return device_mismatches(
        environment,
        architecture=promised["architecture"],
        features=promised["features"],
        absent=promised["absent"],
        provider=manifest["session"]["providers"][0],
        min_onnxruntime=promised["min_onnxruntime"],
    )


def _require_match(manifest: Mapping[str, Any], environment: Mapping[str, Any], where: str) -> None:
    if found := _mismatches(manifest, environment):
        raise TargetError(
            f"{where} is not what the bundle was built for ({manifest['profile']['title']})",
            faults=[Fault(where="", problem=text) for text in found],
            remedy="name a device that is, or measure there all the same: --stand-in",
        )


def judge_again(
    measurement: Measurement, manifest: Mapping[str, Any], heads: Sequence[Head], dataset: Dataset | None
) -> tuple[VerdictRow, ...]:
    """Return the verdicts on a bundle that was measured again, by the limits in its manifest.

    Args:
        measurement: of `measure_again`.
        manifest: the bundle's.
        heads: what the columns of the logits mean.
        dataset: the labelled images that were run as well; None for none.
    """
    precision = manifest["model"]["precision"]
    limits = manifest["limits"]
    golden = measurement.raw["golden"]
    return (
        rows.golden_decoding(golden),
        *rows.other_decoders(golden),
        rows.golden_logits(golden, limits["golden_max_abs"]),
        *((rows.sane_outputs(measurement, precision, heads),) if dataset is not None else ()),
        *reclaimed(measurement, manifest, heads, dataset),
        costs.latency_budget(measurement, precision, limits["latency_p90_ms"]),
        costs.size_budget(precision, manifest["model"]["size_bytes"], limits["size_bytes"]),
        costs.memory_budget(measurement, precision, limits["peak_memory_bytes"]),
    )
