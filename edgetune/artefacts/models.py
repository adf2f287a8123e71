"""Networks: what the stages train, export and quantize leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgetune.artefacts.base import Artefact, WithHeads
from edgetune.device.preprocess import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Ablation", "Checkpoint", "Features", "LrCurve", "NumericParity", "OnnxModel", "Precision", "Sensitivity"]

Precision = Literal["fp32", "fp16", "int8"]
"""Of a model's convolutions and matrix products."""


class Checkpoint(WithHeads):
    """A trained network: `model.safetensors` (timm's parameter names) and `history.jsonl` (one line per epoch).

    Attributes:
        backbone: timm's name of the architecture, head included.
        classes: see `WithHeads`.
        heads: see `WithHeads`.
        preprocessing: what the network was trained to see.
        mean: per channel, of inputs in [0, 1]; subtracted first.
        std: per channel; divided by.
        network: what builds the architecture again beside its name and the number of logits; see `edgetune.train.network`.
        weights: where the pretrained weights came from, in words and by sha256.
        val_metrics: what the kept weights reach on the validation set, by name with its unit, such as `top-1 %`.
        best_epoch: the epoch whose weights these are: the last one, unless an earlier one validated better by more than chance
            explains; 0 is the linear probe.
        averaged_epochs: the weights are the mean over so many last epochs; 0: no mean.
        epochs: the number of epochs run.
        settings: what was decided for this run where the recipe says auto, and what was measured to decide it.
        distillation: teacher, loss and what the teacher reaches on the validation set; empty without one.
        warnings: what a reader of the report must know.
    """

    stage: ClassVar[str] = "train"
    backbone: str
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    network: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, str]
    val_metrics: dict[str, float]
    best_epoch: int
    averaged_epochs: int = 0
    epochs: int
    settings: dict[str, Any] = Field(default_factory=dict)
    distillation: dict[str, Any] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def weights_path(self) -> Path:
        """The path of the safetensors file."""
        return self.folder / "model.safetensors"

    def history(self) -> list[dict[str, Any]]:
        """Return the lines of the history, from epoch 0 on."""
        lines = (self.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


class NumericParity(BaseModel):
    """How far two implementations of one network are apart, over the same images.

    Attributes:
        images: the number of images compared.
        max_abs: the largest difference of any logit; for other tasks than a single label, relative to its head's scale, see
            `edgetune.numeric.on_one_scale`.
        nmse: the squared difference of all logits over the squared reference logits; of several heads, the largest one's.
        top1_agreement_percent: images with the same largest logit, in percent; for other tasks, images for which no head
            decides otherwise. A regression decides nothing.
        worst: the name of the image with the largest difference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    images: int
    max_abs: float
    nmse: float
    top1_agreement_percent: float
    worst: str


class OnnxModel(WithHeads):
    """An ONNX file that keeps the contract: `image` uint8 `[N, H, W, K]` in, `logits` float32 `[N, C]` out.

    Attributes:
        stage_name: the stage that wrote it.
        file: its name below the folder.
        precision: of its convolutions and matrix products.
        sha256: of the file.
        size_bytes: of the file.
        opset: of the default operator set.
        ir_version: of the file format.
        classes: see `WithHeads`.
        heads: see `WithHeads`.
        preprocessing: what the model expects to have been done to a decoded image.
        parity: against the model that it came from; None for a file of edgetune's that a user brought along: it is that file.
        steps: what was done to the graph, in order, with the figures of each step.
        rungs: the quantizer's attempts in order, each with its figures on held-out train images, and whether it was kept.
        spread: how much the quantizer's first steps depend on which images calibrate; see `quantize.spread.other_samplings`.
        float_nodes: nodes that compute in float where the precision says that none should, with the reason.
        operators: how often each operator stands in the graph as the runtime optimises it.
        macs: multiply-accumulates of one image.
        warnings: what a reader of the report must know.
    """

    stage: ClassVar[str] = "onnx"
    stage_name: Literal["export", "import", "quantize"]
    file: str = "model.onnx"
    precision: Precision
    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    preprocessing: Preprocessing
    parity: NumericParity | None = None
    steps: tuple[dict[str, Any], ...] = ()
    rungs: tuple[dict[str, Any], ...] = ()
    spread: dict[str, Any] | None = None
    float_nodes: tuple[str, ...] = ()
    operators: dict[str, int] = Field(default_factory=dict)
    macs: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The path of the ONNX file."""
        return self.folder / self.file


class Features(Artefact):
    """What a frozen, pretrained backbone sees of labelled images: `train.npy` and `val.npy`, float32 `[N, F]`.

    Attributes:
        backbone: timm's name.
        weights: where the pretrained weights came from, in words and by sha256.
        width: F, the number of features.
    """

    stage: ClassVar[str] = "features"
    backbone: str
    weights: dict[str, str]
    width: int

    def load(self, split: Literal["train", "val"]) -> npt.NDArray[np.float32]:
        """Return the features of a split: float32 `[N, F]`, memory-mapped."""
        import numpy as np

        features: npt.NDArray[np.float32] = np.load(self.folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        return features


class Ablation(Artefact):
    """What a teacher gave: two networks on the same test images, one trained with it and one without, all else the same.

    Attributes:
        taught: the student's figures, by name with the unit.
        plain: those of the same student without the teacher.
        gained: images that only the student with the teacher decides rightly; None for other tasks than a single label.
        lost: images that only the one without decides rightly.
        images: how many there are.
    """

    stage: ClassVar[str] = "ablation"
    taught: dict[str, float]
    plain: dict[str, float]
    gained: int | None
    lost: int | None
    images: int


class LrCurve(Artefact):
    """A learning-rate range test: `curve.json` and a picture, `lr-find.png`.

    Attributes:
        lrs: the rates that were tried, upwards.
        losses: the smoothed train loss at each.
        suggestion: where the loss falls the fastest; None if it never falls.
    """

    stage: ClassVar[str] = "lr-find"
    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None


class Sensitivity(Artefact):
    """Which layer does what damage: each alone in integers, everything else in float, on held-out train images.

    Attributes:
        images: how many there are.
        all_layers: the figures with every layer in integers.
        layers: per layer its name, operator and figures, the largest divergence first.
        warnings: what a reader must know.
    """

    stage: ClassVar[str] = "sensitivity"
    images: int
    all_layers: dict[str, float]
    layers: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...] = ()
