"""A bundle checked again: digests first, then everything measured and judged by its own manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.artefacts import Dataset, Measurement, Preprocessing, VerdictRow
from edgetune.device.bundle import heads_of
from edgetune.outside.labelled import data_for, in_order_of, tasks_of
from edgetune.progress import Progress
from edgetune.recipe import DataRecipe, TaskRecipe

__all__ = ["check_bundle", "promised_tasks"]


def check_bundle(
    bundle: Path, source: str | None, *, quick: bool, progress: Progress
) -> tuple[Measurement, tuple[VerdictRow, ...]]:
    """Verify a bundle's digests, then measure it here and judge it by its own manifest.

    Args:
        bundle: the bundle's folder.
        source: labelled images to claim the accuracy on, a folder of classes or a manifest; None leaves that out.
        quick: few queries.
        progress: told what goes on.

    Raises:
        ArtefactError: a file is not what was built, with every such file.
        DataError: the images cannot be used, or their classes are not the model's.
        TargetError: the provider that the bundle wants is not available here.
    """
    from edgetune.release.load import load_bundle
    from edgetune.verify.recheck import judge_again, measure_again

    manifest = load_bundle(bundle)
    progress.line("every file is what was built")
    with tempfile.TemporaryDirectory(prefix="edgetune-check-") as scratch:
        dataset = None if source is None else _test_images(manifest, source, Path(scratch), progress)
        folder = Path(scratch) / "measurement"
        folder.mkdir()
        measurement = measure_again(bundle, manifest, dataset, quick=quick, folder=folder, progress=progress)
        return measurement, judge_again(measurement, manifest, heads_of(manifest), dataset)


def _test_images(manifest: dict[str, Any], source: str, scratch: Path, progress: Progress) -> Dataset:
    from edgetune import data

    recipe = data_for(Preprocessing.from_dict(manifest["preprocessing"]), DataRecipe(source=source))
    folder = scratch / "data"
    folder.mkdir()
    tasks = promised_tasks(manifest)
    found = data.fingerprint(recipe, None, tasks)
    dataset = data.prepare(recipe, seed=0, folder=folder, expected_fingerprint=found, progress=progress, tasks=tasks)
    return in_order_of(heads_of(manifest), dataset, "bundle", scratch / "labelled", progress)


def promised_tasks(manifest: Mapping[str, Any]) -> dict[str, TaskRecipe]:
    """Return the tasks that a bundle was built for, with the columns where a manifest of images says what is right."""
    heads = heads_of(manifest)
    if "tasks" not in manifest:
        return tasks_of(heads)
    # In the order of the heads: that of a JSON file's keys says nothing.
    found = {head.name: manifest["tasks"][head.name] for head in heads}
    return {name: TaskRecipe.model_validate({**task, "columns": tuple(task["columns"])}) for name, task in found.items()}
