"""Where a model must run: profiles, facts about boards as data, each with its source."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from edgetune.device.environment import processor_facts
from edgetune.errors import Fault, ProfileError, TargetError
from edgetune.schema import SchemaVersion, Strict, read_toml, validate

__all__ = ["Profile", "available_profiles", "load_profile", "mismatches", "nearest_profile", "require_match"]


class Processor(Strict):
    """The processor that int8 kernels are chosen for."""

    architecture: Literal["x86_64", "aarch64"]
    """As `uname -m` prints it."""
    name: str = ""
    """The core's name, such as Cortex-A76."""
    cores: int = Field(ge=1, le=1024)
    """Cores that inference may use."""
    features: tuple[str, ...] = ()
    """Flags of /proc/cpuinfo that the quantization below relies on; a device that lacks one is refused. `a|b`: either."""
    absent: tuple[str, ...] = ()
    """Flags that this board is known not to have; a device that has one is another board."""


class Runtime(Strict):
    """How ONNX Runtime is opened. The bundle carries exactly these options."""

    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1)
    """Execution providers in order; the first must be obtained."""
    graph_optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    """The level of graph rewriting."""
    intra_op_threads: int = Field(default=1, ge=1, le=256)
    """Threads inside one operator."""
    inter_op_threads: int = Field(default=1, ge=1, le=256)
    """Threads across operators; more than 1 has an effect in parallel execution only."""
    execution_mode: Literal["sequential", "parallel"] = "sequential"
    """Whether independent operators run at once."""
    memory_arena: bool = True
    """Whether the CPU provider keeps memory that it has once asked for; else a process needs less, and asks more often."""
    config: dict[str, str] = Field(default_factory=dict)
    """Session configuration entries by name."""
    min_onnxruntime: str = Field(default="1.17.0", pattern=r"^\d+\.\d+\.\d+$")
    """The oldest ONNX Runtime that this profile was thought through for."""

    def session_options(self) -> dict[str, Any]:
        """Return how the bundle opens ONNX Runtime on the board: the runner's session options, as JSON types."""
        return {
            "providers": list(self.providers),
            "graph_optimization": self.graph_optimization,
            "intra_op_threads": self.intra_op_threads,
            "inter_op_threads": self.inter_op_threads,
            "execution_mode": self.execution_mode,
            # Left out where it is as always: runners of earlier bundles do not know it.
            **({} if self.memory_arena else {"memory_arena": False}),
            "config": dict(self.config),
        }


class Quantization(Strict):
    """What the processor's integer kernels are good at."""

    precision: Literal["int8", "fp16", "fp32"] = "int8"
    """The precision to build for this board."""
    activation_type: Literal["uint8", "int8"] = "uint8"
    """Of quantized activations."""
    weight_type: Literal["uint8", "int8"] = "int8"
    """Of quantized weights."""
    alternatives: tuple[Literal["U8S8", "U8U8", "S8S8"], ...] = ()
    """Other types of activations and weights, to try where the quantizer can measure latency on the target: the faster are
    taken."""
    per_channel: bool = True
    """One weight scale per output channel."""
    reduce_range: bool = False
    """Seven-bit weights, where 16-bit accumulation would saturate."""
    symmetric_activations: bool = False
    """Zero points of activations in the middle of the type's range."""
    functions: Literal["any", "relu"] = "any"
    """Activation functions that have integer kernels worth using; relu: only ReLU and its kin, so that SiLU and hard-swish are
    better replaced before fine-tuning."""

    @property
    def types(self) -> str:
        """The types of a quantized layer's activations and weight, as `alternatives` writes them."""
        return "".join({"uint8": "U8", "int8": "S8"}[kind] for kind in (self.activation_type, self.weight_type))

    def with_types(self, types: str) -> Quantization:
        """Return these rules for other types, written as in `alternatives`."""
        kinds = {"U8": "uint8", "S8": "int8"}
        return self.model_copy(update={"activation_type": kinds[types[:2]], "weight_type": kinds[types[2:]]})


class ModelCaps(Strict):
    """The newest file format that the board's ONNX Runtime reads."""

    opset: int = Field(ge=13, le=25)
    """The newest default operator set."""
    ir_version: int = Field(ge=7, le=13)
    """The newest IR version."""


class Budgets(Strict):
    """Absolute limits; a key that is not given is not judged."""

    latency_p90_ms: float | None = Field(default=None, gt=0.0)
    """Nine of ten inferences at batch 1."""
    size_bytes: int | None = Field(default=None, gt=0)
    """The model file."""
    peak_memory_bytes: int | None = Field(default=None, gt=0)
    """What the model adds to the process at its peak."""


