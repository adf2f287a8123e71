"""From an encoded image to the model's input: one rule for training, checking and the board."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preprocessing:
    """How a decoded RGB image becomes the model's input.

    Attributes:
        height: of the input, in pixels.
        width: of the input, in pixels.
        resize: `crop` takes the largest centred box of the input's aspect ratio, `pad` shrinks the whole image and pads it
            with white, `squash` takes the whole image and ignores its aspect ratio.
        interpolation: `bicubic` or `bilinear`, both with antialiasing as Pillow defines them.
        crop_fraction: the part of the box's sides that `crop` keeps, in (0, 1].
    """

    height: int
    width: int
    resize: str = "crop"
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0
