"""Before anything is placed: is there room, is the filesystem fit for it, and is this the machine that it was built for?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ..environment import processor_facts
from ..exitcodes import ExitCode, RunnerError
from .candidate import Candidate
from .place import Place
from .settings import Settings

VOLATILE = ("tmpfs", "ramfs", "rootfs")
SPARE_INODES = 16
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn")


def check_folder(place: Place, settings: Settings) -> None:
    """Return if releases can be kept in a folder: it can be written and has links, and outlives the power.

    Raises:
        RunnerError: TARGET, with every fault.
    """
    faults = list(_folder_faults(place, settings))
    if faults:
        raise RunnerError(f"{place.folder} cannot hold releases", ExitCode.TARGET, tuple(faults))


def check_room(place: Place, settings: Settings, missing_bytes: int, missing_files: int) -> None:
    """Return if there is room for what has yet to arrive, beside the releases that are kept.

    Raises:
        RunnerError: TARGET, with what is lacking.
    """
    facts = os.statvfs(str(place.folder))
    free, needed, faults = facts.f_bavail * facts.f_frsize, missing_bytes + settings.margin_bytes, []
    if free < needed:
        faults.append(f"no space left: {needed} bytes are needed, {free} are free")
    # Filesystems without a fixed number of inodes say 0.
    if facts.f_files and facts.f_favail < missing_files + SPARE_INODES:
        faults.append(f"no inodes left: {missing_files + SPARE_INODES} are needed, {facts.f_favail} are free")
    if faults:
        raise RunnerError(f"{place.folder} has no room for this release; free some", ExitCode.TARGET, tuple(faults))


def check_machine(candidate: Candidate) -> None:
    """Return if this machine is what the release was built for.

    Raises:
        RunnerError: TARGET, with every difference.
    """
    profile = candidate.manifest.get("profile")
    faults = list(_machine_faults(profile)) if isinstance(profile, dict) else ["the manifest does not say its profile"]
    if faults:
        raise RunnerError("the release was built for another machine", ExitCode.TARGET, tuple(faults))


def _folder_faults(place: Place, settings: Settings) -> Iterator[str]:
    kind = filesystem(place.folder)
    if kind in VOLATILE and not settings.allow_volatile:
        yield f"it lies in memory ({kind}) and is gone with the power"
    if os.statvfs(str(place.folder)).f_flag & os.ST_RDONLY:
        yield "its filesystem is read-only"
        return
    probe = place.folder / ".probe"
    with contextlib.suppress(FileNotFoundError):
        probe.unlink()
    try:
        probe.symlink_to("releases")
        probe.unlink()
    except OSError as fault:
        yield f"no symbolic link can be made: {fault.strerror}"


def filesystem(path: Path) -> str:
    """Return the type of the filesystem that a path lies in; empty where /proc does not tell."""
    best, kind = "", ""
    real = os.path.realpath(str(path)) + "/"
    try:
        rows = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for row in rows:
        left, _, right = row.partition(" - ")
        mounted = left.split()[4].replace("\\040", " ")
        if real.startswith(mounted.rstrip("/") + "/") and len(mounted) >= len(best):
            best, kind = mounted, right.split()[0]
    return kind


def _machine_faults(profile: dict[str, Any]) -> Iterator[str]:
    here = processor_facts()
    if profile.get("architecture") not in (here["architecture"], "any"):
        yield f"processor: this is {here['architecture']}, it is for {profile.get('architecture')}"
    elif here["features"]:
        yield from (f"processor: lacks {name}" for name in profile.get("features", ()) if name not in here["features"])
        yield from (
            f"processor: has {name}, it is for one without" for name in profile.get("absent", ()) if name in here["features"]
        )
    least, found = str(profile.get("min_onnxruntime", "0")), onnxruntime_version()
    if found is None:
        yield f"onnxruntime is missing; install {least} or newer"
    elif _numbers(found) < _numbers(least):
        yield f"onnxruntime is {found}, {least} or newer is needed"


def onnxruntime_version() -> str | None:
    """Return the version of the ONNX Runtime here, without loading it where that can be known; None if there is none."""
    for name in RUNTIMES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    try:
        import onnxruntime
    except ImportError:
        return None
    return str(onnxruntime.__version__)


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = "".join(letter for letter in part if letter.isdigit())
        numbers.append(int(digits) if digits else 0)
    return tuple(numbers[:3])
