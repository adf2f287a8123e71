"""Checkpoints of earlier runs: found in a run folder or a stage's folder, and proven to be what was written there."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from edgetune.artefacts import Checkpoint
from edgetune.errors import ArtefactError, Fault, WeightsError
from edgetune.files import changed_files

__all__ = ["checkpoint_at", "weights_file"]

STAGE_FILE = "stage.json"


def weights_file(path: Path) -> Path:
    """Return the file that decides which weights a path stands for: the file itself, or the one of the checkpoint in a folder.

    Raises:
        WeightsError: the folder holds no checkpoint, or several.
        ArtefactError: what it holds is not what was written there.
    """
    return checkpoint_at(path).weights_path if path.is_dir() else path


def checkpoint_at(path: Path) -> Checkpoint:
    """Return the checkpoint in a folder: of a run, or of its stage of training itself.

    Raises:
        WeightsError: there is none, or there are several.
        ArtefactError: it is not what was written there, or was written by another version.
    """
    folder = _folder(path)
    try:
        record = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
        checkpoint = Checkpoint.model_validate(record["value"]).at(folder)
        files = {checkpoint.weights_path.name: record["files"][checkpoint.weights_path.name]}
        changed = changed_files(folder, files)
    except (ValueError, KeyError, TypeError, ValidationError) as fault:
        raise ArtefactError(
            f"{path.name}: {STAGE_FILE} is not that of a checkpoint of this version of edgetune ({type(fault).__name__})",
            remedy="give the folder of a run that trained a network, or train it again",
        ) from fault
    if changed:
        raise ArtefactError(f"the checkpoint in {path.name} is not what was written there: {changed[0]}")
    return checkpoint


def _folder(path: Path) -> Path:
    """Return the folder of the one checkpoint that a folder stands for."""
    if (path / STAGE_FILE).is_file():
        return path
    # One that was found to be damaged has been put aside under a name with an ending.
    found = [file.parent for file in path.glob(f"stages/train/*/{STAGE_FILE}") if not file.parent.suffix]
    if not found:
        raise WeightsError(
            f"{path} holds no checkpoint",
            remedy="give a run folder in which training has ended, or a .safetensors file",
        )
    if len(found) > 1:
        found.sort(key=lambda folder: (folder / STAGE_FILE).stat().st_mtime_ns, reverse=True)
        raise WeightsError(
            f"{path} holds {len(found)} checkpoints, of different recipes",
            faults=[Fault(where="", problem=str(folder)) for folder in found],
            remedy="give the folder of one of them (the newest is the first)",
        )
    return found[0]
