"""Measuring models on this machine, and what is written about it.

`measurement.json`::

    {"schema": 1, "runner": "0.1.0",
     "environment": {…},             as `environment.environment` gives it, before
     "environment_after": {…},       as `environment.condition` gives it, after
     "models": {NAME: {
        "sha256": "…", "providers": ["…"], "classes": C,
        "eval": null | {"images": N, "seconds": s, "finite": bool, "constant": bool},
        "latency": null | {…},       as `latency.measure_latency` gives it
        "footprint": null | {…},     as `footprint.measure_footprint` gives it
        "throughput": null | {…}}},  as `throughput.measure_throughput` gives it
     "pairs": {…},                   only where asked for, as `pairs.measure_pairs` gives it
     "operators": {…},               only where asked for, as `operators.measure_operators` gives it
     "trials": {…},                  only where asked for, as `trials.measure_trials` gives it
     "golden": null | {…}}           as `golden.check_golden` gives it, and "model": NAME

`finite` is false where a logit is NaN or infinite; `constant` is true where two or more images all have the same logits. The
logits themselves are in `logits-NAME.npy`, float32 `[N, C]`, each row from a run at batch 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import RUNNER_VERSION
from .atomic import replacing, write_json
from .digest import sha256_file
from .environment import condition, environment
from .exitcodes import ExitCode, RunnerError
from .footprint import measure_footprint
from .golden import check_golden, golden_tensors
from .latency import measure_latency
from .operators import measure_operators
from .pairs import measure_pairs
from .request import ModelRequest, Request
from .session import image_shape, open_session
from .throughput import measure_throughput
from .trials import measure_trials

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Images = npt.NDArray[np.uint8]

MEASUREMENT = "measurement.json"


def measure(request: Request, out: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure what a request asks for.

    Args:
        request: what is wanted.
        out: the folder that receives `measurement.json` and the logits; None where no logits are wanted and nothing is to be
            written.
        say: told, in one line, what happens next.

    Returns:
        The content of `measurement.json`; its layout is this module's docstring.

    Raises:
        RunnerError: ARTEFACT: a model has another digest than the request says or cannot be used. DATA: the images do not fit
            the model. TARGET: the provider is not available, or a process died.
    """
    _check_digests(request)
    before = environment()
    # First what runs in processes of its own: if an instruction is illegal here, it is not this process that dies of it.
    parts: dict[str, dict[str, Any]] = {"footprint": _footprints(request, say)}
    sessions = {model.name: open_session(model.path, request.session) for model in request.models}
    classes = {name: _classes(session, name) for name, session in sessions.items()}
    images = _images(request, sessions)
    parts["eval"] = {}
    if request.images is not None and out is not None:
        for name, session in sessions.items():
            say(f"{name}: {len(images)} images")
            parts["eval"][name] = _evaluate(session, images, classes[name], out / f"logits-{name}.npy")
    if request.latency:
        say(f"latency: {request.latency.rounds} rounds of {request.latency.queries_per_round} queries")
        parts["latency"] = measure_latency(sessions, images, request.latency)
    parts["throughput"] = _throughputs(request, say)
    golden = _golden(request, sessions)
    compared = _compared(request, out, say)
    result = {"schema": 1, "runner": RUNNER_VERSION, "environment": before, "environment_after": condition()}
    result.update(models=_entries(request, sessions, classes, parts), golden=golden, **compared)
    if out is not None:
        write_json(out / MEASUREMENT, result)
    return result


