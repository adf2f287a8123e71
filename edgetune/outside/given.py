"""What a user says of a model file that was not made here: which pixels it expects, what its outputs are called."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from edgetune.errors import Fault, UsageError
from edgetune.schema import SchemaVersion, Strict, read_toml, to_toml, validate

__all__ = ["PRESETS", "Given", "Pixels", "preset", "read_labels"]

PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
    "unit": ((0.0,), (1.0,)),
    # (k / 255) / (1 / 255) = k: the bytes themselves, as numbers.
    "bytes": ((0.0,), (1 / 255,)),
}
"""Mean and standard deviation of pixels in [0, 1]; one number stands for every channel."""
SHOWN = 5


class Given(Strict):
    """A model file and what its user says of it: the file `model.toml` of a run folder that began with a model file."""

    schema_: SchemaVersion = Field(default=1, alias="schema")
    """The version of this file's layout."""
    file: str = Field(min_length=1)
    """The path of the .onnx file."""
    pixels: Literal["", "imagenet", "half", "unit", "bytes"] = ""
    """What the graph expects of a byte k: imagenet: (k / 255 - mean) / std of ImageNet; half: the same with 0.5 and 0.5, so
    [-1, 1]; unit: k / 255; bytes: k. Empty: the file says it, or mean and std do."""
    mean: tuple[float, ...] = ()
    """Subtracted from pixels in [0, 1], per channel."""
    std: tuple[float, ...] = ()
    """Then divided by, per channel."""
    labels: str = ""
    """The path of a text file with the name of each output's class, one a line; empty: the sorted names of the folders."""
    output_name: str = ""
    """The output with the classes' scores, where the file has several."""

    @model_validator(mode="after")
    def _one_normalisation(self) -> Self:
        faults = []
        if self.pixels and (self.mean or self.std):
            faults.append("give either pixels or mean and std")
        if bool(self.mean) != bool(self.std) or len(self.mean) != len(self.std):
            faults.append(f"mean and std need one number per channel each; got {len(self.mean)} and {len(self.std)}")
        # Numbers for bytes (123.675 and 58.395 instead of 0.485 and 0.229) are the usual slip.
        if not all(0 <= value <= 1 for value in self.mean):
            faults.append(f"mean is that of pixels in [0, 1]; got {_listed(self.mean)}: divide numbers for bytes by 255")
        if not all(0 < value <= 1 for value in self.std):
            faults.append(
                f"std is that of pixels in [0, 1] and not zero; got {_listed(self.std)}: divide numbers for bytes by 255"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def of(cls, content: dict[str, Any]) -> Given:
        """Return what a command line says; texts and numbers that are None were not given.

        Raises:
            UsageError: with every fault.
        """
        known = {key: value for key, value in content.items() if value is not None}
        for key in ("file", "labels"):
            if known.get(key):
                known[key] = str(Path(known[key]).expanduser().absolute())
        return validate(cls, known, "the command line", UsageError)

    @classmethod
    def load(cls, path: Path) -> Given:
        """Return what `to_toml` wrote.

        Raises:
            UsageError: it cannot be read, or with every fault.
        """
        return validate(cls, read_toml(path, UsageError), str(path), UsageError)

    def to_toml(self) -> str:
        """Return every key as TOML."""
        return to_toml(self.model_dump(mode="json", by_alias=True))

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)

    def pixels_for(self, channels: int) -> Pixels | None:
        """Return the normalisation that was given; None if none was.

        Raises:
            UsageError: it is not for so many channels.
        """
        if self.pixels:
            return preset(self.pixels, channels)
        if not self.mean:
            return None
        if len(self.mean) not in (1, channels):
            raise UsageError(
                f"--mean and --std are for {len(self.mean)} channels; the file takes {channels}",
                remedy=f"give {channels} numbers each",
            )
        return _pixels("mean and std as given", self.mean, self.std, channels)


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What a graph expects of a byte k of channel c: (k / 255 - mean[c]) / std[c].

    Attributes:
        name: of the preset, or where the numbers come from.
        mean: one per channel.
        std: one per channel.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {"pixels": self.name, "mean": list(self.mean), "std": list(self.std)}


def preset(name: str, channels: int) -> Pixels:
    """Return a preset for images of so many channels.

    Raises:
        UsageError: it has other channels.
    """
    mean, std = PRESETS[name]
    if len(mean) not in (1, channels):
        raise UsageError(
            f"--pixels {name} is for {len(mean)} channels; the file takes {channels}", remedy="give --mean and --std"
        )
    return _pixels(name, mean, std, channels)


def _pixels(name: str, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> Pixels:
    times = channels // len(mean)
    return Pixels(name=name, mean=mean * times, std=std * times)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values if math.isfinite(value)) or "none"


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the names in a file of labels, one a line, in Unicode's NFC form as the names of folders are.

    Raises:
        UsageError: it cannot be read, or a name is missing or stands there twice; with every such line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except OSError as fault:
        raise UsageError(f"--labels: {path} cannot be read: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise UsageError(f"--labels: {path} is not UTF-8 text (byte {fault.start})", remedy="save it as UTF-8") from fault
    names = tuple(unicodedata.normalize("NFC", line.strip()) for line in lines)
    places: dict[str, list[str]] = defaultdict(list)
    for number, name in enumerate(names, start=1):
        places[name].append(str(number))
    faults = [
        Fault(where=f"line {', '.join(at)}", problem="the same name" if name else "no name", got=name)
        for name, at in places.items()
        if len(at) > 1 or not name
    ]
    if faults or not names:
        raise UsageError(
            f"--labels: {path.name} does not name {'every class once' if names else 'any class'}",
            faults=faults,
            remedy="write one name a line, each of them once, in the order of the file's outputs",
        )
    return names
