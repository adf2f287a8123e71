"""What each way of decoding and resizing on this machine makes of the golden images: pixels, and decisions.

The contract is Pillow's decoding and our own resizing (`preprocess`). An application may do it otherwise, with what the board
has. Each way that exists here is tried, and the model is run on the tensors that come out of it: pixels that differ by a level
matter less than a decision that changes. Images of other channels than 1 and 3 come from .npy files: the contract alone has
a way for them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arrays import MAGIC
from .decisions import changed
from .decode import ImageFault, decode_image
from .exitcodes import ExitCode, RunnerError
from .png import SIGNATURE, decode_png
from .preprocess import Preprocessing, fit
from .resample import resample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .golden import Golden

    Image = npt.NDArray[np.uint8]
    Box = tuple[float, float, float, float]

CONTRACT = "pillow"
WAYS = {
    CONTRACT: "Pillow decodes, edgetune resizes: the contract",
    "pillow-resize": "Pillow decodes and resizes",
    "opencv": "OpenCV decodes, edgetune resizes",
    "opencv-resize": "OpenCV decodes and resizes",
    "numpy": "edgetune decodes PNG with zlib and numpy alone, and resizes",
}


def try_decoders(session: Any, folder: Path, golden: Golden, preprocessing: Preprocessing) -> dict[str, dict[str, Any]]:
    """Return, for each way of `WAYS`, what it makes of the golden images.

    Args:
        session: on the shipped model.
        folder: of the golden images.
        golden: what is in it.
        preprocessing: the bundle's.

    Returns:
        By way: `what` it is, `status` (`exact`, `different` or `skipped`), `images` that it could read,
        `max_pixel_difference` and `mean_pixel_difference` (in levels of 255), `decisions_changed` (images that the model
        decides otherwise than on the builder's tensors, here and with the same session); None, with a `reason`, where skipped.
    """
    return {way: {"what": what, **_tried(way, session, folder, golden, preprocessing)} for way, what in WAYS.items()}


def _tried(way: str, session: Any, folder: Path, golden: Golden, preprocessing: Preprocessing) -> dict[str, Any]:
    import numpy as np

    found = [_read(way, folder / name, preprocessing, golden.tensors[0].shape) for name in golden.files]
    rows = [row for row, tensor in enumerate(found) if not isinstance(tensor, str)]
    got = [tensor for tensor in found if not isinstance(tensor, str)]
    # What is missing is missing for all images: said once.
    reasons = list(dict.fromkeys(text for text in found if isinstance(text, str)))
    reason = "; ".join(reasons)
    if not got:
        figures = dict.fromkeys(("max_pixel_difference", "mean_pixel_difference", "decisions_changed"))
        return {"status": "skipped", "images": 0, **figures, "reason": reason}
    tensors, expected = np.stack(got), golden.tensors[rows]
    apart = np.abs(tensors.astype(np.int16) - expected)
    before, after = (_logits(session, some) for some in (expected, tensors))
    return {
        "status": "exact" if not apart.any() and not reasons else "different",
        "images": len(got),
        "max_pixel_difference": int(apart.max()),
        "mean_pixel_difference": round(float(apart.mean()), 4),
        "decisions_changed": int(changed(before, after, golden.heads).sum()),
        "reason": reason,
    }


def _read(way: str, path: Path, spec: Preprocessing, shape: tuple[int, ...]) -> Image | str:
    """Return the tensor of an image file, or why there is none."""
    try:
        tensor = _tensor(way, path.read_bytes(), spec)
    except ImageFault as fault:
        return f"{path.name} {fault}"
    except OSError as fault:
        return f"{path.name} cannot be read ({fault.strerror})"
    except (RunnerError, ImportError) as fault:
        return str(fault)
    return tensor if tensor.shape == shape else f"{path.name} became {list(tensor.shape)}"


def _logits(session: Any, tensors: Image) -> npt.NDArray[np.float32]:
    import numpy as np

    return np.concatenate([session.run(["logits"], {"image": tensors[i : i + 1]})[0] for i in range(len(tensors))])


def _tensor(way: str, content: bytes, spec: Preprocessing) -> Image:
    if way != CONTRACT and spec.channels not in (1, 3):
        raise RunnerError(f"{spec.channels} channels: only the contract has a way for them", ExitCode.USAGE)
    decoder, resizer = _parts(way)
    # An .npy file is the same to all of them.
    pixels = decode_image(content, spec.channels) if content.startswith(MAGIC) else decoder(content, spec.channels)
    return fit(pixels, spec, resizer)


def _parts(way: str) -> tuple[Callable[[bytes, int], Image], Callable[..., Image]]:
    if way == "numpy":
        return _own_png, resample
    if way.startswith("opencv"):
        import cv2  # noqa: F401 - whether it is there decides, before anything is decoded

        return _opencv, _opencv_resize if way.endswith("resize") else resample
    return decode_image, _pillow_resize if way.endswith("resize") else resample


def _own_png(content: bytes, channels: int) -> Image:
    if channels != 3:
        raise ImageFault(f"is not decoded to {channels} channels this way")
    if not content.startswith(SIGNATURE):
        raise ImageFault("is not a PNG, which is all that can be decoded without Pillow and OpenCV")
    return decode_png(content)


def _opencv(content: bytes, channels: int) -> Image:
    import cv2
    import numpy as np

    flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    if pixels is None:
        raise ImageFault("is not decoded by OpenCV")
    return np.ascontiguousarray(pixels[:, :, ::-1] if channels == 3 else pixels[:, :, None])


def _pillow_resize(image: Image, height: int, width: int, box: Box, interpolation: str) -> Image:
    import numpy as np
    from PIL import Image as Pillow

    kind = getattr(Pillow, "Resampling", Pillow)
    picture = Pillow.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    resized = picture.resize((width, height), getattr(kind, interpolation.upper()), box=box)
    return np.asarray(resized).reshape(height, width, image.shape[2])


def _opencv_resize(image: Image, height: int, width: int, box: Box, interpolation: str) -> Image:
    """Resize as people do with OpenCV: by areas where it shrinks, else by the interpolation, from whole pixels."""
    import cv2
    import numpy as np

    left, top, right, bottom = (round(side) for side in box)
    cut = image[top:bottom, left:right]
    shrinks = cut.shape[0] >= height and cut.shape[1] >= width
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC if interpolation == "bicubic" else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(cut, (width, height), interpolation=kind), np.uint8)
    return resized.reshape(height, width, image.shape[2])
