"""Random views of a batch of images, on whatever device the batch lies on.

`draw` decides everything random about the views of one epoch; `augment` makes the views of some rows from their draws, in one
resampling (`geometry`) and as few passes over the colours as the recipe needs (`colour`, `policy`); `mix` blends the views of a
batch with each other. A view depends on its image and its draw only: not on the batch that it is in.
"""

from __future__ import annotations

from edgetune.train.augment.colour import colour_faults
from edgetune.train.augment.draw import Draws, draw, without_mirroring
from edgetune.train.augment.mixing import Mixed, mix
from edgetune.train.augment.views import augment, to_float

__all__ = ["Draws", "Mixed", "augment", "colour_faults", "draw", "mix", "to_float", "without_mirroring"]
