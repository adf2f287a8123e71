"""What to build: the recipe, a strict TOML file.

Every key has a default, so that an empty recipe is the embedded default: scikit-learn's digits for this machine. The
resolved recipe holds every key; it is stored with the run and replays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from edgetune.errors import RecipeError
from edgetune.schema import SCHEMA_VERSION, SchemaVersion, Strict, apply_settings, put, read_toml, to_toml, validate

__all__ = ["DataRecipe", "ExportRecipe", "ModelRecipe", "QuantizeRecipe", "Recipe", "TrainRecipe", "VerifyRecipe"]

BUILT_IN_SOURCES = ("digits",)
PATHS: dict[str, tuple[str, ...]] = {"data.source": BUILT_IN_SOURCES, "model.weights": ("auto", "none"), "target": ("host",)}
"""Keys that hold a path, each with the words that are not paths."""
Fraction = Field(ge=0.0, le=0.5)


class DataRecipe(Strict):
    """The images: where they are, how they are split, how large the model sees them."""

    source: str = Field(default="digits", min_length=1)
    """A folder with one folder per class (or with train/, val/ and test/ above them), or a built-in name: digits."""
    image_size: Annotated[int, Field(ge=16, le=1024)] | Literal["auto"] = "auto"
    """Height and width of the model's input in pixels; auto: 48 for digits, 224 for large images, less for small ones."""
    resize: Literal["crop", "pad", "squash"] = "crop"
    """How a picture that is not square becomes square: cut its sides, pad it with white, or squash it."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """How pixels are resampled; the same on the device."""
    crop_fraction: float = Field(default=1.0, gt=0.2, le=1.0)
    """The part of the sides that `crop` keeps."""
    val_fraction: float = Field(default=0.1, gt=0.0, le=0.5)
    """The part of the images used to choose (early stopping), where the folder has no val/."""
    test_fraction: float = Field(default=0.2, gt=0.0, le=0.5)
    """The part of the images used to claim (accuracy), where the folder has no test/."""
    near_duplicate_bits: int = Field(default=4, ge=0, le=16)
    """Two images whose 64-bit perceptual hashes differ in at most this many bits are near-duplicates and stay in one split."""
    leakage: Literal["refuse", "warn"] = "warn"
    """What to do when the folder's own splits share an image or a near-duplicate: stop, or warn in the report."""
    corrupt: Literal["refuse", "skip"] = "refuse"
    """What to do with files that cannot be decoded: stop and name them all, or leave them out and name them in the report."""
    conflicts: Literal["refuse", "skip"] = "refuse"
    """What to do with the same image under two labels: stop and name them, or leave all its copies out."""


class ModelRecipe(Strict):
    """The network."""

    backbone: str = Field(default="tf_efficientnet_lite0", min_length=1)
    """Any classifier of timm by name; see `edgetune backbones`."""
    weights: str = Field(default="auto", min_length=1)
    """auto (pip package, hub cache, hub), none (random), or the path of a .safetensors file or a timm checkpoint."""
    weights_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """If given, the weights file must have this digest."""
    drop_rate: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Dropout before the last layer."""
    drop_path_rate: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Stochastic depth."""


class AugmentRecipe(Strict):
    """How a train image is varied each time it is seen."""

    crop_min_area: float = Field(default=0.8, gt=0.05, le=1.0)
    """The smallest part of the image's area that a random crop keeps."""
    aspect: float = Field(default=1.15, ge=1.0, le=2.0)
    """The largest change of the aspect ratio of a random crop, and its inverse."""
    flip: bool | Literal["auto"] = "auto"
    """Mirror left and right at random; auto: yes, but for digits, where a mirrored digit is no digit."""
    rotation_degrees: float = Field(default=5.0, ge=0.0, le=180.0)
    """The largest rotation, either way."""
    brightness: float = Field(default=0.2, ge=0.0, le=1.0)
    """The largest relative change."""
    contrast: float = Field(default=0.2, ge=0.0, le=1.0)
    """The largest relative change."""
    saturation: float = Field(default=0.2, ge=0.0, le=1.0)
    """The largest relative change."""
    mixup: float = Field(default=0.0, ge=0.0, le=10.0)
    """How strongly pairs of images are mixed (the alpha of MixUp); 0: not at all."""


class TrainRecipe(Strict):
    """Fine-tuning: a linear probe on frozen features, then all layers, the lower ones more slowly."""

    epochs: Annotated[int, Field(ge=0, le=10_000)] | Literal["auto"] = "auto"
    """Epochs over all layers; auto: more for few images, see CONTRIBUTING. 0 keeps the linear probe."""
    probe_iterations: int = Field(default=60, ge=0, le=10_000)
    """L-BFGS iterations of the head alone on cached features; cheap. 0 starts from a fresh head."""
    batch_size: int = Field(default=64, ge=2, le=65_536)
    """Images per step."""
    lr: float = Field(default=1e-3, gt=0.0, le=10.0)
    """The peak learning rate of the head and of the topmost layers, for AdamW."""
    layer_decay: float = Field(default=0.9, gt=0.0, le=1.0)
    """Each stage of the backbone learns this much more slowly than the one above it."""
    weight_decay: float = Field(default=0.05, ge=0.0, le=1.0)
    """AdamW's; not applied to norms and biases."""
    warmup_fraction: float = Field(default=0.1, ge=0.0, le=0.9)
    """The part of the steps that the learning rate rises; it falls along a cosine afterwards."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """The probability that the target spreads over the other classes."""
    ema_epochs: float = Field(default=0.25, ge=0.0, le=100.0)
    """The span, in epochs, over which weights are averaged exponentially; 0 keeps the raw weights."""
    average_epochs: bool = True
    """Keep the mean of the weights that the later epochs ended with, if it validates better than the best of them."""
    batch_norm: Literal["auto", "frozen", "adapt"] = "auto"
    """Whether batch norms keep their pretrained statistics or follow the new images; auto: adapt for random weights only."""
    patience: int = Field(default=10, ge=1, le=10_000)
    """Stop after so many epochs without a better top-1 on the validation set (of equals, the lower loss is better)."""
    threads: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """CPU threads; auto: one per physical core that this process may use. The same number gives the same bytes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: the GPU if there is one."""
    amp: bool = True
    """Mixed precision on a GPU; a CPU computes in float32."""
    augment: AugmentRecipe = AugmentRecipe()


class ExportRecipe(Strict):
    """From torch to ONNX."""

    opset: Annotated[int, Field(ge=13, le=23)] | Literal["auto"] = "auto"
    """The version of the default operator set; auto: the newest that the profile's runtime and the quantizer handle."""
    parity_images: int = Field(default=64, ge=3, le=10_000)
    """How many real images torch and ONNX Runtime are compared on."""
    max_abs: float = Field(default=1e-3, gt=0.0, le=1.0)
    """The largest difference of any logit, relative to the largest logit, that still counts as the same network."""


