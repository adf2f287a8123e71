"""Does a release answer here as it did where it was built? Asked in a process of its own, which may die or hang."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bundle import ShippedModel, read_bundle
from ..check import broken_golden
from ..exitcodes import ExitCode, RunnerError
from ..footprint import death, own_command, own_environment
from ..golden import check_golden, golden_tensors
from ..latency import LatencyPlan, measure_latency
from ..session import open_session

PLAN = LatencyPlan(warmup=4, rounds=4, queries_per_round=16)
MOST_WORDS = 1 << 16
ATTEMPTS = 3
"""A budget counts as missed only if it is missed so often in a row: other work on the device is no fault of the release."""


def prove(folder: Path, seconds: float) -> dict[str, Any]:
    """Run the golden images of a bundle, and time it where it has a budget, in a child process.

    Args:
        folder: the bundle, or a link to it.
        seconds: after so many the child is killed.

    Returns:
        `model_sha256` (of the file that was loaded), `images`, `logits_max_abs`, `latency_p90_ms` (None without a budget).

    Raises:
        RunnerError: BROKEN: it answers otherwise, or too slowly. TARGET: the child died or hung. Else what it ran into.
    """
    done = limited([*own_command(), "install", "_prove", str(folder)], seconds, own_environment())
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 0:
        return dict(json.loads(done.stdout.decode("utf-8")))
    if done.returncode < 0:
        raise RunnerError(f"the golden images: their process died by {death(-done.returncode)}", ExitCode.TARGET)
    known = {int(code) for code in ExitCode}
    code = ExitCode(done.returncode) if done.returncode in known else ExitCode.UNFORESEEN
    raise RunnerError(words[-1] if words else "the golden images: their process said nothing", code)


def limited(
    command: Sequence[str], seconds: float, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command and kill it when its time is over; what it leaves running on purpose is not waited for.

    Raises:
        RunnerError: TARGET: it cannot be started, or did not end in time.
        OSError: there is no room for what it says.
    """
    # Files, not pipes: a daemon that a hook starts would hold a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            code = subprocess.run(
                list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, timeout=seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise RunnerError(f"{' '.join(command[:4])} … did not end within {seconds:g} s", ExitCode.TARGET) from None
        except OSError as fault:
            raise RunnerError(f"{command[0]} cannot be started: {fault.strerror}", ExitCode.TARGET) from None
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(list(command), code, out.read(MOST_WORDS), err.read(MOST_WORDS))


def prove_here(folder: Path) -> dict[str, Any]:
    """Prove a bundle in this process; `prove` calls it in another one, and returns what this does.

    Raises:
        RunnerError: BROKEN, with all that is; or as `read_bundle`, `open_session` and `check_golden`.
    """
    shipped = read_bundle(folder)
    session = open_session(shipped.path, shipped.session)
    golden = check_golden(session, shipped.golden, shipped.preprocessing)
    broken, p90 = broken_golden(golden, shipped), None
    budget = _budget(shipped)
    if budget is not None and not broken:
        p90 = _latency(session, shipped, budget)
        if p90 > budget:
            broken.append(f"latency: p90 {p90:.3f} ms, the budget is {budget:g} ms")
    if broken:
        raise RunnerError(f"{shipped.folder.resolve().name} does not answer as it was built to", ExitCode.BROKEN, tuple(broken))
    return {
        "model_sha256": shipped.sha256,
        "images": golden["images"],
        "logits_max_abs": golden["logits"]["max_abs"],
        "latency_p90_ms": p90,
    }


def _budget(shipped: ShippedModel) -> float | None:
    limits = shipped.manifest.get("limits")
    budget = limits.get("latency_p90_ms") if isinstance(limits, dict) else None
    return float(budget) if isinstance(budget, (int, float)) else None


def _latency(session: Any, shipped: ShippedModel, budget: float) -> float:
    p90 = float("inf")
    for _ in range(ATTEMPTS):
        p90 = min(p90, measure_latency({"it": session}, golden_tensors(shipped.golden), PLAN)["it"]["p90_ms"])
        if p90 <= budget:
            break
    return p90
