"""The table of random views."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgetune.schema import Strict

__all__ = ["AugmentRecipe"]


class AugmentRecipe(Strict):
    """How a train image is varied each time it is seen."""

    crop_min_area: float = Field(default=0.8, gt=0.05, le=1.0)
    """The smallest part of the image's area that a random crop keeps."""
    aspect: float = Field(default=1.15, ge=1.0, le=2.0)
    """The largest change of the aspect ratio of a random crop, and its inverse."""
    flip: bool | Literal["auto"] = "auto"
    """Mirror left and right at random; auto: yes, but for digits, where a mirrored digit is no digit."""
    rotation_degrees: float = Field(default=5.0, ge=0.0, le=180.0)
    """The largest rotation, either way."""
    flip_vertical: bool = False
    """Mirror top and bottom at random."""
    shift: float = Field(default=0.0, ge=0.0, le=0.5)
    """The largest shift, either way, as a part of the side; what comes into view repeats the border."""
    shear_degrees: float = Field(default=0.0, ge=0.0, le=60.0)
    """The largest shear, either way."""
    zoom: float = Field(default=1.0, ge=1.0, le=4.0)
    """The largest factor that a view is enlarged or reduced by, beside the crop."""
    brightness: float = Field(default=0.2, ge=0.0, le=1.0)
    """The largest relative change."""
    contrast: float = Field(default=0.2, ge=0.0, le=1.0)
    """The largest relative change."""
    saturation: float = Field(default=0.2, ge=0.0, le=1.0)
    """The largest relative change."""
    hue_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    """The largest turn of the hues, either way."""
    grey: float = Field(default=0.0, ge=0.0, le=1.0)
    """The part of the images that lose their colour."""
    erase: float = Field(default=0.0, ge=0.0, le=1.0)
    """The part of the images of which a random box is blanked out (Random Erasing)."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Further random operations: RandAugment's several at a fixed strength, or TrivialAugment's one at a random strength."""
    policy_operations: int = Field(default=2, ge=1, le=8)
    """RandAugment: how many operations per image."""
    policy_magnitude: float = Field(default=9.0, ge=0.0, le=30.0)
    """RandAugment: their strength, of 30."""
    mixup: float = Field(default=0.0, ge=0.0, le=10.0)
    """How strongly pairs of images are mixed (the alpha of MixUp); 0: not at all."""
    cutmix: float = Field(default=0.0, ge=0.0, le=10.0)
    """How large the boxes are that images get of each other (the alpha of CutMix); 0: none. With mixup, they take turns."""
    mix_probability: float = Field(default=1.0, gt=0.0, le=1.0)
    """The part of the batches that mixup or cutmix is applied to."""
