"""Writes a judged source as a `Dataset`: the same images give the same bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edgetune.artefacts import Dataset, Preprocessing
from edgetune.data.decoding import Seen
from edgetune.data.hygiene import Hygiene
from edgetune.data.judge import Judgement
from edgetune.data.listing import shown
from edgetune.data.rows import Rows, write_npy
from edgetune.data.source import Item, Source
from edgetune.data.targets import Targets
from edgetune.device.heads import heads_to_json, targets_of
from edgetune.errors import DataError, Fault
from edgetune.files import digest_of, write_atomic, write_json

__all__ = ["Writer", "choose_golden", "larger_side", "refusal"]

GOLDEN_IMAGES = 8
GOLDEN_BYTES = 256 * 1024


def larger_side(spec: Preprocessing) -> int:
    """Return the side of the train images that augmentation cuts from: 8/7 of the input's, rounded up to an even number."""
    side = math.ceil(spec.height * 8 / 7)
    return side + side % 2


def refusal(source: Source, faults: Sequence[Fault]) -> DataError:
    """Return the error that names everything that is wrong with a source, and what can be done about it."""
    noun = "fault" if len(faults) == 1 else "faults"
    remedies = {
        "the same image under two labels": "data.conflicts=skip leaves the disputed images out",
        "the same image with different targets": "data.conflicts=skip leaves the disputed images out",
        "changed during the run": "leave the images alone and run the command again",
        "that is also in": "data.leakage=warn goes on with a warning",
    }
    again = shown(source.name) if source.is_classifier else "RECIPE"
    said = [remedy for sign, remedy in remedies.items() if any(sign in fault.problem for fault in faults)]
    return DataError(
        f"{shown(source.name)} cannot be used: {len(faults)} {noun}",
        faults=faults,
        remedy="; ".join(["mend every line above", *said]) + f" (`edgetune data {again}` shows everything)",
    )


class Writer:
    """Writes into one folder.

    Attributes:
        input: how an image becomes the model's input.
        larger: how a train image becomes what augmentation cuts from: the whole image (as far as `resize` keeps it), larger.
    """

    def __init__(self, source: Source, name: str, folder: Path, spec: Preprocessing) -> None:
        self._source, self._name, self._folder = source, name, folder
        self.input = spec
        self.larger = dataclasses.replace(spec, height=larger_side(spec), width=larger_side(spec), crop_fraction=1.0)

    def write(
        self,
        seen: Sequence[Seen],
        judgement: Judgement,
        unlabelled: Sequence[int],
        hygiene: Hygiene,
        inputs: Rows,
        sources: Rows,
    ) -> Dataset:
        """Write all files.

        Args:
            seen: what became of each item of the source.
            judgement: which split each item is in.
            unlabelled: places of the unlabelled images to keep.
            hygiene: the report.
            inputs: each item as the model takes it.
            sources: each train item, and behind the items each unlabelled one, larger.

        Raises:
            DataError: a golden image is not any more what was decoded.
            OSError: a file cannot be written.
        """
        items, strata = self._source.items, self._source.strata
        labels = {name: number for number, name in enumerate(strata)}
        counts = Counter((split, items[place].label) for split, places in judgement.splits.items() for place in places)
        for split, places in judgement.splits.items():
            (self._folder / split).mkdir()
            self._write_rows(f"{split}/images.npy", inputs, places)
            self._write_labels(f"{split}/labels.npy", [labels[items[place].label] for place in places])
            if not self._source.is_classifier:
                self._write_targets(f"{split}/targets.npy", [items[place].targets for place in places])
            write_json(self._folder / split / "names.json", [items[place].name for place in places])
        self._write_rows("train/source.npy", sources, judgement.splits["train"])
        if unlabelled:
            (self._folder / "unlabelled").mkdir()
            self._write_rows("unlabelled/source.npy", sources, unlabelled)
        write_json(self._folder / "report.json", json.loads(hygiene.model_dump_json()))
        dataset: Dataset = Dataset(
            source=self._name,
            classes=self._source.classes,
            heads=self._source.heads,
            strata=strata,
            preprocessing=self.input,
            source_size=(self.larger.height, self.larger.width),
            counts={split: len(places) for split, places in judgement.splits.items()},
            class_counts={split: tuple(counts[split, label] for label in strata) for split in judgement.splits},
            content_digest=self._content_digest(seen, judgement, unlabelled),
            golden=self._write_golden(seen, judgement.splits["test"]),
            unlabelled=len(unlabelled),
            warnings=hygiene.warnings,
        ).at(self._folder)
        return dataset

    def _write_rows(self, name: str, rows: Rows, places: Sequence[int]) -> None:
        array = rows.array()
        write_npy(self._folder / name, (len(places), *array.shape[1:]), "uint8", (array[place] for place in places))

    def _write_labels(self, name: str, labels: Sequence[int]) -> None:
        import numpy as np

        write_npy(self._folder / name, (len(labels),), "<i8", [np.array(labels, "<i8")])

    def _write_targets(self, name: str, targets: Sequence[Targets]) -> None:
        import numpy as np

        shape = (len(targets), targets_of(self._source.heads)[-1].stop)
        write_npy(self._folder / name, shape, "<f4", [np.array(targets, "<f4")])

    def _content_digest(self, seen: Sequence[Seen], judgement: Judgement, unlabelled: Sequence[int]) -> str:
        """Return a digest of every picture, split and target; what a classifier has not leaves no trace in it."""
        items = self._source.items
        rows = sorted(
            [split, items[p].label, seen[p].pixels, *self._told(items[p])]
            for split, places in judgement.splits.items()
            for p in places
        )
        content: list[object] = [*rows]
        if not self._source.is_classifier:
            content = [[*heads_to_json(self._source.heads)], content]
        if unlabelled:
            content = [content, sorted(seen[place].pixels for place in unlabelled)]
        return digest_of(content)

    def _told(self, item: Item) -> list[str]:
        return [] if self._source.is_classifier else list(map(repr, item.targets))

    def _write_golden(self, seen: Sequence[Seen], tests: Sequence[int]) -> tuple[tuple[str, int], ...]:
        (self._folder / "golden").mkdir()
        golden = []
        for number, index in enumerate(choose_golden(self._source, seen, tests)):
            item = self._source.items[tests[index]]
            try:
                content = item.read()
            except OSError:
                content = b""
            if hashlib.sha256(content).hexdigest() != seen[tests[index]].digest:
                raise refusal(self._source, [Fault(where=shown(item.name), problem="changed during the run")])
            name = f"{number:02}{PurePosixPath(item.name).suffix.lower()}"
            write_atomic(self._folder / "golden" / name, content)
            golden.append((name, index))
        return tuple(golden)


def choose_golden(source: Source, seen: Sequence[Seen], tests: Sequence[int]) -> list[int]:
    """Return the places in the test split of a few images: of as many classes as can be, small files first, by digest."""

    def order(index: int) -> tuple[bool, str, int]:
        one = seen[tests[index]]
        return one.size_bytes > GOLDEN_BYTES, one.digest, index

    rank: Counter[str] = Counter()
    ranked = []
    for index in sorted(range(len(tests)), key=order):
        label = source.items[tests[index]].label
        ranked.append((rank[label], *order(index)))
        rank[label] += 1
    return [entry[-1] for entry in sorted(ranked)[:GOLDEN_IMAGES]]
