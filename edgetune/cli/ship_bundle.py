"""What `edgetune ship BUNDLE` does: to a device, to a fleet, to a registry."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edgetune.cli.ship_places import opened, places
from edgetune.errors import ExitCode, UsageError
from edgetune.progress import Progress, Silent
from edgetune.release.load import load_bundle, locate_bundle
from edgetune.release.ship.fleet import COMMITTED, FAILED, Progressed, waves_of
from edgetune.release.ship.oci import SCHEME, parse_reference, pull, push
from edgetune.release.ship.rollout import roll_out

__all__ = ["opened_bundle", "to_device", "to_fleet", "to_registry"]

Ended = tuple[dict[str, Any], list[str], int]
"""What happened, as JSON and as lines, and the exit code."""


@contextmanager
def opened_bundle(text: str, talk: Progress) -> Iterator[Path]:
    """Give the bundle that a user means: a folder, a run folder, or one that is fetched from a registry.

    Raises:
        EdgetuneError: there is none, or it cannot be fetched.
    """
    if not text.startswith(SCHEME):
        folder = locate_bundle(Path(text))
        if not folder.is_dir():
            raise UsageError(f"{text} is no folder; expected a bundle", remedy="`edgetune ship --help` lists the commands")
        yield folder
        return
    reference = parse_reference(text)
    if not reference.digest:
        raise UsageError(f"{text} may come to mean another bundle", remedy="pin it: oci://REGISTRY/NAME@sha256:DIGEST")
    with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch:
        pull(reference, Path(scratch) / "bundle", talk)
        yield Path(scratch) / "bundle"


def to_registry(folder: Path, to: str, talk: Progress) -> Ended:
    """Push a bundle, and say how it is pinned."""
    pinned = str(push(folder, parse_reference(to), talk))
    return {"pushed": to, "pinned": pinned}, [pinned], int(ExitCode.OK)


def to_device(folder: Path, talk: Progress, *, device: str, root: str | None, forgive: bool, **_: Any) -> Ended:
    """Ship to one device."""
    product = str(load_bundle(folder)["product"])
    (address, there) = places(device, None, root)[device]
    with opened(address, there, product, talk) as place:
        outcome = place.ship(folder, forgive=forgive)
    line = f"{device}: {outcome.release} is committed" + (", as it was" if outcome.was_there else "")
    row = {"device": device, "status": COMMITTED, **vars(outcome)}
    return row, [line], int(ExitCode.OK)


def to_fleet(
    folder: Path,
    talk: Progress,
    *,
    fleet: Path,
    root: str | None,
    forgive: bool,
    waves: str,
    max_failures: int,
    parallel: int,
    state: Path | None,
    **_: Any,
) -> Ended:
    """Ship to a fleet in waves."""
    product = str(load_bundle(folder)["product"])
    members = places(None, fleet, root)
    wanted = waves_of(waves, len(members))
    sha256 = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    progressed = Progressed.load(state or fleet.with_suffix(".state.json"), sha256, list(members))

    def ship(name: str) -> Any:
        with opened(*members[name], product, Silent()) as place:
            return place.ship(folder, forgive=forgive)

    ended = roll_out(progressed, wanted, ship, most_failures=max_failures, parallel=parallel, progress=talk)
    rows = {name: vars(standing) for name, standing in progressed.standings.items()}
    codes = [standing.exit_code for standing in progressed.standings.values() if standing.status == FAILED]
    outcome = {"product": product, "manifest_sha256": sha256, "stopped": ended.stopped, "devices": rows}
    return outcome, _table(rows, ended.stopped), max(codes, default=int(ExitCode.OK))


def _table(rows: Mapping[str, Mapping[str, Any]], stopped: str) -> list[str]:
    width = max(len(name) for name in rows)
    lines = [f"{row['status']:<10} {name:<{width}}  {row['detail']}".rstrip() for name, row in rows.items()]
    counts = [f"{sum(row['status'] == status for row in rows.values())} {status}" for status in (COMMITTED, FAILED, "WAITING")]
    return [*lines, f"{len(rows)} devices: {', '.join(counts)}", *([click.style(stopped)] if stopped else [])]
