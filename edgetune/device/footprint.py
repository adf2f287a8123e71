"""Cold start and memory of one model, measured in a fresh process that does nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .exitcodes import ExitCode, RunnerError
from .session import image_shape, open_session

INFERENCES = 8
DEADLINE_S = 600.0
DEATHS = {
    "SIGILL": "illegal instruction: onnxruntime uses an instruction that this processor does not have",
    "SIGKILL": "killed from outside, most likely because the memory ran out",
    "SIGSEGV": "a memory fault inside onnxruntime",
    "SIGBUS": "a bus error: a file was cut short while it was mapped, or memory is misaligned or faulty",
    "SIGABRT": "onnxruntime gave up",
}


def measure_footprint(model_path: Path, options: Mapping[str, Any], deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """Return what a model costs a process that has just started.

    The libraries are imported before anything is measured: what is reported is the model alone.

    Args:
        model_path: the ONNX file.
        options: for `open_session`.
        deadline_s: after so many seconds the child counts as hung and is killed.

    Returns:
        `cold_start_ms` (opening the session), `first_inference_ms`, and `peak_memory_bytes`: the highest resident memory up to
        the end of the eighth inference less that before the model was opened; None where /proc does not tell.

    Raises:
        RunnerError: TARGET: the child died by a signal or hung. Else what the child itself ran into, with its exit code.
    """
    return dict(run_child(model_path, ["_footprint", str(model_path), json.dumps(dict(options))], deadline_s))


def run_child(model_path: Path, arguments: Sequence[str], deadline_s: float = DEADLINE_S) -> Any:
    """Return the JSON that this package writes to stdout when it is started again in a fresh process.

    Args:
        model_path: of the model that the process works on, for what is said of its end.
        arguments: the command and what it needs.
        deadline_s: after so many seconds the child counts as hung and is killed.

    Raises:
        RunnerError: TARGET: the child died by a signal or hung. Else what the child itself ran into, with its exit code.
    """
    command = [*own_command(), *arguments]
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=own_environment(), timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunnerError(
            f"{model_path}: the process that opens it did not end within {deadline_s:g} s", ExitCode.TARGET
        ) from None
    if child.returncode == 0:
        return json.loads(child.stdout.decode("utf-8"))
    raise child_fault(model_path, child.returncode, child.stderr)


def child_fault(model_path: Path, returncode: int, stderr: bytes) -> RunnerError:
    """Return the error that stands for how a process of ours with one model ended.

    Args:
        model_path: of the model.
        returncode: as `subprocess` gives it: negative for a signal.
        stderr: what the process wrote there; its last line is the explanation.
    """
    if returncode < 0:
        return RunnerError(f"{model_path}: the process that opens it died by {death(-returncode)}", ExitCode.TARGET)
    words = stderr.decode("utf-8", "replace").strip().splitlines()
    codes = {int(code) for code in ExitCode}
    code = ExitCode(returncode) if returncode in codes - {0} else ExitCode.UNFORESEEN
    return RunnerError(words[-1] if words else f"{model_path}: the process that opens it said nothing", code)


def death(number: int) -> str:
    """Return a signal's name and what it most likely means here."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} ({DEATHS[name]})" if name in DEATHS else name


def footprint_here(model_path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the footprint of a model in this process; `measure_footprint` calls it in a fresh one.

    Raises:
        RunnerError: as `open_session`.
    """
    import numpy as np
    import onnxruntime  # noqa: F401 - its import is not the model's cost

    _reset_peak()
    before = _status_bytes("VmRSS")
    begin = time.perf_counter_ns()
    session = open_session(model_path, options)
    opened = time.perf_counter_ns()
    feed = {"image": np.zeros((1, *image_shape(session)), dtype=np.uint8)}
    begin_first = time.perf_counter_ns()
    session.run(["logits"], feed)
    first = time.perf_counter_ns()
    for _ in range(INFERENCES - 1):
        session.run(["logits"], feed)
    peak = _status_bytes("VmHWM")
    return {
        "cold_start_ms": round((opened - begin) / 1e6, 3),
        "first_inference_ms": round((first - begin_first) / 1e6, 3),
        "peak_memory_bytes": None if before is None or peak is None else max(peak - before, 0),
    }


def _reset_peak() -> None:
    # Importing may have peaked higher than it stayed; writing 5 sets the peak to what is resident now (man 5 proc).
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _status_bytes(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def own_command() -> list[str]:
    """Return how to start this package again: the zipapp that it runs from, or the package by name."""
    archive = getattr(globals().get("__loader__"), "archive", None)
    return [sys.executable, archive] if archive else [sys.executable, "-m", str(__package__)]


def own_environment() -> dict[str, str]:
    """Return the environment in which the package is found by name, wherever this process found it."""
    root = Path(__file__).resolve().parents[str(__package__).count(".") + 1]
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": str(root) + (os.pathsep + known if known else "")}
