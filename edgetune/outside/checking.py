"""A bundle checked again: digests first, then everything measured and judged by its own manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Dataset, Measurement, Preprocessing, VerdictRow
from edgetune.device.bundle import heads_of
from edgetune.errors import EdgetuneError
from edgetune.outside.fleet import at_once
from edgetune.outside.labelled import data_for, in_order_of, tasks_of
from edgetune.progress import Progress
from edgetune.recipe import DataRecipe, TaskRecipe
from edgetune.verify.recheck import Extent, judge_again, measure_again

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Checked", "check_bundle", "check_on", "promised_tasks"]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What one device said of a bundle.

    Attributes:
        measurement: what it measured; the logits are in `logits`, as its folder is gone.
        verdicts: what follows.
        logits: of the labelled images, else of the golden ones if several devices are compared: float32 `[N, C]`; else None.
    """

    measurement: Measurement
    verdicts: tuple[VerdictRow, ...]
    logits: npt.NDArray[np.float32] | None


def check_bundle(
    bundle: Path,
    source: str | None,
    *,
    quick: bool,
    progress: Progress,
    device: str = "auto",
    stand_in: bool = True,
) -> tuple[Measurement, tuple[VerdictRow, ...]]:
    """Verify a bundle's digests, then measure it on a device and judge it by its own manifest.

    Args:
        bundle: the bundle's folder.
        source: labelled images to claim the accuracy on, a folder of classes or a manifest; None leaves that out.
        quick: few queries.
        progress: told what goes on.
        device: the address of the machine that measures.
        stand_in: whether a machine that the bundle was not built for may measure it.

    Raises:
        ArtefactError: a file is not what was built, with every such file.
        DataError: the images cannot be used, or their classes are not the model's.
        TargetError: the device cannot be used, or is not what the bundle was built for and may not stand in.
    """
    found = check_on({device: device}, bundle, source, extent=Extent(quick=quick), progress=progress, stand_in=stand_in)[device]
    if isinstance(found, EdgetuneError):
        raise found
    return found.measurement, found.verdicts


def check_on(
    devices: Mapping[str, str],
    bundle: Path,
    source: str | None,
    *,
    extent: Extent,
    progress: Progress,
    stand_in: bool,
) -> dict[str, Checked | EdgetuneError]:
    """Verify a bundle's digests, then have several devices measure it at once; see `check_bundle`.

    Args:
        devices: name → address.
        bundle: the bundle's folder.
        source: labelled images.
        extent: how much is measured.
        progress: told what goes on, with one label for each device.
        stand_in: whether a machine that the bundle was not built for may measure it.

    Returns:
        What each device said; a device that could not be used does not end the others, and its error stands in its place.

    Raises:
        ArtefactError: a file is not what was built, with every such file.
        DataError: the images cannot be used, or their classes are not the model's.
    """
    from edgetune.release.load import load_bundle

    manifest = load_bundle(bundle)
    progress.line("every file is what was built")
    heads = heads_of(manifest)
    several = len(devices) > 1
    with tempfile.TemporaryDirectory(prefix="edgetune-check-") as scratch:
        dataset = None if source is None else _test_images(manifest, source, Path(scratch), progress)

        def check(name: str, talk: Progress) -> Checked:
            folder = Path(scratch) / f"measurement-{list(devices).index(name)}"
            folder.mkdir()
            measurement = measure_again(
                bundle,
                manifest,
                dataset,
                extent=extent,
                folder=folder,
                progress=talk,
                device=devices[name],
                stand_in=stand_in,
                golden_logits=several,
            )
            verdicts = judge_again(measurement, manifest, heads, dataset)
            asked = several or dataset is not None
            logits = measurement.logits(manifest["model"]["precision"]) if asked else None
            return Checked(measurement=measurement, verdicts=verdicts, logits=logits)

        return at_once(list(devices), check, progress)


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
