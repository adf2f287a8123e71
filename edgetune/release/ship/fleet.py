"""Which devices there are (`fleet.toml`), in what waves they are shipped to, and how far that has come."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edgetune.errors import ArtefactError, UsageError
from edgetune.files import write_json
from edgetune.release.ship.device import DEFAULT_ROOT
from edgetune.schema import SchemaVersion, Strict, read_toml, validate

__all__ = ["COMMITTED", "FAILED", "WAITING", "Fleet", "Progressed", "Standing", "load_fleet", "waves_of"]

COMMITTED, FAILED, WAITING = "COMMITTED", "FAILED", "WAITING"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
WAVE = re.compile(r"([0-9]{1,6})(%?)")


class Member(Strict):
    """A device of a fleet."""

    device: str
    """Its address: ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON], or local."""
    root: str | None = None
    """The folder there that holds a folder per product; the fleet's, unless given."""


class Fleet(Strict):
    """Devices that get the same releases, in the order in which they get them."""

    schema_: SchemaVersion = Field(default=1, alias="schema")
    """The version of this layout."""
    root: str = DEFAULT_ROOT
    """The folder on each device that holds a folder per product."""
    devices: dict[Annotated[str, Field(pattern=NAME)], Member] = Field(min_length=1)
    """By name."""

    def root_of(self, name: str) -> str:
        """Return the folder of one device."""
        return self.devices[name].root or self.root


def load_fleet(path: Path) -> Fleet:
    """Return the fleet of a TOML file.

    Raises:
        UsageError: it is not one, with every fault; or two names lead to the same place.
    """
    fleet = validate(Fleet, read_toml(path, UsageError), str(path), UsageError)
    places: dict[tuple[str, str], str] = {}
    for name, member in fleet.devices.items():
        other = places.setdefault((member.device, fleet.root_of(name)), name)
        if other != name:
            raise UsageError(f"{path}: {other} and {name} are the same place", remedy="leave one of them out")
    return fleet


def waves_of(text: str, count: int) -> list[int]:
    """Return how many devices are to have a release at the end of each wave.

    Args:
        text: numbers or percentages with commas between, as `1,10%,100%`.
        count: devices of the fleet.

    Raises:
        UsageError: it is something else, or does not grow.
    """
    found = [WAVE.fullmatch(part.strip()) for part in text.split(",")]
    if not all(found):
        raise UsageError(f"waves: got {text!r}, expected numbers or percentages such as 1,10%,100%")
    waves = []
    for one in found:
        assert one is not None
        number = int(one[1])
        if one[2] and number > 100:
            raise UsageError(f"waves: got {one[0]}, expected at most 100%")
        waves.append(min(count, math.ceil(count * number / 100) if one[2] else number))
    if waves[0] < 1 or waves != sorted(waves):
        raise UsageError(f"waves: got {text!r}, which is {waves} of {count} devices; expected numbers from 1 on that grow")
    return waves


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one device stands with a release.

    Attributes:
        status: COMMITTED, FAILED or WAITING.
        detail: what happened, in a sentence.
        exit_code: of what went wrong; 0 for nothing.
    """

    status: str = WAITING
    detail: str = ""
    exit_code: int = 0


@dataclass(kw_only=True)
class Progressed:
    """How far a release has come in a fleet, kept in a file so that running the same again finishes the rest.

    Attributes:
        path: the file.
        manifest_sha256: of the release.
        standings: by name of the device.
    """

    path: Path
    manifest_sha256: str
    standings: dict[str, Standing] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, manifest_sha256: str, names: Sequence[str]) -> Progressed:
        """Return what a file says of a release; a file of another release is begun anew.

        Raises:
            ArtefactError: the file is not what `keep` writes.
        """
        known: Mapping[str, Any] = {}
        if path.is_file():
            try:
                content = json.loads(path.read_bytes())
                rows = {str(name): Standing(**row) for name, row in content["devices"].items()}
                known = rows if content["manifest_sha256"] == manifest_sha256 else {}
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ArtefactError(f"{path} is not the state of a fleet", remedy="move it away") from None
        standings = {name: known.get(name, Standing()) for name in names}
        return cls(path=path, manifest_sha256=manifest_sha256, standings=standings)

    def keep(self, name: str, standing: Standing) -> None:
        """Note how a device stands, on disk before anything else is done.

        Raises:
            OSError: the file cannot be written.
        """
        self.standings[name] = standing
        rows = {name: asdict(row) for name, row in self.standings.items()}
        write_json(self.path, {"schema": 1, "manifest_sha256": self.manifest_sha256, "devices": rows})

    def with_status(self, status: str) -> list[str]:
        """Return the names of the devices that stand so, in the order of the fleet."""
        return [name for name, standing in self.standings.items() if standing.status == status]

    def pending(self) -> list[str]:
        """Return the devices that do not have the release: first those that were never tried, then those that failed."""
        return [*self.with_status(WAITING), *self.with_status(FAILED)]
