"""The state of a run on disk: written whole or not at all, the one before kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.files import write_atomic

if TYPE_CHECKING:
    import torch

    from edgetune.progress import Progress

__all__ = ["State", "StateStore"]

State = tuple["dict[str, torch.Tensor]", dict[str, Any]]
NAMES = ("state-0.safetensors", "state-1.safetensors")


class StateStore:
    """Two safetensors files, written in turn, so that a fault of the newer leaves the older.

    Args:
        folder: where the files lie.
        key: what the run depends on; a state of another key is never taken up.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.count = 0

    def save(self, state: State) -> None:
        """Write a state over the older of the two files.

        Raises:
            OSError: it cannot be written; the newest state before it is whole.
        """
        from safetensors.torch import save

        tensors, values = state
        self.count += 1
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        facts = {"key": self.key, "count": self.count, "values": values, "sha256": _digest(tensors)}
        content = save(tensors, {"edgetune": json.dumps(facts, sort_keys=True)})
        write_atomic(self.folder / NAMES[self.count % 2], content)

    def load(self, progress: Progress) -> State | None:
        """Return the newest whole state of this key, or None; says which files were passed over and why."""
        found = []
        for name in NAMES:
            path = self.folder / name
            if not path.is_file():
                continue
            try:
                header, state = _read(path)
            except (ValueError, KeyError, OSError) as fault:
                progress.line(f"warning: {name} cannot be read ({fault}) and is not used")
                continue
            if header["key"] != self.key:
                progress.line(f"warning: {name} belongs to another recipe or other images and is not used")
                continue
            found.append((int(header["count"]), state))
        if not found:
            return None
        self.count, state = max(found, key=lambda pair: pair[0])
        return state

    def clear(self) -> None:
        """Remove the files, and what a kill in the middle of a save left of one: the run is complete."""
        for path in [self.folder / name for name in NAMES] + [p for name in NAMES for p in self.folder.glob(f".{name}.*")]:
            path.unlink(missing_ok=True)


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return the sha256 of all values: safetensors notices a file that is too short, but not one that was changed."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], State]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["edgetune"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as fault:
        raise ValueError(str(fault)) from fault
    if _digest(tensors) != header["sha256"]:
        raise ValueError("its content is not what was saved")
    return header, (tensors, header["values"])
