"""How a runner ended, and whether what it left is an answer: the same on every kind of target."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from edgetune.errors import ArtefactError, DataError, EdgetuneError, ExitCode, Fault, Interrupted, TargetError, UsageError
from edgetune.verify.targets.interface import Request

__all__ = ["ending", "read_answer"]

DEATHS: dict[int, str] = {
    signal.SIGILL: "it met an instruction that this processor does not have; ONNX Runtime chose a kernel for another one",
    signal.SIGKILL: "it was killed from outside, most likely because the memory ran out",
    signal.SIGSEGV: "ONNX Runtime read memory that is not its own",
    signal.SIGABRT: "ONNX Runtime gave up",
    signal.SIGBUS: "a file that it read was cut short, or the memory is faulty",
}
NO_MEMORY = ("Failed to allocate memory", "std::bad_alloc", "MemoryError")
"""What ONNX Runtime, C++ and Python say where the kernel refuses memory at once, instead of killing later."""
KINDS: dict[int, type[EdgetuneError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.TARGET: TargetError,
    ExitCode.ARTEFACT: ArtefactError,
    ExitCode.DATA: DataError,
    ExitCode.INTERRUPTED: Interrupted,
}


def ending(returncode: int, stderr: str, where: str, *, out_of_memory: bool = False) -> EdgetuneError | None:
    """Return the error that stands for how a runner ended, or None if it ended well.

    Args:
        returncode: as `subprocess` gives it: negative for a signal.
        stderr: what the runner wrote there; it ends with the runner's own explanation.
        where: the machine, in words.
        out_of_memory: whether the machine killed a process for memory meanwhile.
    """
    if returncode == ExitCode.OK:
        return None
    said = _explanation(stderr)
    killed = out_of_memory and returncode in (-signal.SIGKILL, ExitCode.TARGET)
    if killed or any(words in said for words in NO_MEMORY):
        how = "killed for memory" if killed else "out of memory"
        return TargetError(
            f"{how}: {where} has too little of it for what it was to measure",
            remedy="choose a smaller backbone or data.image_size, or free memory there"
            + (f"; its last words: {said}" if said else ""),
        )
    if returncode < 0:
        known = -returncode in set(signal.Signals)
        name = signal.Signals(-returncode).name if known else f"signal {-returncode}"
        cause = DEATHS.get(-returncode)
        message = f"the runner on {where} died by {name}" + (f": {cause}" if cause else "")
        return TargetError(message, remedy=f"its last words: {said}" if said else "")
    message = (
        f"the runner on {where} says: {said}"
        if said
        else f"the runner on {where} ended with exit code {returncode}, saying nothing"
    )
    return KINDS.get(returncode, TargetError)(message)


def _explanation(stderr: str) -> str:
    """Return the last thing said: a line that is not indented and the faults indented below it, not the news before it."""
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if not line[0].isspace()]
    return "\n".join(lines[starts[-1] :]) if starts else "\n".join(lines)


def read_answer(folder: Path, request: Request) -> dict[str, Any]:
    """Return the content of `measurement.json`, checked against what was asked for.

    Raises:
        ArtefactError: a file is missing or not what a runner writes for this request, with every fault.
    """
    path = folder / "measurement.json"
    try:
        answer = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtefactError("the runner ended well but left no measurement.json") from None
    except ValueError as fault:
        raise ArtefactError(f"measurement.json of the runner is not JSON: {fault}") from fault
    if not isinstance(answer, dict) or answer.get("schema") != 1:
        got = answer.get("schema") if isinstance(answer, dict) else type(answer).__name__
        raise ArtefactError(f"measurement.json of the runner has schema {got!r}; this edgetune knows schema 1")
    faults = [fault for model in request.models for fault in _model_faults(answer, model.name, model.sha256, request, folder)]
    faults += [
        Fault(where=key, problem="is missing", expected="an object")
        for key in ("environment", "environment_after")
        if not isinstance(answer.get(key), dict)
    ]
    if request.golden and not isinstance(answer.get("golden"), dict):
        faults.append(Fault(where="golden", problem="is missing, though golden images were to be checked"))
    if request.pairs and len((answer.get("pairs") or {}).get("pairs", ())) != request.pairs.pairs:
        faults.append(Fault(where="pairs", problem=f"are missing, though {request.pairs.pairs} were asked for"))
    if request.trials and len((answer.get("trials") or {}).get("rounds", ())) != request.trials.rounds:
        faults.append(Fault(where="trials", problem=f"are missing, though {request.trials.rounds} rounds were asked for"))
    if request.operators and not isinstance(answer.get("operators"), dict):
        faults.append(Fault(where="operators", problem="are missing, though they were asked for"))
    if request.operators and not (folder / f"optimised-{request.operators.model}.onnx").is_file():
        faults.append(Fault(where="optimised model", problem="is missing, though operators were to be profiled"))
    if faults:
        raise ArtefactError("measurement.json of the runner is not an answer to the request", faults=faults)
    return answer


def _model_faults(answer: dict[str, Any], name: str, sha256: str, request: Request, folder: Path) -> list[Fault]:
    where = f"models.{name}"
    models = answer.get("models")
    model = models.get(name) if isinstance(models, dict) else None
    if not isinstance(model, dict):
        return [Fault(where=where, problem="is missing")]
    faults = []
    if model.get("sha256") != sha256:
        faults.append(
            Fault(where=f"{where}.sha256", problem="another file was measured", got=str(model.get("sha256")), expected=sha256)
        )
    asked: dict[str, object] = {name: getattr(request, name) for name in ("eval", "latency", "throughput")}
    asked["footprint"] = request.footprint or None
    faults += [
        Fault(where=f"{where}.{key}", problem="was asked for and is missing")
        for key, wanted in asked.items()
        if wanted is not None and not isinstance(model.get(key), dict)
    ]
    if request.eval and not faults:
        faults += _logits_faults(folder / f"logits-{name}.npy", int(model["eval"]["images"]), int(model["classes"]))
    return faults


def _logits_faults(path: Path, images: int, classes: int) -> list[Fault]:
    import numpy as np

    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as fault:
        return [Fault(where=path.name, problem=f"cannot be read: {fault}")]
    if logits.shape == (images, classes) and logits.dtype == np.float32:
        return []
    got = f"{logits.dtype} {logits.shape}"
    return [Fault(where=path.name, problem="has another shape or type", got=got, expected=f"float32 {(images, classes)}")]
