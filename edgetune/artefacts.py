"""The frozen values that the stages hand on.

A stage leaves one value, in a folder of its own. The value is stored beside its files as JSON; the paths in it are names
below that folder, so that a run can be moved.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from edgetune.device.preprocess import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Images = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]

__all__ = [
    "Artefact",
    "Bundle",
    "Checkpoint",
    "Dataset",
    "Figures",
    "Measurement",
    "NumericParity",
    "OnnxModel",
    "Preprocessing",
    "Report",
    "Split",
    "VerdictName",
    "VerdictRow",
]

Split = Literal["train", "val", "test"]
VerdictName = Literal["KEPT", "BROKEN", "INCONCLUSIVE", "SKIPPED"]


class Artefact(BaseModel):
    """A value that crosses from one stage to the next. Frozen; its files lie in `folder`.

    `folder` is not part of the stored value: it is where the value was loaded from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    stage: ClassVar[str]
    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """The folder that holds the files of this value."""
        if self._folder is None:
            raise ValueError(f"{type(self).__name__} is not bound to a folder; call .at(folder)")
        return self._folder

    def at(self, folder: Path) -> Self:
        """Return the same value, bound to the folder that holds its files."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON types."""
        return self.model_dump(mode="json")


class Dataset(Artefact):
    """Decoded images and their labels, split, as memory-mapped arrays.

    Files: `{train,val,test}/images.npy` uint8 `[N, H, W, 3]` RGB, exactly as `preprocessing` prescribes for the device;
    `{split}/labels.npy` int64 `[N]`; `{split}/names.json`, the path of each image below its source;
    `train/source.npy` uint8 `[N, h, w, 3]`, the train images at `source_size`, for augmentation to cut from;
    `golden/`, the encoded files of a few test images, and `report.json`, what the hygiene found.

    Attributes:
        source: the name of the folder that the images came from, or the built-in one.
        classes: the names of the classes; a label is an index into them.
        preprocessing: how a decoded image becomes the model's input.
        source_size: height and width of the train images kept for augmentation, in pixels.
        counts: images per split.
        class_counts: per split, images per class.
        content_digest: sha256 over every image's digest, label and split.
        golden: names of the encoded golden images below `golden/`, with their index in the test split.
        warnings: what the hygiene found and a reader of the report must know, one sentence each.
    """

    stage: ClassVar[str] = "data"
    source: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    source_size: tuple[int, int]
    counts: dict[str, int]
    class_counts: dict[str, tuple[int, ...]]
    content_digest: str
    golden: tuple[tuple[str, int], ...]
    warnings: tuple[str, ...] = ()

    def images(self, split: Split) -> Images:
        """Return the images of a split as the model takes them: uint8 `[N, H, W, 3]`, memory-mapped."""
        images: Images = self._load(f"{split}/images.npy")
        return images

    def read(self, split: Split, rows: Sequence[int]) -> Images:
        """Return some images of a split as the model takes them: uint8 `[len(rows), H, W, 3]`, read from the file.

        Unlike through `images`, nothing stays mapped: pages that were looked at count as this process's memory.
        """
        import numpy as np

        mapped: Any = self.images(split)
        found = np.empty((len(rows), *mapped.shape[1:]), np.uint8)
        with (self.folder / split / "images.npy").open("rb") as file:
            for place, row in enumerate(rows):
                file.seek(mapped.offset + int(row) * found[0].nbytes)
                found[place] = np.frombuffer(file.read(found[0].nbytes), np.uint8).reshape(found.shape[1:])
        return found

    def labels(self, split: Split) -> Labels:
        """Return the labels of a split: int64 `[N]`."""
        labels: Labels = self._load(f"{split}/labels.npy")
        return labels

    def source_images(self) -> Images:
        """Return the train images at the size that augmentation cuts from: uint8 `[N, h, w, 3]`, memory-mapped."""
        images: Images = self._load("train/source.npy")
        return images

    def names(self, split: Split) -> list[str]:
        """Return the path of each image of a split, below the source."""
        names: list[str] = json.loads((self.folder / split / "names.json").read_text())
        return names

    def _load(self, name: str) -> Any:
        import numpy as np

        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)


class Checkpoint(Artefact):
    """A trained network: `model.safetensors` (timm's parameter names) and `history.jsonl` (one line per epoch).

    Attributes:
        backbone: timm's name of the architecture, head included.
        classes: the names of the classes, in the order of the logits.
        preprocessing: what the network was trained to see.
        mean: per channel, of inputs in [0, 1]; subtracted first.
        std: per channel; divided by.
        model_options: keyword arguments of `timm.create_model` beside the name and the number of classes.
        weights: where the pretrained weights came from, in words and by sha256.
        val_top1_percent: top-1 on the validation set of the weights that were kept, in percent.
        best_epoch: the epoch that validated best; 0 is the linear probe.
        averaged_epochs: the weights are the mean over so many last epochs; 0: they are those of the best epoch.
        epochs: the number of epochs run.
        warnings: what a reader of the report must know.
    """

    stage: ClassVar[str] = "train"
    backbone: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    model_options: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, str]
    val_top1_percent: float
    best_epoch: int
    averaged_epochs: int = 0
    epochs: int
    warnings: tuple[str, ...] = ()

    @property
    def weights_path(self) -> Path:
        """The path of the safetensors file."""
        return self.folder / "model.safetensors"


