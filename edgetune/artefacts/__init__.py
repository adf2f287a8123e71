"""The frozen values that the stages hand on.

A stage leaves one value, in a folder of its own. The value is stored beside its files as JSON; the paths in it are names
below that folder, so that a run can be moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetune.artefacts.base import Artefact
from edgetune.artefacts.dataset import Dataset, Split
from edgetune.artefacts.judgement import (
    Bundle,
    Figures,
    HeadFigures,
    Measurement,
    MultiLabelFigures,
    RegressionFigures,
    Report,
    TaskFigures,
    VerdictName,
    VerdictRow,
)
from edgetune.artefacts.models import Ablation, Checkpoint, Features, LrCurve, NumericParity, OnnxModel, Precision, Sensitivity
from edgetune.artefacts.ranking import Candidate, Cost, ProbeScore, Ranking, Timing
from edgetune.device.heads import Head
from edgetune.device.preprocess import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Images = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]

__all__ = [
    "Ablation",
    "Artefact",
    "Bundle",
    "Candidate",
    "Checkpoint",
    "Cost",
    "Dataset",
    "Features",
    "Figures",
    "Head",
    "HeadFigures",
    "LrCurve",
    "Measurement",
    "MultiLabelFigures",
    "NumericParity",
    "OnnxModel",
    "Precision",
    "Preprocessing",
    "ProbeScore",
    "Ranking",
    "RegressionFigures",
    "Report",
    "Sensitivity",
    "Split",
    "TaskFigures",
    "Timing",
    "VerdictName",
    "VerdictRow",
]