def _compared(request: Request, out: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what is measured in fresh processes beside the figures of each model."""
    found: dict[str, Any] = {}
    paths = {model.name: model.path for model in request.models}
    if request.pairs:
        found["pairs"] = measure_pairs(request.pairs, paths, request.images, say)
    if request.operators and out is not None:
        name = request.operators.model
        say(f"{name}: operator by operator")
        optimised = out / f"optimised-{name}.onnx"
        found["operators"] = measure_operators(request.operators, paths[name], request.session, request.images, optimised)
    if request.trials:
        found["trials"] = measure_trials(request.trials, paths[request.trials.model], request.images, say)
    return found


def _entries(
    request: Request, sessions: dict[str, Any], classes: dict[str, int], parts: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return the entries of `models` in the file."""
    return {
        model.name: {
            "sha256": model.sha256,
            "providers": list(sessions[model.name].get_providers()),
            "classes": classes[model.name],
            **{part: parts.get(part, {}).get(model.name) for part in ("eval", "latency", "footprint", "throughput")},
        }
        for model in request.models
    }


def _footprints(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    found = {}
    for model in request.models if request.footprint else ():
        say(f"{model.name}: cold start and memory")
        found[model.name] = measure_footprint(model.path, request.session)
    return found


def _throughputs(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if request.throughput is None:
        return found
    for model in request.models:
        say(f"{model.name}: parallel streams")
        found[model.name] = measure_throughput(request.throughput, model.path, request.session, request.images)
    return found


def _check_digests(request: Request) -> None:
    faults = [fault for fault in map(_digest_fault, request.models) if fault]
    if faults:
        raise RunnerError("these are not the models to measure", ExitCode.ARTEFACT, tuple(faults))


def _digest_fault(model: ModelRequest) -> str:
    try:
        found = sha256_file(model.path)
    except OSError as fault:
        return f"{model.path} cannot be read ({fault.strerror})"
    return "" if found == model.sha256 else f"{model.path} has sha256 {found}, expected {model.sha256}"


def _images(request: Request, sessions: dict[str, Any]) -> Images:
    """Return the images to run: the eval pack as a memory map, else the golden ones, else none."""
    import numpy as np

    if request.images is not None:
        try:
            images: Images = np.load(str(request.images), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as fault:
            raise RunnerError(f"{request.images} cannot be read as an .npy file: {fault}", ExitCode.DATA) from None
        images = images[: request.limit]
    elif request.golden is not None:
        images = golden_tensors(request.golden)
    else:
        return np.zeros((0, 0, 0, 0), dtype=np.uint8)
    for name, session in sessions.items():
        shape = image_shape(session)
        if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) == 0:
            expected = ", ".join(map(str, shape))
            raise RunnerError(
                f"images: got {images.dtype} {list(images.shape)}, expected uint8 [N, {expected}] for {name}",
                ExitCode.DATA,
            )
    return images


def _classes(session: Any, name: str) -> int:
    import numpy as np

    logits = session.run(["logits"], {"image": np.zeros((1, *image_shape(session)), dtype=np.uint8)})[0]
    if logits.ndim != 2 or len(logits) != 1:
        raise RunnerError(f"{name}: got logits {list(logits.shape)} of one image, expected [1, C]", ExitCode.ARTEFACT)
    return int(logits.shape[1])


def _evaluate(session: Any, images: Images, classes: int, path: Path) -> dict[str, Any]:
    """Write the logits of all images and return what `eval` says of them."""
    import numpy as np

    begin = time.perf_counter()
    finite, constant, first = True, len(images) > 1, None
    with replacing(path) as temporary:
        # Straight into a file: memory must not grow with the number of images.
        logits = np.lib.format.open_memmap(str(temporary), mode="w+", dtype=np.float32, shape=(len(images), classes))
        for index in range(len(images)):
            row = session.run(["logits"], {"image": np.array(images[index : index + 1])})[0][0]
            logits[index] = row
            first = row if first is None else first
            finite = finite and bool(np.isfinite(row).all())
            constant = constant and bool(np.array_equal(row, first))
        logits.flush()
        del logits
    return {"images": len(images), "seconds": round(time.perf_counter() - begin, 3), "finite": finite, "constant": constant}


def _golden(request: Request, sessions: dict[str, Any]) -> dict[str, Any] | None:
    if request.golden is None:
        return None
    session = sessions[request.golden_model]
    return {"model": request.golden_model, **check_golden(session, request.golden, request.preprocessing)}
