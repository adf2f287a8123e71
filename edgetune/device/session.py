"""Opening ONNX Runtime exactly as the bundle says, and the check that the model keeps the contract."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .exitcodes import ExitCode, RunnerError

GRAPH_OPTIMIZATIONS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
EXECUTION_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
DEFAULTS: dict[str, Any] = {
    "providers": ["CPUExecutionProvider"],
    "graph_optimization": "all",
    "intra_op_threads": 1,
    "inter_op_threads": 1,
    "execution_mode": "sequential",
    "memory_arena": True,
    "config": {},
}
ERRORS_ONLY = 3
"""The level of ONNX Runtime's logging below which nothing is printed."""
MAX_REASON = 600
_ORIGIN = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed: ?)?|\S*\.(?:cc|cpp|h):\d+ [^()]*\([^()]*\)(?: const)? "
)

_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "providers": (
        lambda v: isinstance(v, list) and bool(v) and all(isinstance(name, str) for name in v),
        "a list of names, not empty",
    ),
    "graph_optimization": (lambda v: v in list(GRAPH_OPTIMIZATIONS), f"one of {', '.join(GRAPH_OPTIMIZATIONS)}"),
    "intra_op_threads": (lambda v: type(v) is int and 1 <= v <= 256, "a number from 1 to 256"),
    "inter_op_threads": (lambda v: type(v) is int and 1 <= v <= 256, "a number from 1 to 256"),
    "execution_mode": (lambda v: v in list(EXECUTION_MODES), f"one of {', '.join(EXECUTION_MODES)}"),
    "memory_arena": (lambda v: type(v) is bool, "true or false"),
    "config": (
        lambda v: isinstance(v, dict) and all(isinstance(key, str) and isinstance(text, str) for key, text in v.items()),
        "a table of texts",
    ),
}


def options_faults(options: Any) -> list[str]:
    """Return what is wrong with a table of session options, one sentence each; empty when it can be used."""
    if not isinstance(options, Mapping):
        return [f"session: got {type(options).__name__}, expected a table"]
    faults = [f"session.{key}: is not known; expected {', '.join(_CHECKS)}" for key in options if key not in _CHECKS]
    for key, (holds, expected) in _CHECKS.items():
        if key in options and not holds(options[key]):
            faults.append(f"session.{key}: got {options[key]!r}, expected {expected}")
    return faults


def open_session(model_path: Path | str, options: Mapping[str, Any], prepare: Callable[[Any], None] | None = None) -> Any:
    """Return an `onnxruntime.InferenceSession` on a model that keeps the contract, with the provider that was asked for.

    Args:
        model_path: the ONNX file.
        options: `providers`, `graph_optimization`, `intra_op_threads`, `inter_op_threads`, `execution_mode`, `memory_arena`
            (whether the CPU provider keeps memory that it has once asked for), `config`; a key that is left out has the value
            in `DEFAULTS`.
        prepare: called with the `onnxruntime.SessionOptions` that follow from them, to add what no bundle carries: profiling.

    Raises:
        RunnerError: USAGE: an option that is not known or cannot be. TARGET: onnxruntime is not installed, or the first
            provider was not obtained. ARTEFACT: the model cannot be loaded, or does not keep the contract.
    """
    faults = options_faults(options)
    if faults:
        raise RunnerError("the session options cannot be honoured", ExitCode.USAGE, tuple(faults))
    wanted = {**DEFAULTS, **options}
    onnxruntime = _onnxruntime()
    available = onnxruntime.get_available_providers()
    providers = [name for name in wanted["providers"] if name in available]
    if wanted["providers"][0] not in available:
        raise _not_obtained(wanted["providers"][0], "nothing", available)
    session = _create(onnxruntime, Path(model_path), wanted, providers, prepare)
    obtained = session.get_providers()
    if obtained[0] != wanted["providers"][0]:
        # The library of an accelerator may be installed and its driver missing: ONNX Runtime then falls back to the CPU.
        raise _not_obtained(wanted["providers"][0], obtained[0], available)
    check_contract(session, str(model_path))
    return session


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as missing:
        raise RunnerError(
            f"onnxruntime cannot be imported: {missing}; try: pip install onnxruntime numpy", ExitCode.TARGET
        ) from None
    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    return onnxruntime


def _not_obtained(asked: str, got: str, available: list[str]) -> RunnerError:
    return RunnerError(
        f"execution provider: asked for {asked}, got {got}; available here: {', '.join(available)}; install the onnxruntime "
        "package that has it and its driver, or build for another target",
        ExitCode.TARGET,
    )


def _create(
    onnxruntime: Any,
    path: Path,
    wanted: Mapping[str, Any],
    providers: list[str],
    prepare: Callable[[Any], None] | None,
) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = ERRORS_ONLY
    settings.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, GRAPH_OPTIMIZATIONS[wanted["graph_optimization"]]
    )
    settings.execution_mode = getattr(onnxruntime.ExecutionMode, EXECUTION_MODES[wanted["execution_mode"]])
    settings.intra_op_num_threads = wanted["intra_op_threads"]
    settings.inter_op_num_threads = wanted["inter_op_threads"]
    settings.enable_cpu_mem_arena = wanted["memory_arena"]
    if prepare:
        prepare(settings)
    try:
        for key, value in sorted(wanted["config"].items()):
            settings.add_session_config_entry(key, value)
    except Exception as fault:
        raise RunnerError(f"session.config: {one_line(fault)}", ExitCode.USAGE) from None
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)
    except Exception as fault:
        # ONNX Runtime's own exceptions have no common root but Exception.
        raise RunnerError(
            f"{path} cannot be opened by ONNX Runtime {onnxruntime.__version__}: {one_line(fault)}", ExitCode.ARTEFACT
        ) from None


def check_contract(session: Any, name: str) -> None:
    """Raise unless a model takes `image` uint8 `[N, H, W, K]` and gives `logits` float32 `[N, C]`.

    Raises:
        RunnerError: ARTEFACT, with every difference.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    faults = []
    if [entry.name for entry in inputs] != ["image"]:
        faults.append(f"inputs: got {', '.join(entry.name for entry in inputs)}, expected image alone")
    elif inputs[0].type != "tensor(uint8)" or not _is_image(inputs[0].shape):
        faults.append(f"image: got {inputs[0].type} {inputs[0].shape}, expected tensor(uint8) [N, H, W, K], all but N fixed")
    if [entry.name for entry in outputs] != ["logits"]:
        faults.append(f"outputs: got {', '.join(entry.name for entry in outputs)}, expected logits alone")
    elif outputs[0].type != "tensor(float)" or len(outputs[0].shape) != 2:
        faults.append(f"logits: got {outputs[0].type} {outputs[0].shape}, expected tensor(float) [N, C]")
    if faults:
        raise RunnerError(f"{name} does not keep the contract", ExitCode.ARTEFACT, tuple(faults))


def _is_image(shape: list[Any]) -> bool:
    return len(shape) == 4 and all(type(side) is int and side >= 1 for side in shape[1:])


def image_shape(session: Any) -> tuple[int, int, int]:
    """Return the height and width in pixels, and the number of channels, of the images that a model takes."""
    _, height, width, channels = session.get_inputs()[0].shape
    return height, width, channels


def one_line(fault: BaseException) -> str:
    """Return what ONNX Runtime says is wrong, on one line, without the place in its own source."""
    text = " ".join(_ORIGIN.sub("", str(fault)).split()) or type(fault).__name__
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"
