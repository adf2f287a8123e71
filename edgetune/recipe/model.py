"""The table of the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgetune.schema import Strict

__all__ = ["ModelRecipe"]


class ModelRecipe(Strict):
    """The network."""

    backbone: str = Field(default="tf_efficientnet_lite0", min_length=1)
    """Any classifier of timm by name; see `edgetune backbones`."""
    weights: str = Field(default="auto", min_length=1)
    """auto (pip package, hub cache, hub), none (random), or the path of a .safetensors file, a timm checkpoint or a run folder
    of edgetune."""
    weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """If given, the weights file must have this digest."""
    drop_rate: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Dropout before the last layer."""
    drop_path_rate: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Stochastic depth."""
    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = ()
    """Widths of hidden layers in the head, with ReLU and the dropout behind each; none: one linear layer."""
    stages: Annotated[int, Field(ge=1, le=64)] | Literal["all"] = "all"
    """How many of the backbone's stages are kept, from the stem on; fewer are faster."""
    enlarge_to: Annotated[int, Field(ge=16, le=1024)] | None = None
    """The network itself resamples its images to this height and width before its first convolution: for teachers, which may
    look more closely than their students."""
    activation: Literal["auto", "keep", "relu", "relu6"] = "auto"
    """What SiLU, hard-swish and their kin become before fine-tuning; auto: relu where the profile says that the target's
    integer kernels want it, else they are kept."""
