"""The data sets of torchvision by name: any that yields pictures with one class each.

Where a data set keeps its pictures in files, these are the items, as of a folder. Where it keeps them in an archive of its own
(MNIST, CIFAR), each picture becomes a PNG file when it is read; a digest over its arrays stands for them all.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Split
from edgetune.data.listing import shown
from edgetune.data.png import stored_png
from edgetune.data.source import SPLITS, Item, Source, one_head
from edgetune.errors import DataError, Fault
from edgetune.recipe import NAMED_SOURCES, DataRecipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["cache_folder", "known_name", "open_named"]

# What torchvision's data sets call their splits; the first that a data set has.
WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}
GENERIC = {"DatasetFolder", "FakeData", "ImageFolder", "VisionDataset"}
CUT_WORDS = "the data set has no split {split}: {percent} % of its split train became it"


def cache_folder() -> Path:
    """Return where data sets lie that the user gave no place."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgetune" / "torchvision"


def known_name(source: str) -> str:
    """Return the name of the data set in a source like torchvision:CIFAR10.

    Raises:
        DataError: torchvision has none of that name, or it is not one of classified pictures.
    """
    from torchvision import datasets

    name = source.removeprefix(NAMED_SOURCES)
    names = [known for known in datasets.__all__ if known not in GENERIC and inspect.isclass(getattr(datasets, known, None))]
    if name not in names:
        lower = {known.lower(): known for known in names}
        near = [lower[word] for word in difflib.get_close_matches(name.lower(), lower, n=3)]
        hint = f"did you mean {' or '.join(near)}?" if near else "torchvision's documentation lists them"
        raise DataError(f"torchvision has no data set {shown(name)!r}", remedy=hint)
    parameters = inspect.signature(getattr(datasets, name)).parameters
    needed = [key for key, one in parameters.items() if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if needed != ["root"]:
        raise DataError(
            f"torchvision's {name} cannot be used by its name: it needs {', '.join(needed)}",
            remedy="write its images into folders, one per class, or into a manifest",
        )
    return name


def open_named(recipe: DataRecipe, head_name: str) -> Source:
    """List the images of one of torchvision's data sets.

    Args:
        recipe: names the data set, its folder, and whether it may be fetched.
        head_name: of the one task.

    Raises:
        DataError: there is no such data set, its files are not there, or it has not one class for each picture.
    """
    name = known_name(recipe.source)
    root = Path(recipe.root).expanduser() if recipe.root else cache_folder()
    parts = _load_splits(name, root, recipe.download)
    classes = _class_names(parts)
    digest = hashlib.sha256(name.encode())
    items: list[Item] = []
    for split, part in parts.items():
        own = split if len(parts) > 1 else None
        labels = _labels(part, name, split, len(classes))
        files = _files(part)
        if files is None:
            digest.update(f"{split}:{labels}:".encode() + _digest_of_pictures(part))
        for place, label in enumerate(labels):
            where = (
                _in_file(files[place], root)
                if files
                else {"name": f"{split}/{place:06}.png", "make": partial(_png, part, place)}
            )
            items.append(Item(label=classes[label], targets=(float(label),), split=own, **where))
    stored = [item for item in items if item.path]
    return Source(
        name=recipe.source,
        items=tuple(sorted(items, key=lambda item: item.name)),
        heads=one_head(head_name, classes),
        strata=classes,
        cut_words=CUT_WORDS,
        given=tuple(split for split in SPLITS if split in parts) if len(parts) > 1 else (),
        faults=tuple(_faults(classes, items)),
        apart=True,
        version="" if stored else digest.hexdigest(),
    )


def _faults(classes: Sequence[str], items: Sequence[Item]) -> Iterator[Fault]:
    filled = {item.label for item in items}
    for label in classes:
        if label not in filled:
            yield Fault(where=shown(label), problem="a class without images", hint="the data set's files are not complete")
    for name, count in Counter(item.name for item in items).items():
        if count > 1:
            yield Fault(where=shown(name), problem="the same file in two splits of the data set")


def _load_splits(name: str, root: Path, download: bool) -> dict[Split, Any]:
    """Return the data set's own splits; one called train where it has none.

    Raises:
        DataError: its files are not there, or cannot be read.
    """
    from torchvision import datasets

    made = getattr(datasets, name)
    parameters = inspect.signature(made).parameters
    keys: dict[str, Any] = {"loader": os.fspath} if "loader" in parameters else {}
    can_download = _takes_download(made)
    if can_download:
        keys["download"] = download
    if download:
        root.mkdir(parents=True, exist_ok=True)
    call = partial(_call, name, made, root, can_download and not download)
    if "train" in parameters:
        return {"train": call(keys | {"train": True}), "test": call(keys | {"train": False})}
    if "split" not in parameters:
        return {"train": call(keys)}
    found: dict[Split, Any] = {}
    for split, words in WORDS.items():
        for word in words:
            part = call(keys | {"split": word})
            if part is not None:
                found[split] = part
                break
    if "train" not in found:
        raise DataError(f"torchvision's {name} has no split to train on", remedy="write its images into a manifest")
    return found


def _takes_download(made: Any) -> bool:
    """Return whether a data set can be fetched: itself, or the one that it hands further keywords on to."""
    for kind in inspect.getmro(made):
        parameters = inspect.signature(kind).parameters
        if "download" in parameters:
            return True
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return False
    return False


def _call(name: str, made: Any, root: Path, can_be_fetched: bool, keys: dict[str, Any]) -> Any:
    """Return a data set, or None if it has no split of that name."""
    try:
        return made(str(root), **keys)
    except ValueError as fault:
        if "split" in keys and "Unknown value" in str(fault):
            return None
        raise _not_usable(name, root, fault, "are they whole?") from fault
    except (OSError, RuntimeError, LookupError, EOFError, ImportError) as fault:
        fetch = "data.download = true fetches them, data.root says where they are"
        place = "check the connection, or put the files there (data.root says where)"
        raise _not_usable(name, root, fault, fetch if can_be_fetched else place) from fault


def _not_usable(name: str, root: Path, fault: Exception, remedy: str) -> DataError:
    reason = (str(fault).partition("You can")[0].strip().rstrip(".") or type(fault).__name__).splitlines()[0]
    return DataError(f"the files of torchvision's {name} in {shown(str(root))} cannot be used: {reason}", remedy=remedy)


def _class_names(parts: dict[Split, Any]) -> tuple[str, ...]:
    """Return the names of the classes in the data set's own order; numbers where it has no names."""
    given = getattr(parts["train"], "classes", None) or getattr(parts["train"], "categories", None) or ()
    names = [name[0] if isinstance(name, tuple) else str(name) for name in given]
    if not names:
        highest = max((_label_of(part, place) for part in parts.values() for place in range(len(part))), default=-1)
        names = [str(number) for number in range(highest + 1)]
    twice = {name for name, count in Counter(names).items() if count > 1}
    return tuple(f"{name} ({number})" if name in twice else name for number, name in enumerate(names))


def _labels(part: Any, name: str, split: str, count: int) -> list[int]:
    """Return the class of each picture.

    Raises:
        DataError: a picture has none, or something else.
    """
    labels = [_label_of(part, place) for place in range(len(part))]
    if not labels or not all(0 <= label < count for label in labels):
        got = "no pictures" if not labels else "something else"
        raise DataError(
            f"torchvision's {name} has not one class for each picture of its split {split}: got {got}",
            remedy="write its images and what is to be learnt of them into a manifest",
        )
    return labels


def _label_of(part: Any, place: int) -> int:
    """Return the class of one picture, from the list that the data set keeps, if it keeps one; -1 if it has none."""
    for attribute in ("targets", "labels", "_labels", "y"):
        listed = getattr(part, attribute, None)
        if listed is not None and len(listed) == len(part):
            return _whole(listed[place])
    samples = getattr(part, "samples", None) or getattr(part, "_samples", None)
    pair = samples[place] if samples and len(samples) == len(part) else part[place]
    return _whole(pair[1]) if isinstance(pair, tuple) and len(pair) == 2 else -1


def _whole(label: Any) -> int:
    try:
        return int(label) if int(label) == label else -1
    except (TypeError, ValueError):
        return -1


def _files(part: Any) -> list[str] | None:
    """Return the file of each picture, or None if the pictures stand in no files of their own."""
    found: Any
    if "loader" in inspect.signature(type(part)).parameters:
        found = [part[place][0] for place in range(len(part))]
    else:
        samples = getattr(part, "samples", None) or getattr(part, "_samples", None)
        found = [pair[0] for pair in samples] if samples else getattr(part, "_images", None)
    whole = isinstance(found, list) and len(found) == len(part) and all(isinstance(path, str | os.PathLike) for path in found)
    return [os.fspath(path) for path in found] if whole else None


def _in_file(path: str, root: Path) -> dict[str, Any]:
    """Return how an item names its file; one that is missing is found out when it is read."""
    try:
        status = Path(path).stat()
    except OSError:
        status = None
    return {"name": os.path.relpath(path, root), "path": path, "status": status}


def _pixels(part: Any, place: int) -> npt.NDArray[np.uint8]:
    import numpy as np

    picture = part[place][0]
    return np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))


def _png(part: Any, place: int) -> bytes:
    pixels = _pixels(part, place)
    return stored_png(pixels.tobytes(), pixels.shape[1], pixels.shape[0], pixels.shape[2] if pixels.ndim == 3 else 1)


def _digest_of_pictures(part: Any) -> bytes:
    """Return a digest of all pictures: of the array that the data set keeps, if it keeps one, else of each."""
    import numpy as np

    kept = getattr(part, "data", None)
    if kept is not None and hasattr(kept, "shape") and len(kept) == len(part):
        array = np.ascontiguousarray(np.asarray(kept))
        together = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
        together.update(array.view(np.uint8).data)
        return together.digest()
    together = hashlib.sha256()
    for place in range(len(part)):
        pixels = _pixels(part, place)
        together.update(f"{pixels.shape}".encode() + pixels.tobytes())
    return together.digest()
