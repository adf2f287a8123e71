"""What the runner is asked to measure: a JSON file, read strictly, every fault of it at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .digest import SHA256, read_json
from .exitcodes import ExitCode, RunnerError
from .latency import LatencyPlan
from .operators import OperatorsPlan
from .pairs import PairsPlan
from .preprocess import Preprocessing
from .session import options_faults
from .throughput import ThroughputPlan
from .trials import TrialsPlan

SCHEMA = 1
SPANS = ("max_seconds", "min_seconds", "period_seconds")
LONGEST_S = 1e6
MOST_STREAMS = 256
NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
REQUIRED = ("schema", "models", "session")
SINGLE = ("eval", "latency", "footprint", "golden", "golden_model", "preprocessing")
OPTIONAL = (*SINGLE, "pairs", "operators", "trials", "throughput")


@dataclass(frozen=True)
class ModelRequest:
    """One model to measure: its name in the answer, its file and the digest that the file must have."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Request:
    """Everything that is wanted.

    Attributes:
        models: what to measure, in the order of a round.
        session: options for `open_session`, the same for all models.
        images: an .npy file, uint8 `[N, H, W, K]`, whose logits are wanted; None for none.
        limit: how many of these images, from the first; None for all.
        latency: how to time; None for not at all.
        footprint: whether to measure cold start and peak memory.
        golden: a folder of golden images to check; None for none.
        golden_model: the name of the model that the golden logits are of: the last, unless the request says otherwise.
        preprocessing: of the golden images; None where it is not known.
        pairs: which two models to compare in fresh processes; None for none.
        operators: which model to profile operator by operator; None for none.
        trials: which session options to try on a model; None for none.
        throughput: how many parallel streams to measure of each model; None for none.
    """

    models: tuple[ModelRequest, ...]
    session: dict[str, Any]
    images: Path | None = None
    limit: int | None = None
    latency: LatencyPlan | None = None
    footprint: bool = False
    golden: Path | None = None
    golden_model: str = ""
    preprocessing: Preprocessing | None = None
    pairs: PairsPlan | None = None
    operators: OperatorsPlan | None = None
    trials: TrialsPlan | None = None
    throughput: ThroughputPlan | None = None


