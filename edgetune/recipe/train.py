"""The table of fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgetune.recipe.augment import AugmentRecipe
from edgetune.schema import Strict

__all__ = ["TrainRecipe"]


class TrainRecipe(Strict):
    """Fine-tuning: by default a linear probe on frozen features, then all layers, the lower ones more slowly."""

    strategy: Literal["lp-ft", "full", "linear-probe", "gradual", "norm-and-bias"] = "lp-ft"
    """lp-ft: linear probe, then all layers; full: all layers from a fresh head; linear-probe: the head alone; gradual: linear
    probe, then one stage after the other from the top; norm-and-bias: linear probe, then norms, biases and the head."""
    freeze: str = ""
    """Parts that never learn, with commas between: `stem`, `stages.0-2`, or a pattern of parameter names as `blocks.0.*`."""
    epochs: Annotated[int, Field(ge=0, le=10_000)] | Literal["auto"] = "auto"
    """Epochs over all layers; auto: more for few images, see CONTRIBUTING. 0 keeps the linear probe."""
    time_budget_s: float | None = Field(default=None, gt=0.0)
    """Wall-clock seconds that fine-tuning may take: epochs are cut down to what fits, and the schedule with them.
    Teachers given by name are fine-tuned before it, in time of their own."""
    probe_iterations: int = Field(default=60, ge=0, le=10_000)
    """L-BFGS iterations of the head alone on cached features; cheap. 0 starts from a fresh head."""
    gradual_fraction: float = Field(default=0.5, gt=0.0, le=1.0)
    """Strategy gradual: the part of the epochs after which all stages learn."""
    batch_size: int = Field(default=64, ge=2, le=65_536)
    """Images per step, over all processes."""
    accumulate: int = Field(default=1, ge=1, le=1024)
    """A step's images go through the network in so many parts, for little memory; the gradients are the same,
    but for DIST, which then relates the images of one part only."""
    optimizer: str = Field(default="adamw", min_length=1)
    """adamw, adam, sgd, or any other that timm knows by name."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """SGD's momentum, and Adam's first beta."""
    lr: float = Field(default=1e-3, gt=0.0, le=10.0)
    """The peak learning rate of the head and of the topmost layers; see `edgetune lr-find`."""
    layer_decay: float = Field(default=0.9, gt=0.0, le=1.0)
    """Each group of the backbone's layers learns this much more slowly than the one above it."""
    layer_groups: Literal["stages", "thirds"] = "stages"
    """The groups: the backbone's own stages, or base, middle and top with about equally many layers."""
    schedule: Literal["cosine", "exponential", "step", "one-cycle", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; one-cycle also moves the momentum against it."""
    warmup_fraction: Annotated[float, Field(ge=0.0, le=0.9)] | Literal["auto"] = "auto"
    """The part of the steps that the learning rate rises; auto: a tenth, of short regressions up to three tenths."""
    final_lr_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    """What is left of the peak at the end, for cosine, exponential and one-cycle."""
    decay_at: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = (0.5, 0.75)
    """Schedule step: after which parts of the steps the rate falls."""
    decay_factor: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Schedule step: what remains of the rate each time."""
    weight_decay: float = Field(default=0.05, ge=0.0, le=1.0)
    """Decoupled for AdamW; not applied to norms and biases."""
    l2_sp: float = Field(default=0.0, ge=0.0, le=10.0)
    """Pulls the backbone's weights towards the pretrained ones by this factor, instead of towards zero (L2-SP)."""
    clip_norm: float = Field(default=0.0, ge=0.0, le=1e6)
    """Gradients are scaled down to at most this norm; 0: never."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """The probability that the target spreads over the other classes."""
    balance: Literal["none", "weights", "sampler"] = "none"
    """Against classes of unlike size: weigh rare ones more in the loss, or draw them more often."""
    ema_epochs: float = Field(default=0.25, ge=0.0, le=100.0)
    """The span, in epochs, over which weights are averaged exponentially; 0 keeps the raw weights."""
    average_epochs: bool = True
    """Keep the mean of the weights that the last two fifths of the epochs ended with, if its validation loss is lower than the
    last one's."""
    batch_norm: Literal["auto", "frozen", "adapt"] = "auto"
    """Whether batch norms keep their pretrained statistics or follow the new images; auto: adapt for random weights only."""
    patience: int = Field(default=10, ge=1, le=10_000)
    """Stop after so many epochs that did not validate better."""
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """CPU threads; auto: one per physical core that this process may use. The same number gives the same bytes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: the GPU if there is one."""
    amp: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the computation; auto: a CPU computes in float32, on a GPU the fastest is found by a short measurement."""
    layout: Literal["auto", "channels-last", "contiguous"] = "auto"
    """Memory layout; auto: channels-last on a CPU, on a GPU the faster one by a short measurement."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Whether torch.compile is used; auto: never on a CPU, on a GPU where a short measurement says that it pays."""
    augment: AugmentRecipe = AugmentRecipe()
