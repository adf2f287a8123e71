"""Make the bundle: the same inputs give the same bytes, and the folder is whole or not there."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Bundle, Dataset, Head, Measurement, OnnxModel, Report
from edgetune.device.heads import REGRESSION, columns_of, heads_to_json, targets_of
from edgetune.errors import ArtefactError, UsageError
from edgetune.files import file_table, link_or_copy, sha256_file, write_atomic, write_json
from edgetune.profile import Profile
from edgetune.recipe import TaskRecipe
from edgetune.release.load import load_bundle
from edgetune.release.manifest import build_manifest, product_name
from edgetune.release.swap import replacing_folder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["make_bundle"]

MANIFEST = "manifest.json"
NO_TASKS: Mapping[str, TaskRecipe] = MappingProxyType({})


def make_bundle(
    *,
    folder: Path,
    product: str,
    model: OnnxModel,
    reference: OnnxModel | None,
    dataset: Dataset,
    report: Report,
    card: str,
    measurement: Measurement,
    profile: Profile,
    session: Mapping[str, Any],
    golden_session: Mapping[str, Any] | None = None,
    limits: Mapping[str, float | None],
    tasks: Mapping[str, TaskRecipe] = NO_TASKS,
    provenance: Mapping[str, Any],
) -> Bundle:
    """Write a bundle as a new folder and check it as its receiver will.

    Args:
        folder: where it goes. A bundle that is already there is replaced, unless it holds the same bytes.
        product: the name under which the bundle is shipped; see `product_name`.
        model: the model to ship.
        reference: the fp32 model that it was compared with; None if it is that itself.
        dataset: gives the golden images and the digests of the eval pack.
        report: becomes `report.json`.
        card: becomes `README.md`.
        measurement: where the report's figures were measured.
        profile: what the model was built for.
        session: how the device opens ONNX Runtime.
        golden_session: how this machine opens it for the golden logits, if it lacks what `session` asks for.
        limits: the budgets and tolerances that the model was judged by; later checks judge by them, too.
        tasks: the recipe's; they tell later checks in which columns of a manifest of images the truth stands.
        provenance: versions and digests of what it was built from; no times, names of machines, or absolute paths.

    Returns:
        The bundle, bound to `folder`.

    Raises:
        ArtefactError: the model file or a golden image is not what its digest says or cannot be read.
        UsageError: something that is not a bundle is in the way.
        ValueError: the provenance holds an absolute path.
        TargetError: a provider of the golden session is not available here.
        OSError: the folder cannot be written; the bundle that was there still is.
    """
    _refuse_to_overwrite(folder)
    if sha256_file(model.path) != model.sha256:
        raise ArtefactError(f"{model.path} was changed after it was built", remedy="build it again")
    options = dict(golden_session or session)
    with replacing_folder(folder) as new:
        link_or_copy(model.path, new / "model.onnx")
        write_json(new / "labels.json", list(model.classes))
        _write_golden(new / "golden", dataset, model, options)
        _write_runner(new / "runner.pyz")
        write_json(new / "report.json", report.to_json())
        write_atomic(new / "README.md", card.encode())
        manifest = build_manifest(
            product=product_name(product),
            files=file_table(new),
            model=model,
            reference=reference,
            dataset=dataset,
            report=report,
            measurement=measurement,
            profile=profile,
            session=session,
            limits=limits,
            tasks=tasks,
            golden={"images": len(dataset.golden), "session": options},
            provenance=provenance,
        )
        write_json(new / MANIFEST, manifest)
    load_bundle(folder)
    content = (folder / MANIFEST).read_bytes()
    size = len(content) + sum(facts["size_bytes"] for facts in manifest["files"].values())
    bundle: Bundle = Bundle(manifest_sha256=hashlib.sha256(content).hexdigest(), size_bytes=size).at(folder)
    return bundle


def _refuse_to_overwrite(folder: Path) -> None:
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is in the way: it is not a bundle (it has no {MANIFEST}), so it is not replaced",
            remedy="choose another --output, or move it away",
        )


def _write_runner(path: Path) -> None:
    from edgetune.device.archive import write_runner

    write_runner(path)


def _write_golden(folder: Path, dataset: Dataset, model: OnnxModel, options: dict[str, Any]) -> None:
    """Write encoded images, the tensors they must become and the logits that must follow; see `edgetune.device.golden`."""
    import numpy as np

    indices = [index for _, index in dataset.golden]
    tensors = np.ascontiguousarray(dataset.images("test")[indices])
    truth = _truth(dataset, indices)
    entries = []
    for (name, _), right in zip(dataset.golden, truth, strict=True):
        link_or_copy(dataset.folder / "golden" / name, folder / name)
        entries.append({"file": name, **right})
    write_atomic(folder / "tensors.npy", _npy(tensors))
    write_atomic(folder / "logits.npy", _npy(_logits(model.path, options, tensors)))
    meaning = {} if model.is_classifier else {"heads": heads_to_json(model.heads), "scale": _golden_scale(dataset, model.heads)}
    write_json(folder / "golden.json", {"images": entries, **meaning})


def _truth(dataset: Dataset, indices: list[int]) -> list[dict[str, Any]]:
    """Return what is right for some test images, as a reader finds it: the class, or for other tasks the targets."""
    import numpy as np

    if dataset.is_classifier:
        return [{"label": int(label)} for label in dataset.labels("test")[indices]]
    targets = np.asarray(dataset.targets("test")[indices])
    return [{"targets": [float(value) if np.isfinite(value) else None for value in row]} for row in targets]


def _golden_scale(dataset: Dataset, heads: Sequence[Head]) -> list[float]:
    """Return, per column of the logits, the difference that counts as 1: half a standard deviation of a regression's truth."""
    import numpy as np

    scale = np.ones(columns_of(heads)[-1].stop)
    targets = np.asarray(dataset.targets("test"), np.float64)
    for head, columns, place in zip(heads, columns_of(heads), targets_of(heads), strict=True):
        if head.kind == REGRESSION:
            known = (column[np.isfinite(column)] for column in targets[:, place].T)
            # What never varies, or is not known, has no scale of its own.
            scale[columns] = [(float(column.std()) if len(column) else 0.0) / 2 or 1.0 for column in known]
    return [float(one) for one in scale]


def _logits(model: Path, options: dict[str, Any], tensors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the logits at batch 1, as a device computes them: float32 `[G, C]`."""
    import numpy as np

    from edgetune.device.exitcodes import RunnerError
    from edgetune.device.session import open_session
    from edgetune.errors import TargetError

    try:
        session = open_session(model, options)
    except RunnerError as fault:
        raise TargetError(fault.message, remedy="the golden logits need the session that ships") from fault
    return np.concatenate([session.run(["logits"], {"image": tensors[i : i + 1]})[0] for i in range(len(tensors))])


def _npy(array: npt.NDArray[Any]) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
