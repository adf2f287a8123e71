"""The tables that say which images there are and what is to be learnt of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edgetune.schema import Strict

__all__ = ["DataRecipe", "TaskRecipe"]


class DataRecipe(Strict):
    """The images: where they are, how they are split, how large the model sees them."""

    source: str = Field(default="digits", min_length=1)
    """A folder with one folder per class (or with train/, val/ and test/ above them), a manifest (.csv, .tsv or .parquet: one
    row per image), digits, or a data set of torchvision by name, as in torchvision:CIFAR10."""
    image_column: str = "auto"
    """Manifest: the column with the image's path, relative to the manifest; auto: image, path, file, filename or filepath."""
    split_column: str = "auto"
    """Manifest: the column that says train, val or test; auto: split, if there is one."""
    root: str = ""
    """torchvision's data sets: the folder that holds them; empty: this user's cache."""
    download: bool = False
    """torchvision's data sets: fetch them where they are missing."""
    unlabelled: str = ""
    """A folder of further images without labels, for distillation only; its layout does not matter."""
    channels: Annotated[int, Field(ge=1, le=64)] = 3
    """Channels of the model's input: 3 is RGB, 1 grey; more are read from .npy files, uint8 [H, W, channels]."""
    image_size: Annotated[int, Field(ge=16, le=1024)] | Literal["auto"] = "auto"
    """Height and width of the model's input in pixels; auto: 48 for digits, 224 for large images, less for small ones."""
    resize: Literal["crop", "pad", "squash"] = "crop"
    """How a picture that is not square becomes square: cut its sides, pad it with white, or squash it."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """How pixels are resampled; the same on the device."""
    crop_fraction: float = Field(default=1.0, gt=0.2, le=1.0)
    """The part of the sides that `crop` keeps."""
    val_fraction: float = Field(default=0.1, gt=0.0, le=0.5)
    """The part of the images used to choose (early stopping), where the folder has no val/."""
    test_fraction: float = Field(default=0.2, gt=0.0, le=0.5)
    """The part of the images used to claim (accuracy), where the folder has no test/."""
    near_duplicate_bits: int = Field(default=4, ge=0, le=16)
    """Two images whose 64-bit perceptual hashes differ in at most this many bits are near-duplicates and stay in one split."""
    leakage: Literal["refuse", "warn"] = "warn"
    """What to do when the folder's own splits share an image or a near-duplicate: stop, or warn in the report."""
    corrupt: Literal["refuse", "skip"] = "refuse"
    """What to do with files that cannot be decoded: stop and name them all, or leave them out and name them in the report."""
    conflicts: Literal["refuse", "skip"] = "refuse"
    """What to do with the same image under two labels: stop and name them, or leave all its copies out."""


class TaskRecipe(Strict):
    """One task of the network: one head. Its name is the table's."""

    kind: Literal["single-label", "multi-label", "regression"] = "single-label"
    """One class per image, any number of labels per image, or numbers."""
    columns: tuple[str, ...] = ()
    """The manifest's columns; empty: the one of the task's own name. Several: one 0 or 1 per label, or one value each."""
    separator: str = Field(default="|", min_length=1)
    """Multi-label in one column: what stands between the labels; alone in a cell, it says that there are none."""
    loss: Literal["auto", "cross-entropy", "bce", "mse", "huber"] = "auto"
    """auto: cross-entropy for a single label, bce for several, mse for numbers."""
    huber_delta: float = Field(default=1.0, gt=0.0, le=1000.0)
    """Regression: the error, in standard deviations of the train set, from which on the loss grows linearly."""
    weight: float = Field(default=1.0, gt=0.0, le=1000.0)
    """Of this task's loss in the sum of all."""

    @model_validator(mode="after")
    def _loss_fits_the_kind(self) -> Self:
        fitting = {"single-label": ("cross-entropy", "bce"), "multi-label": ("bce",), "regression": ("mse", "huber")}[self.kind]
        if self.loss != "auto" and self.loss not in fitting:
            raise ValueError(f"loss = {self.loss} does not fit kind = {self.kind}: use auto or {' or '.join(fitting)}")
        return self
