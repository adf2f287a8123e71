"""The best session options kept: proven on the golden images first, then written into a bundle or a profile."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgetune.device.bundle import read_bundle
from edgetune.device.check import broken_golden
from edgetune.errors import ProfileError, TargetError, UsageError
from edgetune.files import digest_of, write_atomic
from edgetune.gate.sides import Side
from edgetune.profile import Profile, available_profiles, load_profile
from edgetune.progress import Progress
from edgetune.release.tuned import refuse_to_write, write_session
from edgetune.tuning.asking import meet, request_for
from edgetune.tuning.trials import Trial, Tuned
from edgetune.verify.newprofile import profile_of

__all__ = ["bundle_of", "into_bundle", "into_profile"]


def bundle_of(side: Side, output: Path | None) -> Path:
    """Return the bundle of a model, if its session options may be changed: asked before anything is measured.

    Raises:
        UsageError: the model is a bare file; or as `release.tuned.refuse_to_write`.
    """
    if not side.manifest:
        raise UsageError(
            f"{side.shown.given} is no bundle, so that nothing carries its session options", remedy="--profile-out"
        )
    refuse_to_write(side.path.parent, output)
    return side.path.parent


def into_bundle(side: Side, tuned: Tuned, address: str, progress: Progress, output: Path | None) -> Path:
    """Prove the best options on the device, write them into the bundle, and return the one that has them.

    Raises:
        TargetError: the golden images are not decided there as they must be.
        UsageError: as `bundle_of`.
    """
    bundle, best = bundle_of(side, output), _kept(tuned)
    with tempfile.TemporaryDirectory(prefix="edgetune-tune-") as scratch:
        device = meet(side, address, Path(scratch), progress)
        golden = {"golden": bundle / "golden", "preprocessing": side.preprocessing}
        raw, _ = device.measured(request_for(device, side, session=dict(best.options), **golden))
    if broken := broken_golden(raw["golden"], read_bundle(bundle)):
        raise TargetError(
            f"with {best.words} the golden images come out otherwise: {'; '.join(broken)}", remedy="keep the present options"
        )
    return write_session(bundle, best.options, _record(tuned, best), output)


def _kept(tuned: Tuned) -> Trial:
    if tuned.kept is None:
        raise ValueError("there is nothing better to keep")
    return tuned.kept


def _record(tuned: Tuned, best: Trial) -> dict[str, Any]:
    facts, found = tuned.environment, best.to_json()
    figures = ("change_percent", "low_percent", "high_percent", "pairs")
    return {
        "measured_on": tuned.where,
        "architecture": facts["architecture"],
        "processor": facts.get("name"),
        "cores": facts["cores"],
        "onnxruntime": facts["onnxruntime"],
        "quick": tuned.quick,
        "lowered": list(tuned.lowered),
        # Present options that are kept were compared with themselves: their figures say nothing of what changes.
        **{key: found[key] if tuned.best else None for key in figures},
    }


def into_profile(side: Side, tuned: Tuned, path: Path) -> Profile:
    """Write a profile with the best options, or with the present ones where they stay, and return it.

    It is the shipped profile that the bundle was built for, if it still is the same; else one of the device itself.

    Raises:
        UsageError: the file's name does not end in .toml.
        TargetError: no shipped profile is near the device.
    """
    from edgetune.schema import to_toml

    options = tuned.present if tuned.best is None else tuned.best.options
    basis = _basis(side) or profile_of(tuned.environment, None, tuned.where)
    kept = {key: options[key] for key in ("intra_op_threads", "memory_arena") if key in options}
    content = basis.model_dump(mode="json", by_alias=True, exclude_none=True)
    content["runtime"] |= {"memory_arena": True, **kept, "config": dict(options.get("config", {}))}
    pairs = max((trial.shift.pairs for trial in tuned.trials), default=0)
    source = f"searched by edgetune tune on {tuned.where}, {pairs} pairs of processes"
    content["sources"] |= {f"runtime.{key}": source for key in ("intra_op_threads", "memory_arena", "config")}
    profile = Profile.model_validate(content, strict=False)
    write_atomic(path, to_toml(profile.model_dump(mode="json", by_alias=True, exclude_none=True)).encode())
    return profile


def _basis(side: Side) -> Profile | None:
    """Return the shipped profile that a bundle was built for; None if there is none with these very facts."""
    promised = side.manifest.get("profile", {})
    if promised.get("name") not in available_profiles() or promised["name"] == "host":
        return None
    try:
        found = load_profile(promised["name"])
    except (ProfileError, TargetError):
        return None
    return found if digest_of(found.model_dump(mode="json", by_alias=True)) == promised.get("digest") else None