class Tolerances(Strict):
    """Allowed deviations from fp32."""

    top1_drop_points: float = Field(default=1.0, gt=0.0, le=100.0)
    """How much lower top-1 may be, in points; judged by a paired test."""
    top1_agreement_percent: float = Field(default=95.0, gt=0.0, le=100.0)
    """How many decisions must be the same, in percent."""
    logit_max_abs: float = Field(default=0.5, gt=0.0)
    """How far the golden logits may be off on another processor than the one that built them."""


class Profile(Strict):
    """One profile file."""

    schema_: SchemaVersion = Field(alias="schema")
    """The version of this file's layout."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """What `--target` calls it."""
    title: str
    """The board, for a person."""
    processor: Processor
    runtime: Runtime = Runtime()
    quantization: Quantization = Quantization()
    model: ModelCaps
    budget: Budgets = Budgets()
    tolerance: Tolerances = Tolerances()
    sources: dict[str, str]
    """Where each fact comes from: a dotted key or a table's name → a source in words or an address."""

    @model_validator(mode="after")
    def _sources_name_known_keys(self) -> Self:
        tables = self.model_dump(by_alias=True)
        for key in self.sources:
            table, _, name = key.partition(".")
            if table not in tables or (name and name not in tables[table]):
                raise ValueError(f"sources names {key!r}, which is not a key of a profile")
        return self


class Detection(Strict):
    """One rule of `host.toml`: a machine with this architecture and these features is described by that profile."""

    architecture: str
    features: tuple[str, ...] = ()
    use: str


class HostRules(Strict):
    """The file `host.toml`: how this machine finds the profile whose facts it shares."""

    schema_: SchemaVersion = Field(alias="schema")
    name: Literal["host"]
    title: str
    detect: tuple[Detection, ...] = Field(min_length=1)


def profiles_folder() -> Path:
    """Return the folder of the shipped profiles: inside the installed package, else at the root of the checkout."""
    package = Path(__file__).parent
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
        if rule.architecture == facts["architecture"] and not _lacking(rule.features, facts["features"]):
            return load_profile(rule.use)
    raise TargetError(
        f"no rule of profiles/host.toml describes {where}: {facts['architecture']}, {' '.join(facts['features'][:8])}…",
        remedy="name a profile with --target, or write one",
    )


def mismatches(profile: Profile, facts: dict[str, Any]) -> list[str]:
    """Return how a device is not what a profile describes, one sentence each; empty when it fits.

    Args:
        profile: the promise.
        facts: the device's `environment` as `edgetune.device.environment` reads it, or its processor's part.
    """
    return device_mismatches(
        facts,
        architecture=profile.processor.architecture,
        features=profile.processor.features,
        absent=profile.processor.absent,
        provider=profile.runtime.providers[0],
        min_onnxruntime=profile.runtime.min_onnxruntime,
    )


def device_mismatches(
    facts: Mapping[str, Any],
    *,
    architecture: str,
    features: Iterable[str],
    absent: Iterable[str],
    provider: str,
    min_onnxruntime: str,
) -> list[str]:
    """Return how a device is not what a profile, or a bundle's manifest, promises; see `mismatches`."""
    if facts["architecture"] != architecture:
        return [f"architecture: got {facts['architecture']}, expected {architecture}"]
    found = []
    if lacking := _lacking(features, facts["features"]):
        found.append(f"processor lacks {', '.join(name.replace('|', ' or ') for name in lacking)}")
    if foreign := [name for name in absent if name in facts["features"]]:
        found.append(f"processor has {', '.join(foreign)}, which this board does not")
    providers = facts.get("providers")
    if providers is not None and provider not in providers:
        found.append(f"provider: expected {provider}, got {', '.join(providers)}")
    version = facts.get("onnxruntime")
    if version and _version(version) < _version(min_onnxruntime):
        found.append(f"ONNX Runtime: got {version}, expected {min_onnxruntime} or newer")
    return found


def _lacking(wanted: Iterable[str], features: Iterable[str]) -> list[str]:
    """Return the wanted flags that are not there; of `a|b`, one is enough."""
    there = set(features)
    return [name for name in wanted if there.isdisjoint(name.split("|"))]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:3] if part.isdigit())


def require_match(profile: Profile, facts: dict[str, Any], where: str = "this machine") -> None:
    """Raise unless a device is what a profile describes.

    Args:
        profile: the promise.
        facts: the device's environment.
        where: the device, in words.

    Raises:
        TargetError: with every difference.
    """
    if found := mismatches(profile, facts):
        raise TargetError(
            f"{where} is not what the profile {profile.name!r} describes",
            faults=[Fault(where="", problem=text) for text in found],
            remedy="choose another --target or --device; without a device (verify.device = auto), this machine stands in",
        )
