"""The manifest: what a bundle says about itself. Nothing in it depends on when, where or by whom it was built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgetune.artefacts import Dataset, Head, HeadFigures, Measurement, OnnxModel, Report, TaskFigures
from edgetune.device.decisions import thresholds_of
from edgetune.device.heads import MULTI_LABEL, heads_to_json
from edgetune.files import digest_of, sha256_file
from edgetune.profile import Profile
from edgetune.recipe import TaskRecipe

__all__ = ["SCHEMA", "build_manifest", "product_name"]

SCHEMA = 1
LONGEST_NAME = 64
INSTRUCTION_SETS = frozenset(
    (
        *("ssse3", "sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8"),
        *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_int8", "amx_bf16"),
        *("asimd", "fphp", "asimdhp", "asimdfhm", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme"),
    )
)
"""Names, as /proc/cpuinfo has them, of what ONNX Runtime's kernels ask for before they are chosen."""
FOR_A_READER = {"per_class", "per_label", "confusion"}
"""What the report has of a model and the manifest has not."""


def product_name(text: str) -> str:
    """Return a name for a folder on any device: the last part of a text, with `-` for all but letters, digits, `.`, `_`."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", text.rstrip("/").rpartition("/")[2])
    return plain.strip("-.")[:LONGEST_NAME] or "model"


def build_manifest(
    *,
    product: str,
    files: Mapping[str, Mapping[str, Any]],
    model: OnnxModel,
    reference: OnnxModel | None,
    dataset: Dataset,
    report: Report,
    measurement: Measurement,
    profile: Profile,
    session: Mapping[str, Any],
    limits: Mapping[str, float | None],
    tasks: Mapping[str, TaskRecipe],
    golden: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of `manifest.json`; see `edgetune.release.bundle.make_bundle` for the arguments.

    Raises:
        ValueError: the provenance holds an absolute path, which would differ between machines and tell on the builder's.
    """
    if found := list(_absolute_paths(provenance, "provenance")):
        raise ValueError(f"absolute paths do not belong into a manifest: {', '.join(found)}")
    return {
        "schema": SCHEMA,
        "product": product,
        "files": {name: dict(facts) for name, facts in files.items()},
        "classes": list(model.classes),
        "heads": heads_to_json([_with_thresholds(head) for head in model.heads]),
        "preprocessing": model.preprocessing.to_dict(),
        "profile": {
            "name": profile.name,
            "title": profile.title,
            "digest": digest_of(profile.model_dump(mode="json", by_alias=True)),
            "architecture": profile.processor.architecture,
            "features": list(profile.processor.features),
            "absent": list(profile.processor.absent),
            "min_onnxruntime": profile.runtime.min_onnxruntime,
            "model": profile.model.model_dump(mode="json"),
            "tolerance": profile.tolerance.model_dump(mode="json"),
        },
        "verified": [_verified(measurement)],
        "session": dict(session),
        "limits": dict(limits),
        **({"tasks": {name: _task(task) for name, task in tasks.items()}} if tasks else {}),
        "model": _model(model),
        "reference": None if reference is None else _summary(reference),
        "figures": _figures(report, measurement),
        "eval_pack": _eval_pack(dataset),
        "golden": dict(golden),
        "provenance": dict(provenance),
    }


def _with_thresholds(head: Head) -> Head:
    """Return a head that says where its labels are decided, also where training has not chosen it."""
    return replace(head, thresholds=thresholds_of(head)) if head.kind == MULTI_LABEL else head


def _task(task: TaskRecipe) -> dict[str, Any]:
    """Return where a manifest of images says what is right, for a later check on such images."""
    return task.model_dump(mode="json", include={"kind", "columns", "separator"})


def _summary(model: OnnxModel) -> dict[str, Any]:
    return {"precision": model.precision, "sha256": model.sha256, "size_bytes": model.size_bytes}


def _model(model: OnnxModel) -> dict[str, Any]:
    size = model.preprocessing
    return {
        **_summary(model),
        "file": "model.onnx",
        "opset": model.opset,
        "ir_version": model.ir_version,
        "input": {
            "name": "image",
            "type": "uint8",
            "layout": "NHWC",
            "colour": size.colour,
            "shape": ["N", *size.shape],
        },
        "output": {"name": "logits", "type": "float32", "shape": ["N", len(model.classes)]},
    }


def _figures(report: Report, measurement: Measurement) -> dict[str, Any]:
    return {
        "measured_on": measurement.where,
        "is_target": measurement.is_target,
        "stand_in_reason": measurement.stand_in_reason,
        "overall": report.overall,
        "accuracy": {name: _accuracy(figures) for name, figures in report.figures.items()},
        "latency": {name: dict(costs) for name, costs in report.latency.items()},
    }


def _verified(measurement: Measurement) -> dict[str, Any]:
    """Return on what processor the model was measured, with the instruction sets that decide which kernels run there."""
    environment = measurement.raw["environment"]
    features = [name for name in environment.get("features", ()) if name in INSTRUCTION_SETS]
    return {
        "architecture": environment["architecture"],
        "processor": environment.get("name"),
        "features": features,
        "onnxruntime": environment["onnxruntime"],
        "is_target": measurement.is_target,
    }


def _accuracy(figures: HeadFigures | TaskFigures) -> dict[str, Any]:
    """Return the figures that a later check holds against its own, without the tables for a reader."""
    if isinstance(figures, TaskFigures):
        return {"heads": {name: _accuracy(head) for name, head in figures.heads.items()}}
    return figures.model_dump(mode="json", exclude=FOR_A_READER)


def _eval_pack(dataset: Dataset) -> dict[str, Any]:
    """Return the digests of the test images and labels, by which a later check knows that it compares like with like."""
    names = ("images", "labels") if dataset.is_classifier else ("images", "labels", "targets")
    digests = {f"{name}_sha256": sha256_file(dataset.folder / "test" / f"{name}.npy") for name in names}
    return {"images": dataset.counts["test"], **digests}


def _absolute_paths(value: Any, where: str) -> list[str]:
    if isinstance(value, Mapping):
        return [found for key, inner in value.items() for found in _absolute_paths(inner, f"{where}.{key}")]
    if isinstance(value, list | tuple):
        return [found for position, inner in enumerate(value) for found in _absolute_paths(inner, f"{where}[{position}]")]
    return [f"{where} = {value}"] if isinstance(value, str) and value.startswith(("/", "~")) else []