class QuantizeRecipe(Strict):
    """From fp32 to int8."""

    precision: Literal["auto", "int8", "fp32"] = "auto"
    """auto builds int8 as the profile says and ships fp32 only where int8 is measured not to be faster; fp32 skips int8."""
    calibration_images: int = Field(default=256, ge=1, le=1_000_000)
    """How many train images the ranges are taken from, the same number of each class as far as they go."""
    ranges: Literal["minmax", "pnorm"] = "pnorm"
    """The range of an activation: its extremes, or the one with the smallest p-norm (p = 3) of the rounding error."""
    bias_correction: bool = True
    """Correct each layer's bias for the mean error of the quantized layers before it, one after the other."""


class VerifyRecipe(Strict):
    """What must hold. A key that is not given comes from the profile."""

    device: Literal["auto", "local"] = "auto"
    """auto: measure here, as a stand-in if this machine is not the target; local: this machine must be the target."""
    test_images: Annotated[int, Field(ge=10)] | Literal["all"] = "all"
    """How many test images are measured."""
    top1_drop_points: float | None = Field(default=None, gt=0.0, le=100.0)
    """Tolerance: how much lower the top-1 of the shipped model may be than fp32's, in points."""
    top1_agreement_percent: float | None = Field(default=None, gt=0.0, le=100.0)
    """Tolerance: how many decisions must be the same as fp32's, in percent."""
    latency_p90_ms: float | None = Field(default=None, gt=0.0)
    """Budget: nine of ten inferences at batch 1 must be at most this slow."""
    size_bytes: int | None = Field(default=None, gt=0)
    """Budget: the model file."""
    peak_memory_bytes: int | None = Field(default=None, gt=0)
    """Budget: what the model adds to the process at its peak."""


class Recipe(Strict):
    """The whole file."""

    schema_: SchemaVersion = Field(default=1, alias="schema")
    """The version of this file's layout."""
    target: str = Field(default="host", min_length=1)
    """The board: a profile's name (see `edgetune profiles`) or the path of a profile file."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """All randomness comes from here."""
    data: DataRecipe = DataRecipe()
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    export: ExportRecipe = ExportRecipe()
    quantize: QuantizeRecipe = QuantizeRecipe()
    verify: VerifyRecipe = VerifyRecipe()

    @model_validator(mode="after")
    def _splits_leave_a_train_set(self) -> Self:
        if self.data.val_fraction + self.data.test_fraction >= 0.9:
            raise ValueError("data.val_fraction + data.test_fraction must leave at least a tenth of the images to train on")
        return self

    @classmethod
    def load(cls, path: Path | None, settings: Sequence[str] = (), overrides: dict[str, Any] | None = None) -> Recipe:
        """Return the recipe in a file, or the default one, with settings and overrides applied.

        Args:
            path: the TOML file; None for the embedded default.
            settings: `a.b=value` texts of the command line, applied last.
            overrides: `{"table.key": value}` from dedicated options, applied before the settings.

        Raises:
            RecipeError: with every fault of the file.
        """
        content = read_toml(path, RecipeError) if path else {"schema": SCHEMA_VERSION}
        if path and "schema" not in content:
            raise RecipeError(f"{path} does not say its schema", remedy=f"add the line: schema = {SCHEMA_VERSION}")
        if path:
            content = _absolute(content, path.parent)
        for key, value in (overrides or {}).items():
            put(content, key, value, f"the option for {key}")
        content = _absolute(apply_settings(content, settings), Path())
        return validate(cls, content, str(path or "the command line"), RecipeError)

    def to_toml(self) -> str:
        """Return the resolved recipe: every key, so that later defaults cannot change what it means."""
        return to_toml(self.model_dump(mode="json", by_alias=True))


def _absolute(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content with its relative paths taken from `folder`, so that the stored recipe can be replayed anywhere."""
    for key, words in PATHS.items():
        table_name, _, name = key.rpartition(".")
        table = content.get(table_name, {}) if table_name else content
        value = table.get(name) if isinstance(table, dict) else None
        if not isinstance(value, str) or not value or value in words or (name == "target" and not value.endswith(".toml")):
            continue
        try:
            path = Path(value).expanduser()
        except RuntimeError:  # `~name` of nobody: whoever reads the path will say that it is not there.
            continue
        table[name] = str(path if path.is_absolute() else (folder / path).resolve())
    return content
