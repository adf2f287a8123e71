"""Images that no step learns from: how far a quantized graph is from fp32 on them decides what is kept. Never test images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgetune.device.heads import Head
from edgetune.numeric import compare_logits, divergence
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.placement import to_qdq

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["HeldOut", "Score", "logits_of"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How far a quantized graph is from fp32 on the held-out images.

    Attributes:
        divergence: in nats, the mean over images; see `edgetune.numeric.divergence`.
        nmse: the squared difference of all logits over the squared fp32 logits.
        agreement_percent: images with the same decision.
        top1_percent: of a classifier: images decided rightly. They are train images, so that fp32 itself knows most of them.
    """

    divergence: float
    nmse: float
    agreement_percent: float
    top1_percent: float | None = None

    def to_json(self) -> dict[str, float]:
        """Return the figures, rounded for a reader."""
        known = {} if self.top1_percent is None else {"top1_percent": round(self.top1_percent, 2)}
        return {
            "divergence_nats": float(f"{self.divergence:.4g}"),
            "nmse": float(f"{self.nmse:.4g}"),
            "agreement_percent": round(self.agreement_percent, 2),
            **known,
        }


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out images and what fp32 says of them.

    Attributes:
        images: uint8 `[N, H, W, K]`.
        model: in fp32.
        heads: what its logits mean.
        config: the profile's session configuration entries.
        labels: of a classifier, int64 `[N]`.
    """

    images: npt.NDArray[np.uint8]
    model: onnx.ModelProto
    heads: Sequence[Head]
    config: Mapping[str, str]
    labels: npt.NDArray[np.int64] | None = None

    @cached_property
    def reference(self) -> npt.NDArray[np.float32]:
        """The logits of fp32: float32 `[N, C]`."""
        return logits_of(self.model, self.images, {})

    def score(self, graph: QuantGraph) -> Score:
        """Return how far a quantized graph is from fp32, as ONNX Runtime optimises and runs it here."""
        logits = logits_of(to_qdq(graph), self.images, self.config)
        parity = compare_logits(self.reference, logits, [""] * len(logits), self.heads)
        return Score(
            divergence=divergence(self.reference, logits, self.heads),
            nmse=parity.nmse,
            agreement_percent=parity.top1_agreement_percent,
            top1_percent=None if self.labels is None else 100.0 * float((logits.argmax(axis=1) == self.labels).mean()),
        )


def logits_of(
    model: onnx.ModelProto, images: Iterable[npt.NDArray[np.uint8]], config: Mapping[str, str]
) -> npt.NDArray[np.float32]:
    """Return the logits of images, one at a time as on the device: float32 `[N, C]`."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    for key, value in sorted(config.items()):
        options.add_session_config_entry(key, value)
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = [session.run(["logits"], {"image": image[None]})[0] for image in images]
    logits: npt.NDArray[np.float32] = np.concatenate(rows)
    return logits