def read_request(path: Path | str) -> Request:
    """Return the request in a JSON file.

    Raises:
        RunnerError: USAGE: the file does not hold a request, with every fault. ARTEFACT: it is not JSON.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        got = content.get("schema") if isinstance(content, dict) else None
        raise RunnerError(f"{path}: got schema {got!r}, expected {SCHEMA}", ExitCode.USAGE)
    faults = [f"{key}: is not known" for key in content if key not in REQUIRED + OPTIONAL]
    faults += [f"{key}: is missing" for key in REQUIRED if key not in content]
    models = _models(content.get("models"), faults)
    faults += options_faults(content.get("session", {}))
    images, limit = _eval(content.get("eval"), faults)
    plan = _latency(content.get("latency"), faults)
    golden = content.get("golden")
    _expect(golden is None or isinstance(golden, str), "golden: expected the path of a folder, or null", faults)
    _expect(type(content.get("footprint", False)) is bool, "footprint: expected true or false", faults)
    name = content.get("golden_model", models[-1].name if models else "")
    _expect(name in [model.name for model in models], f"golden_model: got {name!r}, expected the name of a model", faults)
    if plan and images is None and golden is None:
        faults.append("latency: needs images; give eval or golden")
    preprocessing = _preprocessing(content.get("preprocessing"), faults)
    names = [model.name for model in models]
    pairs = _pairs(content.get("pairs"), names, faults)
    operators = _operators(content.get("operators"), names, faults)
    throughput = _throughput(content.get("throughput"), faults)
    trials = _trials(content.get("trials"), names, faults)
    if faults:
        raise RunnerError(f"{path} is not a request that can be honoured", ExitCode.USAGE, tuple(faults))
    return Request(
        models=models,
        session=content["session"],
        images=images,
        limit=limit,
        latency=plan,
        footprint=content.get("footprint", False),
        golden=Path(golden) if golden else None,
        golden_model=name,
        preprocessing=preprocessing,
        pairs=pairs,
        operators=operators,
        trials=trials,
        throughput=throughput,
    )


def _expect(holds: bool, fault: str, faults: list[str]) -> None:
    if not holds:
        faults.append(fault)


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LONGEST_S


def _models(entries: Any, faults: list[str]) -> tuple[ModelRequest, ...]:
    if not isinstance(entries, list) or not entries:
        faults.append("models: expected a list of models, not empty")
        return ()
    models: list[ModelRequest] = []
    for number, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        texts = [entry.get(key) for key in ("name", "path", "sha256")]
        if sorted(entry) != ["name", "path", "sha256"] or not all(isinstance(text, str) for text in texts):
            faults.append(f"models.{number}: expected name, path and sha256, and nothing else")
            continue
        name, path, sha256 = (str(text) for text in texts)
        _expect(NAME.fullmatch(name) is not None, f"models.{number}.name: got {name!r}, expected {NAME.pattern}", faults)
        _expect(SHA256.fullmatch(sha256) is not None, f"models.{number}.sha256: expected 64 hexadecimal digits", faults)
        _expect(name not in [model.name for model in models], f"models.{number}.name: {name!r} stands there twice", faults)
        models.append(ModelRequest(name, Path(path), sha256))
    return tuple(models)


def _eval(entry: Any, faults: list[str]) -> tuple[Path | None, int | None]:
    if entry is None:
        return None, None
    images, limit = (entry.get("images"), entry.get("limit")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(images, str) or not set(entry) <= {"images", "limit"}:
        faults.append("eval: expected images (the path of an .npy file) and limit, and nothing else, or null")
        return None, None
    _expect(limit is None or _whole(limit, 1), f"eval.limit: got {limit!r}, expected a number of images or null", faults)
    return Path(images), limit


def _latency(entry: Any, faults: list[str]) -> LatencyPlan | None:
    if entry is None:
        return None
    least = {"warmup": 0, "rounds": 1, "queries_per_round": 1}
    if not isinstance(entry, Mapping) or not set(least) <= set(entry) <= {*least, *SPANS}:
        faults.append(f"latency: expected {', '.join(least)}, if you like {', '.join(SPANS)}, and nothing else, or null")
        return None
    wrong = [
        f"latency.{key}: got {entry[key]!r}, expected a whole number from {bound} on"
        for key, bound in least.items()
        if not _whole(entry[key], bound)
    ]
    wrong += [
        f"latency.{key}: got {entry[key]!r}, expected seconds from 0 on"
        for key in SPANS
        if key in entry and not _seconds(entry[key])
    ]
    faults += wrong
    return None if wrong else LatencyPlan(**entry)


def _preprocessing(entry: Any, faults: list[str]) -> Preprocessing | None:
    try:
        return None if entry is None else Preprocessing.from_dict(entry)
    except ValueError as fault:
        faults.append(f"preprocessing: {fault}")
        return None


def _pairs(entry: Any, names: list[str], faults: list[str]) -> PairsPlan | None:
    if entry is None:
        return None
    least = {"pairs": 1, "first": 0, "warmup": 0, "blocks": 1, "queries_per_block": 1}
    if not isinstance(entry, Mapping) or set(entry) != {"models", "sessions", *least}:
        faults.append(f"pairs: expected models, sessions, {', '.join(least)} and nothing else, or null")
        return None
    before = len(faults)
    models, sessions = entry["models"], entry["sessions"]
    two = isinstance(models, list) and len(models) == 2 and all(name in names for name in models)
    _expect(two, f"pairs.models: got {models!r}, expected the names of two models, or one twice", faults)
    if isinstance(sessions, list) and len(sessions) == 2:
        faults += [f"pairs.{fault}" for options in sessions for fault in options_faults(options)]
    else:
        faults.append("pairs.sessions: expected two tables of session options")
    wrong = [key for key, bound in least.items() if not _whole(entry[key], bound)]
    faults += [f"pairs.{key}: got {entry[key]!r}, expected a whole number from {least[key]} on" for key in wrong]
    if len(faults) > before:
        return None
    numbers = {key: entry[key] for key in least}
    return PairsPlan(models=(models[0], models[1]), sessions=(sessions[0], sessions[1]), **numbers)


def _operators(entry: Any, names: list[str], faults: list[str]) -> OperatorsPlan | None:
    if entry is None:
        return None
    if not isinstance(entry, Mapping) or set(entry) != {"model", "warmup", "queries"}:
        faults.append("operators: expected model, warmup, queries and nothing else, or null")
        return None
    before = len(faults)
    _expect(entry["model"] in names, f"operators.model: got {entry['model']!r}, expected the name of a model", faults)
    for key, least in (("warmup", 0), ("queries", 1)):
        expected = f"operators.{key}: got {entry[key]!r}, expected a whole number from {least} on"
        _expect(_whole(entry[key], least), expected, faults)
    return OperatorsPlan(**entry) if len(faults) == before else None


def _trials(entry: Any, names: list[str], faults: list[str]) -> TrialsPlan | None:
    if entry is None:
        return None
    least = {"rounds": 1, "first": 0, "warmup": 0, "blocks": 1, "queries_per_block": 1}
    keys = ("model", "present", "candidates", *least, "period_seconds")
    if not isinstance(entry, Mapping) or set(entry) != set(keys):
        faults.append(f"trials: expected {', '.join(keys)} and nothing else, or null")
        return None
    before = len(faults)
    _expect(entry["model"] in names, f"trials.model: got {entry['model']!r}, expected the name of a model", faults)
    candidates = entry["candidates"]
    if isinstance(candidates, list) and candidates:
        faults += [f"trials.{fault}" for options in (entry["present"], *candidates) for fault in options_faults(options)]
    else:
        faults.append("trials.candidates: expected tables of session options, one at least")
    _expect(_seconds(entry["period_seconds"]), "trials.period_seconds: expected seconds from 0 on", faults)
    wrong = [key for key, bound in least.items() if not _whole(entry[key], bound)]
    faults += [f"trials.{key}: got {entry[key]!r}, expected a whole number from {least[key]} on" for key in wrong]
    return TrialsPlan(**{**entry, "candidates": tuple(candidates)}) if len(faults) == before else None


def _throughput(entry: Any, faults: list[str]) -> ThroughputPlan | None:
    if entry is None:
        return None
    if not isinstance(entry, Mapping) or set(entry) != {"threads", "seconds", "rounds"}:
        faults.append("throughput: expected threads, seconds, rounds and nothing else, or null")
        return None
    before, threads = len(faults), entry["threads"]
    counts = (
        isinstance(threads, list) and bool(threads) and all(_whole(count, 1) and count <= MOST_STREAMS for count in threads)
    )
    _expect(counts, f"throughput.threads: got {threads!r}, expected numbers from 1 to {MOST_STREAMS}", faults)
    _expect(_seconds(entry["seconds"]) and entry["seconds"] > 0, "throughput.seconds: expected more than 0", faults)
    _expect(_whole(entry["rounds"], 1), "throughput.rounds: expected a whole number from 1 on", faults)
    return ThroughputPlan(**{**entry, "threads": tuple(threads)}) if len(faults) == before else None
