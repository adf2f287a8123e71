"""The gate: a candidate held against its baseline, on the same images and in one session of the same device.

`sides` says what a user named, `images` brings the labelled images into both models' forms, `measuring` asks the device,
`judging` makes verdicts of the answers, `changed` lists the decisions that are others now, `comparing` joins them.
`baseline` is the small file that stands for an accepted bundle in a repository, `against` judges by it, `tolerances` is how
much worse a candidate may be.
"""

from edgetune.gate.baseline import read_baseline, set_baseline
from edgetune.gate.comparing import compare
from edgetune.gate.tolerances import Tolerances

__all__ = ["Tolerances", "compare", "read_baseline", "set_baseline"]
