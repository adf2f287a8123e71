"""The session options that are worth trying on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.device.session import DEFAULTS

__all__ = ["Candidate", "candidates", "in_words"]

SPINNING = "session.intra_op.allow_spinning"
"""Whether threads that wait for the next operator burn their core meanwhile; ONNX Runtime's default is that they do."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Options to try.

    Attributes:
        words: what distinguishes them, for a person.
        options: all of them, as a bundle carries them.
    """

    words: str
    options: dict[str, Any]


def candidates(present: Mapping[str, Any], cores: int) -> tuple[Candidate, ...]:
    """Return all combinations of threads, spinning and memory arena but the present one.

    Threads are the powers of two up to the number of cores, that number itself, and the present one. The level of graph
    rewriting and the order of execution stay: golden logits depend on the former, and a chain of layers gains nothing by the
    latter.

    Args:
        present: the options of the bundle, as the device can honour them.
        cores: of the device.
    """
    threads = {1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores}
    threads.add(int({**DEFAULTS, **present}["intra_op_threads"]))
    found = []
    for count in sorted(threads):
        # A single thread waits for nobody.
        for spinning in (True, False) if count > 1 else (True,):
            for arena in (True, False):
                options = _options(present, count, spinning=spinning, arena=arena)
                if _meaning(options) != _meaning(present):
                    found.append(Candidate(words=in_words(options), options=options))
    return tuple(found)


def _options(present: Mapping[str, Any], threads: int, *, spinning: bool, arena: bool) -> dict[str, Any]:
    config = {key: text for key, text in present.get("config", {}).items() if key != SPINNING}
    rest = {key: value for key, value in present.items() if key != "memory_arena"}
    return {
        **rest,
        "intra_op_threads": threads,
        **({} if arena else {"memory_arena": False}),
        "config": config if spinning else {**config, SPINNING: "0"},
    }


def _meaning(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with all defaults, and without what has no effect, to compare them."""
    whole = {**DEFAULTS, **options}
    config = dict(whole["config"])
    spins = config.pop(SPINNING, "1") != "0" or whole["intra_op_threads"] == 1
    return {**whole, "config": config, "spins": spins}


def in_words(options: Mapping[str, Any]) -> str:
    """Return threads, spinning and memory arena: `2 threads, no spinning, no arena`."""
    whole = {**DEFAULTS, **options}
    count = whole["intra_op_threads"]
    parts = [f"{count} thread" + ("s" if count > 1 else "")]
    if count > 1:
        parts.append("spinning" if _meaning(options)["spins"] else "no spinning")
    return ", ".join([*parts, "arena" if whole["memory_arena"] else "no arena"])
