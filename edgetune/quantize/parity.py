"""How far a model of a reduced precision is from the fp32 file that it was made of."""

from __future__ import annotations

from pathlib import Path

from edgetune.artefacts import Dataset, NumericParity, OnnxModel
from edgetune.device.session import open_session
from edgetune.numeric import PLAIN_SESSION, compare_logits, spread_rows

__all__ = ["onnx_parity"]

PARITY_IMAGES = 256


def onnx_parity(fp32: OnnxModel, other: Path, dataset: Dataset) -> NumericParity:
    """Return the distance of the logits of two files on some test images.

    Args:
        fp32: the reference.
        other: the file made of it.
        dataset: whose test images are run.
    """
    import numpy as np

    rows = spread_rows(dataset.counts["test"], PARITY_IMAGES)
    images = np.array(dataset.images("test")[rows])
    names = dataset.names("test")
    logits = []
    for path in (fp32.path, other):
        session = open_session(path, PLAIN_SESSION)
        logits.append(np.concatenate([session.run(["logits"], {"image": image[None]})[0] for image in images]))
    return compare_logits(logits[0], logits[1], [names[row] for row in rows], fp32.heads)
