"""From an encoded image to the model's input: one rule for training, checking and the board."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .decode import ImageFault, decode_image, decode_image_noting
from .resample import INTERPOLATIONS, resample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Image = npt.NDArray[np.uint8]

__all__ = ["ImageFault", "Preprocessing", "decode_image", "decode_image_noting", "fit", "image_tensor", "resample"]

RESIZES = ("crop", "pad", "squash")
MAX_SIDE = 8192
MAX_CHANNELS = 64
WHITE = 255


@dataclass(frozen=True)
class Preprocessing:
    """How an encoded image becomes the model's input.

    Attributes:
        height: of the input, in pixels.
        width: of the input, in pixels.
        resize: `crop` takes the largest centred box of the input's aspect ratio, `pad` shrinks or enlarges the whole image and
            pads it with white (255 in every channel), `squash` takes the whole image and ignores its aspect ratio.
        interpolation: `bicubic` or `bilinear`, both with antialiasing as Pillow defines them.
        crop_fraction: the part of the box's sides that `crop` keeps, in (0, 1].
        channels: 3 is RGB, 1 grey; other numbers are read from .npy files. A manifest of before there was a choice means 3.

    Raises:
        ValueError: with every field that has a value it cannot have.
    """

    height: int
    width: int
    resize: str = "crop"
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0
    channels: int = 3

    def __post_init__(self) -> None:
        faults = [
            f"{name}: got {side!r}, expected a whole number of pixels from 1 to {MAX_SIDE}"
            for name, side in (("height", self.height), ("width", self.width))
            if type(side) is not int or not 1 <= side <= MAX_SIDE
        ]
        for name, value, known in (
            ("resize", self.resize, RESIZES),
            ("interpolation", self.interpolation, INTERPOLATIONS),
        ):
            if value not in known:
                faults.append(f"{name}: got {value!r}, expected one of {', '.join(known)}")
        part = self.crop_fraction
        if type(part) not in (int, float) or not 0 < part <= 1:
            faults.append(f"crop_fraction: got {part!r}, expected a number above 0 and at most 1")
        if type(self.channels) is not int or not 1 <= self.channels <= MAX_CHANNELS:
            faults.append(f"channels: got {self.channels!r}, expected a whole number from 1 to {MAX_CHANNELS}")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one input."""
        return self.height, self.width, self.channels

    @property
    def colour(self) -> str:
        """What the channels are, in a word or two."""
        return {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types, as they stand in a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Preprocessing:
        """Return what `to_dict` wrote.

        Raises:
            ValueError: a field is missing or not known, or has a value it cannot have.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"got {type(content).__name__}, expected a table")
        known = [field.name for field in fields(cls)]
        faults = [f"{name}: is missing" for name in known if name not in content and name != "channels"]
        faults += [f"{name}: is not known; expected {', '.join(known)}" for name in content if name not in known]
        if faults:
            raise ValueError("; ".join(faults))
        return cls(**content)


def fit(image: Image, spec: Preprocessing, resampler: Callable[..., Image] = resample) -> Image:
    """Return an image as the model takes it.

    `crop`: the largest centred box of the target's aspect ratio, its sides times `crop_fraction`, is resampled straight to the
    target's size: there is no intermediate image, and the box may begin between two pixels. `pad`: the whole image is
    resampled to the largest size with its aspect ratio that fits the target (rounded half up, at least one pixel) and lies
    centred on white; an odd pixel of margin goes to the right and the bottom. `squash`: the whole image is resampled to the
    target's size. Each channel is resampled by itself.

    Args:
        image: uint8 `[h, w, channels]`.
        spec: the target.
        resampler: what resizes; another one than the rule's has to be proven, see `decoders`.

    Returns:
        uint8 `[height, width, channels]`: a new, contiguous array that may be written to.

    Raises:
        ValueError: the image is not uint8 `[h, w, channels]`.
    """
    import numpy as np

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != spec.channels or 0 in image.shape:
        raise ValueError(f"image: got {image.dtype} {list(image.shape)}, expected uint8 [h, w, {spec.channels}]")
    height, width = image.shape[:2]
    if spec.resize == "crop":
        box = _centred_box(height, width, spec)
        return resampler(image, spec.height, spec.width, box, spec.interpolation)
    whole = (0.0, 0.0, float(width), float(height))
    if spec.resize == "squash":
        return resampler(image, spec.height, spec.width, whole, spec.interpolation)
    inner_h, inner_w = _inner_size(height, width, spec)
    frame = np.full(spec.shape, WHITE, dtype=np.uint8)
    top, left = (spec.height - inner_h) // 2, (spec.width - inner_w) // 2
    frame[top : top + inner_h, left : left + inner_w] = resampler(image, inner_h, inner_w, whole, spec.interpolation)
    return frame


def image_tensor(path: Path | str, spec: Preprocessing) -> Image | str:
    """Return an image file as the model takes it, or why it cannot be: a reason that reads on from the file's name.

    Args:
        path: the file.
        spec: the target.

    Returns:
        uint8 `[height, width, channels]`, or a text such as `is truncated`.

    Raises:
        RunnerError: TARGET: Pillow is not installed, and the file is not an .npy file.
    """
    try:
        return fit(decode_image(Path(path).read_bytes(), spec.channels), spec)
    except OSError as fault:
        return f"cannot be read ({fault.strerror})"
    except ImageFault as fault:
        return str(fault)


def _centred_box(height: int, width: int, spec: Preprocessing) -> tuple[float, float, float, float]:
    # Compared in whole numbers: an image that has the target's aspect ratio keeps its sides to the last bit.
    box_h, box_w = float(height), float(width)
    if width * spec.height > height * spec.width:
        box_w = height * spec.width / spec.height
    else:
        box_h = width * spec.height / spec.width
    left = (width - box_w * spec.crop_fraction) / 2
    top = (height - box_h * spec.crop_fraction) / 2
    return left, top, width - left, height - top


def _inner_size(height: int, width: int, spec: Preprocessing) -> tuple[int, int]:
    if width * spec.height > height * spec.width:
        return max(1, (2 * height * spec.width + width) // (2 * width)), spec.width
    return spec.height, max(1, (2 * width * spec.height + height) // (2 * height))
