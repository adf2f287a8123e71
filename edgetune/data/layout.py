"""A folder laid out in classes.

Layouts: `CLASS/image`, or `train/CLASS/image` with `val` (or `valid`, `validation`) and `test` beside `train` where the user
has made those splits. Folders below a class belong to it. A class is named as its folder, in Unicode's NFC form, so that
a folder copied from a Mac is the same class.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from edgetune.artefacts import Split
from edgetune.data.listing import UNNAMEABLE, Folder, Found, Tree, shown, suffixes_for
from edgetune.data.source import SPLIT_WORDS, SPLITS, Item, Source, case_clashes, one_head
from edgetune.errors import DataError, Fault

__all__ = ["open_folder"]

LAYOUT = "one folder of images per class, or train/ (and, if you like, val/ and test/) with such folders in them"


def open_folder(name: str, head_name: str, channels: int = 3) -> Source:
    """List the images of a folder, without opening any.

    Args:
        name: the folder, as the recipe gave it.
        head_name: of the one task.
        channels: of the images; see `suffixes_for`.

    Raises:
        DataError: there is no such folder, or it cannot be read. Other faults are in the value.
    """
    tree = Tree(root=Path(name).expanduser(), suffixes=suffixes_for(channels))
    try:
        top = tree.top()
    except OSError as fault:
        raise _unusable(name, fault) from fault
    return _Layout(name, tree, top).source(head_name)


def _unusable(source: str, fault: OSError) -> DataError:
    remedy = f"give data.source a folder with {LAYOUT}"
    if isinstance(fault, FileNotFoundError):
        return DataError(f"there is no folder {shown(source)}", remedy=f"{remedy}; or the built-in name digits")
    if isinstance(fault, NotADirectoryError):
        remedy = f"unpack it if it is an archive, and {remedy}; or give a manifest (.csv, .tsv or .parquet)"
        return DataError(f"{shown(source)} is a file, not a folder", remedy=remedy)
    return DataError(f"{shown(source)} cannot be read: {fault.strerror}", remedy="check the permissions of the folder")


class _Layout:
    """Reads one folder's layout, gathering faults instead of stopping at the first."""

    def __init__(self, name: str, tree: Tree, top: Folder) -> None:
        self._name, self._tree = name, tree
        self._folders, self._files = tree.entries(top)
        self._found: list[tuple[Found, str, Split | None]] = []
        self._faults: list[Fault] = []
        self._folder_names: dict[str, set[str]] = defaultdict(set)  # NFC name of a class → its raw names

    def source(self, head_name: str) -> Source:
        by_split = self._splits()
        if by_split is None:
            self._classes_in(self._folders, None)
        else:
            for split, folder in by_split.items():
                inner, beside = self._tree.entries(folder)
                self._skip(beside, f"an image beside the class folders of {folder.name}/")
                self._classes_in(inner, split)
        self._skip(self._files, "an image at the top, beside the folders: it has no class")
        given = tuple(split for split in SPLITS if by_split and split in by_split)
        self._faults += case_clashes(self._folder_names)
        self._judge_classes()
        classes = tuple(sorted(self._folder_names))
        number = {label: float(index) for index, label in enumerate(classes)}
        items = (_item(found, label, number[label], split) for found, label, split in self._found)
        return Source(
            name=self._name,
            items=tuple(sorted(items, key=lambda item: item.name)),
            heads=one_head(head_name, classes),
            strata=classes,
            given=given if given != ("train",) else (),
            skipped=dict(sorted(self._tree.skipped.items())),
            outside=tuple(sorted(self._tree.outside)),
            faults=tuple(self._faults),
        )

    def _splits(self) -> dict[Split, Folder] | None:
        """Return the folders of the splits, or None if the folders at the top are classes."""
        named = [folder for folder in self._folders if folder.name.lower() in SPLIT_WORDS]
        others = [folder for folder in self._folders if folder.name.lower() not in SPLIT_WORDS]
        has_train = any(SPLIT_WORDS[f.name.lower()] == "train" and self._tree.entries(f)[0] for f in named)
        if not has_train:
            if named and not others:
                names = ", ".join(f"{folder.name}/" for folder in named)
                self._fault("", "no folder train/ with class folders in it", got=names, expected=LAYOUT)
            return None
        for folder in others:
            if any(True for _ in self._tree.images(folder)):
                hint = "move it away, or rename train/ if that is a class"
                self._fault(folder.name, "a folder of images beside train/", expected="only train/, val/ and test/", hint=hint)
            else:
                self._tree.skipped[shown(folder.name)] = "a folder without images beside train/"
        found: dict[Split, Folder] = {}
        for folder in named:
            split = SPLIT_WORDS[folder.name.lower()]
            if split in found:
                self._fault(folder.name, f"a second folder for the {split} split", got=f"{found[split].name}/ as well")
            found[split] = folder
        return found

    def _classes_in(self, folders: Iterable[Folder], split: Split | None) -> None:
        seen: dict[str, str] = {}
        for folder in folders:
            raw = folder.name.rpartition("/")[2]
            label = unicodedata.normalize("NFC", raw)
            if label in seen:
                self._fault(folder.name, f"its name is the same text as that of {seen[label]}, in another Unicode form")
            seen[label] = folder.name
            self._folder_names[label].add(raw)
            self._found += [(found, label, split) for found in self._tree.images(folder)]

    def _judge_classes(self) -> None:
        for name, reason in self._tree.skipped.items():
            # A file may be passed over; a folder that would have been a class must not go unnoticed.
            if reason == UNNAMEABLE and name.count("/") <= 1:
                self._fault(name, "a folder whose name is not UTF-8 cannot name a class", hint="rename it")
        if not self._folder_names:
            got = f"{len(self._files)} images and no folders" if self._files else "no images"
            self._fault("", "no class", got=got, expected=LAYOUT)
        elif len(self._folder_names) == 1:
            self._fault(shown(next(iter(self._folder_names))), "the only class", expected="at least two classes")
        filled = {label for _, label, _ in self._found}
        for label in sorted(set(self._folder_names) - filled):
            self._fault(shown(label), "a class without images", hint="add images or remove the folder")

    def _skip(self, files: Iterable[Found], reason: str) -> None:
        self._tree.skipped.update((shown(file.name), reason) for file in files)

    def _fault(self, where: str, problem: str, *, got: str = "", expected: str = "", hint: str = "") -> None:
        self._faults.append(Fault(where=shown(where), problem=problem, got=got, expected=expected, hint=hint))


def _item(found: Found, label: str, number: float, split: Split | None) -> Item:
    return Item(name=found.name, label=label, targets=(number,), split=split, path=found.path, status=found.status)
