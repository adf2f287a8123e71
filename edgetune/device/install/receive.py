"""Receiving: verify the signed manifest first, then say which files are needed; what is there is not asked for again."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ..atomic import write_atomic, write_json
from ..digest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, read_json, sha256_file
from ..exitcodes import ExitCode, RunnerError
from .back import is_intact, recovered
from .candidate import Candidate, read_candidate
from .crash import reached
from .place import Place, alone, remove
from .preflight import check_folder, check_machine, check_room
from .settings import SIGNED, read_settings
from .signature import MAX_SIGNATURE_BYTES
from .state import COMMITTED, RECEIVING, TRYING, State, note, write_state

PROTOCOL = 1
"""Raised when host and device would misunderstand each other."""
SHIPPER = re.compile("[0-9a-f]{32}")
LEASE_S = 20.0
"""Another host may go on with uploads when nothing has arrived for so long."""
HEAD = re.compile(rb"([0-9]{1,9}) ([0-9]{1,9})\n")


def read_head(stream: BinaryIO) -> tuple[bytes, bytes]:
    """Return the manifest and the signature that the host sends: a line with their lengths, then their bytes.

    Raises:
        RunnerError: ARTEFACT: it is something else, or larger than allowed.
    """
    found = HEAD.fullmatch(stream.readline(32))
    sizes = [int(number) for number in found.groups()] if found else [0, 0]
    if not found or sizes[0] > MAX_MANIFEST_BYTES or sizes[1] > MAX_SIGNATURE_BYTES:
        raise RunnerError(
            f"expected a manifest of at most {MAX_MANIFEST_BYTES} bytes and a signature of at most {MAX_SIGNATURE_BYTES}",
            ExitCode.ARTEFACT,
        )
    content, signature = (stream.read(size) for size in sizes)
    if [len(content), len(signature)] != sizes or stream.read(1):
        raise RunnerError("the manifest or its signature was cut short", ExitCode.ARTEFACT)
    return content, signature


def begin(place: Place, content: bytes, signature: bytes, shipper: str, forgive: bool = False) -> dict[str, Any]:
    """Accept a release for receiving, or refuse it; nothing of it was placed before it was verified.

    Args:
        place: the product.
        content: the manifest.
        signature: of the manifest; empty for none.
        shipper: 32 hexadecimal digits that tell hosts apart.
        forgive: take a release that was taken back before.

    Returns:
        `protocol`, `release`, `manifest_sha256`, `folder` (where files go), `needed` (name and size of each file that is not
        there yet) and `installed` (it is current already; nothing is needed).

    Raises:
        RunnerError: ARTEFACT, TARGET or USAGE, with the reason; what is current stays.
        OSError: something cannot be written.
    """
    settings = read_settings(place)
    if not SHIPPER.fullmatch(shipper):
        raise RunnerError("expected 32 hexadecimal digits for the shipper", ExitCode.USAGE)
    with alone(place):
        state = recovered(place, settings)
        candidate = read_candidate(place, settings, content, signature)
        answer = {"protocol": PROTOCOL, "release": candidate.release, "manifest_sha256": candidate.manifest_sha256}
        if state.current == candidate.release and state.state == COMMITTED and is_intact(place.release(candidate.release)):
            return {**answer, "installed": True, "folder": "", "needed": []}
        refuse(candidate, state, forgive)
        take_lease(place, shipper)
        check_folder(place, settings)
        check_machine(candidate)
        folder = place.incoming / candidate.manifest_sha256
        _clear_others(place, folder)
        needed = _needed(candidate, folder)
        check_room(place, settings, sum(_left(folder / name, size) for name, size in needed.items()), len(needed))
        folder.mkdir(exist_ok=True)
        write_atomic(folder / MANIFEST, content)
        if settings.trust == SIGNED:
            write_atomic(folder / SIGNATURE, signature)
        write_json(place.incoming / "lease.json", {"shipper": shipper})
        bad = tuple(digest for digest in state.bad if digest != candidate.manifest_sha256) if forgive else state.bad
        write_state(place, attempt_of(state, candidate, RECEIVING, bad))
        reached("received")
        note(place, "receiving", candidate.release, f"{len(needed)} of {len(candidate.files)} files are needed")
        rows = [{"name": name, "size_bytes": size} for name, size in needed.items()]
        return {**answer, "installed": False, "folder": str(folder), "needed": rows}


def attempt_of(state: State, candidate: Candidate, how: str, bad: tuple[str, ...]) -> State:
    """Return the state with another attempt; what is committed stays."""
    return replace(
        state,
        state=how,
        attempt=candidate.release,
        manifest_sha256=candidate.manifest_sha256,
        healthy=False,
        bad=bad,
        reason="",
    )


def refuse(candidate: Candidate, state: State, forgive: bool = False) -> None:
    """Raise if a release may not follow what is committed here.

    Raises:
        RunnerError: USAGE: another one is being tried. ARTEFACT: it is older, or was taken back.
    """
    if state.state == TRYING:
        raise RunnerError(
            f"{state.attempt} is being tried here; wait until it is confirmed or taken back, or roll it back", ExitCode.USAGE
        )
    if candidate.counter <= state.highest_counter:
        raise RunnerError(
            f"counter {candidate.counter} is not above {state.highest_counter}, the highest that was committed here; sign the "
            "bundle with a higher one, or roll back to a release that is still there",
            ExitCode.ARTEFACT,
        )
    if candidate.manifest_sha256 in state.bad and not forgive:
        raise RunnerError(
            f"{candidate.release} was taken back here before; ship another build, or it again with --forgive",
            ExitCode.ARTEFACT,
        )


def take_lease(place: Place, shipper: str) -> None:
    """Raise if another host is uploading here.

    Raises:
        RunnerError: USAGE.
    """
    lease = place.incoming / "lease.json"
    holder = read_json(lease) if lease.is_file() else {}
    if not isinstance(holder, dict) or holder.get("shipper") in (None, shipper):
        return
    # By the device's own clock on both sides, which may stand in 1970 but runs.
    ages = [abs(time.time() - path.lstat().st_mtime) for path in (lease, *place.incoming.rglob("*"))]
    if min(ages) < LEASE_S:
        raise RunnerError(
            f"another host is shipping to {place.folder}: something arrived {min(ages):.0f} s ago; wait until it is done, or "
            f"{LEASE_S:g} s after its end",
            ExitCode.USAGE,
        )


def _clear_others(place: Place, kept: Path) -> None:
    for path in place.incoming.iterdir():
        if path != kept and path.is_dir() and not path.is_symlink():
            remove(path)


def _needed(candidate: Candidate, folder: Path) -> dict[str, int]:
    """Return the files that are not there as the manifest wants them; those that differ are removed."""
    needed = {}
    for name, (digest, size) in candidate.files.items():
        path = folder / name
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_size != size or sha256_file(path) != digest:
                path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(str(path))
        if not path.is_file():
            needed[name] = size
    return needed


def _left(path: Path, size: int) -> int:
    """Return how many bytes of a file have yet to arrive, beside what a broken upload has left."""
    with contextlib.suppress(OSError):
        return max(0, size - path.with_name(path.name + ".part").stat().st_size)
    return size
