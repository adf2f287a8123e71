"""What the device decides about installations, and no host can: `device.json`, written by `setup`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..atomic import write_json
from ..digest import read_json
from ..exitcodes import ExitCode, RunnerError
from .place import Place

SCHEMA = 1
PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SIGNED, HASH_ONLY = "signed", "hash-only"
LONGEST_S = 86400.0


@dataclass(frozen=True)
class Settings:
    """How a device takes releases of one product.

    Attributes:
        product: the only product that is accepted; signers are `release@PRODUCT`.
        trust: `signed`, or `hash-only` where OpenSSH is missing: whoever reaches the folder may then install.
        revocation: whether `revoked_keys` must be there.
        restart: the command that lets the application load `current` anew; empty for none.
        health: a command that exits with 0 if the application is well; empty for none.
        restart_s: time limit of the restart.
        health_s: time limit of the golden images, and of the health command.
        confirm_s: how long a healthy release waits for the host before it is taken back.
        max_bundle_bytes: a larger bundle is refused.
        margin_bytes: what must stay free.
        allow_volatile: whether a filesystem in memory will do.
    """

    product: str
    trust: str = SIGNED
    revocation: bool = False
    restart: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    restart_s: float = 30.0
    health_s: float = 120.0
    confirm_s: float = 60.0
    max_bundle_bytes: int = 2 << 30
    margin_bytes: int = 8 << 20
    allow_volatile: bool = False


def write_settings(place: Place, settings: Settings) -> None:
    """Write `device.json`.

    Raises:
        RunnerError: USAGE: a setting cannot be, with all of them.
        OSError: it cannot be written.
    """
    content = {"schema": SCHEMA, **asdict(settings)}
    content.update(restart=list(settings.restart), health=list(settings.health))
    faults = _faults(content)
    if faults:
        raise RunnerError("the settings cannot be honoured", ExitCode.USAGE, tuple(faults))
    write_json(place.settings, content)


def read_settings(place: Place) -> Settings:
    """Return the settings of a product.

    Raises:
        RunnerError: USAGE: the folder was never set up. ARTEFACT: the file is not what `setup` writes.
    """
    if not place.settings.is_file():
        raise RunnerError(f"{place.folder} is not set up for releases; use `edgetune ship setup` first", ExitCode.USAGE)
    content = read_json(place.settings)
    faults = _faults(content)
    if faults:
        raise RunnerError(f"{place.settings} cannot be used; set it up again", ExitCode.ARTEFACT, tuple(faults))
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items() if key != "schema"
    }
    return Settings(**values)


def _faults(content: Any) -> list[str]:
    known = {field.name for field in fields(Settings)}
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or set(content) != known | {"schema"}:
        return [f"expected schema {SCHEMA} and {', '.join(sorted(known))}"]
    checks = {
        "product": isinstance(content["product"], str) and PRODUCT.fullmatch(content["product"]) is not None,
        "trust": content["trust"] in (SIGNED, HASH_ONLY),
        **{key: type(content[key]) is bool for key in ("revocation", "allow_volatile")},
        **{key: _is_command(content[key]) for key in ("restart", "health")},
        **{key: _is_span(content[key]) for key in ("restart_s", "health_s", "confirm_s")},
        **{key: type(content[key]) is int and content[key] >= 0 for key in ("max_bundle_bytes", "margin_bytes")},
    }
    return [f"{key}: got {content[key]!r}" for key, holds in checks.items() if not holds]


def _is_command(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) and "\0" not in part for part in value)


def _is_span(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= LONGEST_S
