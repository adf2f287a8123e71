"""A profile of a real board: what was read there, and for the rest the shipped profile whose kernels are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgetune.errors import TargetError
from edgetune.profile import Profile, nearest_profile
from edgetune.verify.knownbad import COMPATIBILITY, READS, reads

__all__ = ["profile_of"]

SCHEMA = 1


def profile_of(facts: Mapping[str, Any], name: str | None, where: str) -> Profile:
    """Return the profile of a board, with a source for every key.

    Args:
        facts: the board's environment.
        name: what to call it; None for a name made of the machine's model or its processor.
        where: the machine, in words.

    Raises:
        TargetError: no shipped profile is near, or its ONNX Runtime is too old to know what it reads.
    """
    basis = nearest_profile(facts, where)
    newest = reads(facts["onnxruntime"])
    if newest is None:
        raise TargetError(
            f"{where} has ONNX Runtime {facts['onnxruntime']}, which edgetune does not know; expected {READS[0][0]} or newer"
        )
    title = str(facts.get("machine_model") or facts["name"] or facts["architecture"])
    # What edgetune writes, as far as the board reads it.
    opset, ir = min(newest[0], basis.model.opset), min(newest[1], basis.model.ir_version)
    processor = {
        "architecture": facts["architecture"],
        "name": facts["name"],
        "cores": facts["cores"],
        "features": _relied_on(basis, facts),
        "absent": [flag for flag in basis.processor.absent if flag not in facts["features"]],
    }
    content = basis.model_dump(mode="json", by_alias=True)
    content |= {"schema": SCHEMA, "name": name or _slug(title), "title": title, "processor": processor, "budget": {}}
    content["model"] = {"opset": opset, "ir_version": ir}
    content["runtime"] |= {
        "intra_op_threads": min(basis.runtime.intra_op_threads, facts["cores"]),
        "min_onnxruntime": next(f"{first}.0" for first, most, most_ir in READS if most >= opset and most_ir >= ir),
    }
    content["sources"] = _sources(content, basis, facts)
    return Profile.model_validate(content, strict=False)


def _relied_on(basis: Profile, facts: Mapping[str, Any]) -> list[str]:
    """Return the flags that the quantization relies on, each as this board has it."""
    there = set(facts["features"])
    return [next(one for one in flag.split("|") if one in there) for flag in basis.processor.features]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "board"


def _sources(content: Mapping[str, Any], basis: Profile, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return a source for every key of every table."""
    read = f"measured by edgetune doctor on {content['title']} (Python {facts['python']}, ONNX Runtime {facts['onnxruntime']})"
    found = {"processor": read, "model": f"what edgetune writes, as far as this board reads it: {COMPATIBILITY}"}
    for table in ("runtime", "quantization", "tolerance"):
        source = basis.sources.get(table, "the default of every profile")
        found[table] = f"not read on the board: as in the profile {basis.name}, whose kernels this processor shares: {source}"
    for table in ("processor", "runtime", "quantization", "model", "tolerance"):
        shared = {"processor": "measured by edgetune doctor", "model": "as the source of model says"}
        for key in content[table]:
            own = basis.sources.get(f"{table}.{key}")
            found[f"{table}.{key}"] = shared.get(table) or f"as in {basis.name}" + (f": {own}" if own else "")
    found["runtime.min_onnxruntime"] = f"the first that reads this opset and IR version: {COMPATIBILITY}"
    cores = facts["cores"]
    found["runtime.intra_op_threads"] = f"as in {basis.name}, at most the {cores} cores of this board"
    return found
