"""An ONNX file as a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.heads import Head
from edgetune.device.session import image_shape, open_session
from edgetune.errors import UsageError
from edgetune.files import digest_of, sha256_file
from edgetune.train.distill.teacher import (
    Teacher,
    TeacherSource,
    column_order,
    require_channels,
    resized,
    shows_no_features,
)

if TYPE_CHECKING:
    import torch

__all__ = ["OnnxTeacher", "onnx_teacher"]

# Images that ONNX Runtime is given at once: the memory of a large teacher is bounded, whatever the student's batch.
MOST_AT_ONCE = 64


def onnx_teacher(
    path: Path, heads: Sequence[Head], *, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> TeacherSource:
    """Return an ONNX file as a teacher: one that keeps edgetune's contract and names its classes in its metadata.

    Any other file is refused: what its input must be scaled by, and which class a logit stands for, cannot be guessed.

    Args:
        path: the file.
        heads: the student's.
        threads: of ONNX Runtime.
        providers: ONNX Runtime's execution providers, the best first.

    Raises:
        UsageError: the file cannot be opened, does not keep the contract, or does not name its classes.
        DataError: its classes are not the student's.
        RunnerError: the first provider is not available.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from edgetune.onnxfile import read_metadata

    try:
        taught = read_metadata(onnx.load(path, load_external_data=False)).heads
    except (OSError, DecodeError) as fault:
        raise UsageError(f"distill.teacher: {path} is not an ONNX file: {fault}") from fault
    except (ValueError, TypeError) as fault:
        raise UsageError(f"distill.teacher: {path.name} has metadata of edgetune that cannot be read: {fault}") from fault
    if not taught:
        raise UsageError(
            f"distill.teacher: {path.name} does not say which class each logit stands for",
            remedy="write the names, in the logits' order, into its metadata: the key edgetune.labels, a JSON list of texts",
        )
    order = column_order(taught, heads, f"the teacher {path.name}")

    def create() -> Teacher:
        return OnnxTeacher(path, order, threads=threads, providers=providers)

    return TeacherSource(identity=digest_of({"onnx": sha256_file(path)}), description=path.name, create=create)


class OnnxTeacher:
    """An ONNX file that keeps the contract: `image` uint8 `[N, H, W, K]` in, `logits` float32 `[N, C]` out.

    Views are rounded to bytes, since that is what it takes.

    Args:
        path: the file.
        order: which of its columns stands for each of the student's.
        threads: of ONNX Runtime.
        providers: ONNX Runtime's execution providers, the best first.

    Raises:
        UsageError: the file cannot be opened, or does not keep the contract.
        RunnerError: the first provider is not available.
    """

    feature_width: int | None = None

    def __init__(self, path: Path, order: Sequence[int], *, threads: int, providers: Sequence[str]) -> None:
        self._name, self._order = path.name, list(order)
        try:
            self._session: Any = open_session(path, {"providers": list(providers), "intra_op_threads": threads})
        except RunnerError as fault:
            if fault.code != ExitCode.ARTEFACT:
                raise
            # The file is the user's, not one of ours that was damaged.
            remedy = "scaling belongs into the graph: `edgetune export` writes such files"
            raise UsageError(f"distill.teacher: {fault}", remedy=remedy) from fault
        batch = self._session.get_inputs()[0].shape[0]
        if isinstance(batch, int) and batch != 1:
            raise UsageError(f"distill.teacher: {path.name} takes batches of {batch} images only; expected 1 or any number")
        self._at_once = batch if isinstance(batch, int) else MOST_AT_ONCE

    @property
    def width(self) -> int:
        """Of its logits."""
        return len(self._order)

    def logits(self, views: torch.Tensor) -> torch.Tensor:
        """Return logits float32 `[n, C]`, in the student's order, on the CPU, of views float32 `[n, K, H, W]` in [0, 1].

        Raises:
            DataError: the views have another number of channels.
            UsageError: it gives another number of logits than it names.
        """
        import numpy as np
        import torch

        height, width, channels = image_shape(self._session)
        require_channels(views, channels)
        levels = (resized(views, (height, width)) * 255.0).round().clamp(0, 255).to(torch.uint8)
        images = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        starts = range(0, len(images), self._at_once)
        parts = [self._session.run(["logits"], {"image": images[start : start + self._at_once]})[0] for start in starts]
        logits = np.concatenate(parts)
        if logits.shape[1] != self.width:
            problem = f"gives {logits.shape[1]} logits, its metadata name {self.width} classes"
            raise UsageError(f"distill.teacher: {self._name} {problem}")
        return torch.from_numpy(logits[:, self._order])

    def features(self, views: torch.Tensor) -> torch.Tensor:
        """Raise: a file's only output are its logits."""
        raise shows_no_features(self._name)
