"""What a profile file says, and the rules that find one for a machine."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from edgetune.schema import SchemaVersion, Strict

__all__ = ["HostRules", "ModelCaps", "Profile", "Quantization", "Runtime"]


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
