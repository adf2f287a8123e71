"""Decoded images with what is known of them: what the data stage leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from edgetune.artefacts.base import WithHeads
from edgetune.device.heads import targets_of
from edgetune.device.preprocess import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Images = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]
    Targets = npt.NDArray[np.float32]

__all__ = ["Dataset", "Split"]

Split = Literal["train", "val", "test"]


class Dataset(WithHeads):
    """Decoded images and their labels, split, as memory-mapped arrays. K is the number of channels: 3 but for other cameras.

    Files: `{train,val,test}/images.npy` uint8 `[N, H, W, K]` (RGB), exactly as `preprocessing` prescribes for the device;
    `{split}/labels.npy` int64 `[N]`, the class or, for other tasks than a single label, the stratum;
    `{split}/targets.npy` float32 `[N, T]`, for other tasks only, see `targets`;
    `{split}/names.json`, the path of each image below its source;
    `train/source.npy` uint8 `[N, h, w, K]`, the train images at `source_size`, for augmentation to cut from;
    `unlabelled/source.npy`, the same of images without labels, where there are any;
    `golden/`, the encoded files of a few test images, and `report.json`, what the hygiene found.

    Attributes:
        source: the name of the folder or manifest that the images came from, or the built-in one.
        classes: see `WithHeads`; with one head of a single label, a label is an index into them.
        heads: see `WithHeads`.
        strata: the names of the groups that `labels` counts, by which images are split and sampled evenly; the classes, but
            for other tasks than a single label.
        preprocessing: how a decoded image becomes the model's input.
        source_size: height and width of the train images kept for augmentation, in pixels.
        counts: images per split.
        class_counts: per split, images per stratum.
        unlabelled: images without labels, for distillation.
        content_digest: sha256 over every image's digest, label and split.
        golden: names of the encoded golden images below `golden/`, with their index in the test split.
        warnings: what the hygiene found and a reader of the report must know, one sentence each.
    """

    stage: ClassVar[str] = "data"
    source: str
    strata: tuple[str, ...] = ()
    preprocessing: Preprocessing
    source_size: tuple[int, int]
    counts: dict[str, int]
    class_counts: dict[str, tuple[int, ...]]
    content_digest: str
    golden: tuple[tuple[str, int], ...]
    unlabelled: int = 0
    warnings: tuple[str, ...] = ()

    def images(self, split: Split) -> Images:
        """Return the images of a split as the model takes them: uint8 `[N, H, W, K]`, memory-mapped."""
        images: Images = self._load(f"{split}/images.npy")
        return images

    def read(self, split: Split, rows: Sequence[int]) -> Images:
        """Return some images of a split as the model takes them: uint8 `[len(rows), H, W, K]`, read from the file.

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

    def targets(self, split: Split) -> Targets:
        """Return what is right for each image of a split: float32 `[N, T]`, the columns of the heads side by side.

        A head of a single label has one column, the class's index; one of several labels a 0 or 1 per label; a regression its
        values. NaN where it is not known. `targets_of(self.heads)` says which columns belong to which head.
        """
        import numpy as np

        if self.is_classifier:
            return np.asarray(self.labels(split), np.float32)[:, None]
        targets: Targets = self._load(f"{split}/targets.npy")
        expected = (self.counts[split], targets_of(self.heads)[-1].stop)
        if targets.shape != expected:
            raise ValueError(f"{split}/targets.npy: got {targets.shape}, expected {expected}")
        return targets

    def labels(self, split: Split) -> Labels:
        """Return the class, or for other tasks the stratum, of each image of a split: int64 `[N]`."""
        labels: Labels = self._load(f"{split}/labels.npy")
        return labels

    def source_images(self) -> Images:
        """Return the train images at the size that augmentation cuts from: uint8 `[N, h, w, K]`, memory-mapped."""
        images: Images = self._load("train/source.npy")
        return images

    def unlabelled_images(self) -> Images:
        """Return the images without labels at the size that augmentation cuts from: uint8 `[N, h, w, K]`, memory-mapped."""
        images: Images = self._load("unlabelled/source.npy")
        return images

    def names(self, split: Split) -> list[str]:
        """Return the path of each image of a split, below the source."""
        names: list[str] = json.loads((self.folder / split / "names.json").read_text())
        return names

    def _load(self, name: str) -> Any:
        import numpy as np

        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
