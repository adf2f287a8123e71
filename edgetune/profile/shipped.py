"""The shipped profiles, a file of one's own, and the profile that suits this machine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.device.environment import processor_facts
from edgetune.errors import Fault, ProfileError, TargetError
from edgetune.profile.matching import lacking
from edgetune.profile.values import HostRules, Profile
from edgetune.schema import read_toml, validate

__all__ = ["available_profiles", "load_profile", "nearest_profile", "profiles_folder"]


def profiles_folder() -> Path:
    """Return the folder of the shipped profiles: inside the installed package, else at the root of the checkout."""
    package = Path(__file__).parent.parent
    inside = package / "profiles"
    return inside if inside.is_dir() else package.parent / "profiles"


def available_profiles() -> tuple[str, ...]:
    """Return the names of the shipped profiles, sorted."""
    return tuple(sorted(path.stem for path in profiles_folder().glob("*.toml")))


def load_profile(target: str) -> Profile:
    """Return the profile that `target` names: a shipped name, or the path of a TOML file.

    Raises:
        ProfileError: no such profile, or a file with faults: all of them.
        TargetError: `host`, on a machine that no rule describes.
    """
    if target.endswith(".toml"):
        path = Path(target).expanduser()
        return validate(Profile, read_toml(path, ProfileError), str(path), ProfileError)
    if target == "host":
        return _detect_host()
    known = available_profiles()
    if target not in known:
        near = difflib.get_close_matches(target, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        expected = f"one of {', '.join(known)}"
        fault = Fault(where="target", problem="unknown profile", got=repr(target), expected=expected, hint=hint)
        raise ProfileError("the target is not known", faults=[fault], remedy="see `edgetune profiles`, or give a .toml file")
    path = profiles_folder() / f"{target}.toml"
    return validate(Profile, read_toml(path, ProfileError), f"profiles/{path.name}", ProfileError)


def _detect_host() -> Profile:
    facts = processor_facts()
    basis = nearest_profile(facts, "this machine")
    cores = int(facts["cores"])
    return basis.model_copy(
        update={
            "name": "host",
            "title": f"this machine ({facts['name'] or facts['architecture']}, facts of {basis.name})",
            "processor": basis.processor.model_copy(update={"name": facts["name"], "cores": cores}),
            "runtime": basis.runtime.model_copy(update={"intra_op_threads": min(cores, basis.runtime.intra_op_threads)}),
            "sources": {**basis.sources, "processor": "read from this machine"},
        }
    )


def nearest_profile(facts: Mapping[str, Any], where: str) -> Profile:
    """Return the shipped profile whose quantization suits a processor, by the rules of `host.toml`.

    Args:
        facts: of the processor, as `edgetune.device.environment` reads them.
        where: the machine, in words.

    Raises:
        TargetError: no rule describes it.
    """
    path = profiles_folder() / "host.toml"
    rules = validate(HostRules, read_toml(path, ProfileError), "profiles/host.toml", ProfileError)
    for rule in rules.detect:
        if rule.architecture == facts["architecture"] and not lacking(rule.features, facts["features"]):
            return load_profile(rule.use)
    raise TargetError(
        f"no rule of profiles/host.toml describes {where}: {facts['architecture']}, {' '.join(facts['features'][:8])}…",
        remedy="name a profile with --target, or write one",
    )