class NumericParity(BaseModel):
    """How far two implementations of one network are apart, over the same images.

    Attributes:
        images: the number of images compared.
        max_abs: the largest difference of any logit.
        nmse: the squared difference of all logits over the squared reference logits.
        top1_agreement_percent: images with the same largest logit, in percent.
        worst: the name of the image with the largest difference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    images: int
    max_abs: float
    nmse: float
    top1_agreement_percent: float
    worst: str


class OnnxModel(Artefact):
    """An ONNX file that keeps the contract: `image` uint8 `[N, H, W, 3]` in, `logits` float32 `[N, C]` out.

    Attributes:
        stage_name: the stage that wrote it.
        file: its name below the folder.
        precision: of its convolutions and matrix products.
        sha256: of the file.
        size_bytes: of the file.
        opset: of the default operator set.
        ir_version: of the file format.
        classes: the names of the classes, in the order of the logits.
        preprocessing: what the model expects to have been done to a decoded image.
        parity: against the model that it came from; None for a file that a user brought along.
        steps: what was done to the graph, in order, with the figures of each step.
        float_nodes: nodes that compute in float where the precision says that none should, with the reason.
        operators: how often each operator stands in the graph as the runtime optimises it.
        macs: multiply-accumulates of one image.
        warnings: what a reader of the report must know.
    """

    stage: ClassVar[str] = "onnx"
    stage_name: Literal["export", "quantize"]
    file: str = "model.onnx"
    precision: Literal["fp32", "int8"]
    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    parity: NumericParity | None = None
    steps: tuple[dict[str, Any], ...] = ()
    float_nodes: tuple[str, ...] = ()
    operators: dict[str, int] = Field(default_factory=dict)
    macs: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The path of the ONNX file."""
        return self.folder / self.file


class Measurement(Artefact):
    """What the runner measured on a device: `measurement.json` as it wrote it, and `logits-NAME.npy` per model.

    Attributes:
        where: the device, in words.
        is_target: whether that device is what the profile describes; if not, it stood in for it.
        stand_in_reason: why the target itself was not measured; empty if it was.
        raw: the content of `measurement.json`; its schema is documented in `edgetune.device.measure`.
    """

    stage: ClassVar[str] = "measure"
    where: str
    is_target: bool
    stand_in_reason: str = ""
    raw: dict[str, Any]

    def logits(self, model: str) -> npt.NDArray[np.float32]:
        """Return the logits that a model gave on the eval pack: float32 `[N, C]`."""
        import numpy as np

        logits: npt.NDArray[np.float32] = np.load(self.folder / f"logits-{model}.npy", allow_pickle=False)
        return logits


class VerdictRow(BaseModel):
    """One check and its verdict.

    Attributes:
        kind: numeric, decision, accuracy, latency, size, memory or golden.
        name: what was compared, in a few words.
        verdict: KEPT, BROKEN, INCONCLUSIVE or SKIPPED.
        figure: the measured value with its unit, for a person.
        limit: the budget or tolerance, for a person.
        reason: why, in one sentence; never empty when SKIPPED or INCONCLUSIVE.
        data: the same in numbers, for a program.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: str
    name: str
    verdict: VerdictName
    figure: str
    limit: str
    reason: str = ""
    data: dict[str, Any] = Field(default_factory=dict)


class Figures(BaseModel):
    """What one model achieves on the test set.

    Attributes:
        images: the number of test images.
        top1_percent: the largest logit is the label, in percent.
        top5_percent: the label is among the five largest logits, in percent; None with fewer than six classes.
        precision_macro: the mean over classes, 0 to 1.
        recall_macro: the mean over classes, 0 to 1.
        f1_macro: the mean over classes, 0 to 1.
        ece: expected calibration error over 15 equal bins of confidence, 0 to 1.
        per_class: per class name, precision, recall, f1 and images.
        confusion: rows are labels, columns are decisions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    images: int
    top1_percent: float
    top5_percent: float | None
    precision_macro: float
    recall_macro: float
    f1_macro: float
    ece: float
    per_class: dict[str, dict[str, float]]
    confusion: tuple[tuple[int, ...], ...]


class Report(Artefact):
    """The judgement: `report.json` is the truth, everything else is drawn from it.

    Attributes:
        title: what was built for which target.
        shipped: the precision of the model that goes into the bundle.
        shipped_reason: why that one.
        overall: BROKEN if any verdict is, else INCONCLUSIVE if any is, else KEPT.
        verdicts: all checks.
        figures: per precision, what it achieves on the test set.
        latency: per precision, milliseconds at batch 1 (p50, p90, p99, cold start) and peak memory.
        where: where it was measured, and whether that is the target.
        environment: of the device that measured.
        sections: facts of the stages (data, train, export, quantize), as they reported them.
        warnings: everything that a stage wanted a reader to know.
    """

    stage: ClassVar[str] = "report"
    title: str
    shipped: Literal["fp32", "int8"]
    shipped_reason: str
    overall: VerdictName
    verdicts: tuple[VerdictRow, ...]
    figures: dict[str, Figures]
    latency: dict[str, dict[str, float | None]]
    where: str
    environment: dict[str, Any]
    sections: dict[str, dict[str, Any]]
    warnings: tuple[str, ...] = ()


class Bundle(Artefact):
    """A folder that holds everything that a device needs, and the digest of all of it.

    Attributes:
        manifest_sha256: of `manifest.json`, which names every other file with its digest.
        size_bytes: of all files.
    """

    stage: ClassVar[str] = "release"
    manifest_sha256: str
    size_bytes: int
