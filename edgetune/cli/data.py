"""`edgetune data`: what is in a source of images, and whether a build can use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.cli.console import progress
from edgetune.errors import DataError
from edgetune.recipe import Recipe

if TYPE_CHECKING:
    from edgetune.data.hygiene import HeadAccount, Hygiene

__all__ = ["command"]

SHOWN = 20
"""Entries of a list that are printed; --json has all. Problems are always printed, all of them."""


@click.command(name="data")
@click.argument("source", default="digits", metavar="[SOURCE]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe, as data.corrupt=skip.")
def command(source: str, as_json: bool, settings: Sequence[str]) -> None:
    """Report the classes, splits, sizes, faults and copies in SOURCE, as a build would see them.

    SOURCE is a folder, a manifest (.csv, .tsv or .parquet), a data set like torchvision:CIFAR10, or the built-in digits, the
    default; or a recipe (.toml), for what it says of the data and its tasks.

    Writes nothing that stays. Exit code 5 means that a build would refuse the images.
    """
    from edgetune.data import inspect

    if source.endswith(".toml") and not Path(source).is_dir():
        recipe = Recipe.load(Path(source), settings)
    else:
        recipe = Recipe.load(None, settings, {"data.source": source})
    with progress() as teller:
        report = inspect(recipe.data, teller, seed=recipe.seed, tasks=recipe.tasks)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        for line in _lines(report):
            click.echo(line)
    if report.problems:
        count = len(report.problems)
        noun = "problem" if count == 1 else "problems"
        raise DataError(
            f"{report.source} cannot be used: {count} {noun}, named in the report", remedy="mend them and run this again"
        )


def _lines(report: Hygiene) -> Iterator[str]:
    """Yield the report for a person; problems come last, where a terminal stops."""
    learnt = f"{len(report.classes)} classes"
    if report.heads:
        learnt = ", ".join(f"{head.name} ({head.kind})" for head in report.heads)
    yield click.style(f"{report.source}: {report.listed} images, {report.usable} usable, {learnt}", bold=True)
    origin = f"the source's own: {', '.join(report.given_splits)}" if report.given_splits else "made by edgetune"
    yield f"splits: {origin}; model input: {report.image_size} x {report.image_size} pixels"
    if report.widths and report.heights:
        (w0, w1, w2), (h0, h1, h2) = report.widths, report.heights
        yield f"sizes (smallest, median, largest): width {w0}, {w1}, {w2}; height {h0}, {h1}, {h2} pixels"
    yield ""
    yield from _table(report)
    for head in report.heads:
        yield from _head(head)
    if report.unlabelled or report.unlabelled_copies:
        left_out = f"; {len(report.unlabelled_copies)} left out" if report.unlabelled_copies else ""
        yield f"images without labels: {report.unlabelled}{left_out}"
    if report.imbalance:
        yield f"largest class / smallest class in train: {report.imbalance:g}"
    yield from _section("converted", [f"{note}: {count}" for note, count in report.conversions.items()])
    yield from _section("passed over", [f"{name}: {reason}" for name, reason in report.skipped.items()])
    yield from _section("cannot be decoded", [f"{name}: {reason}" for name, reason in report.corrupt.items()])
    yield from _section("sets of equal pictures", map(" = ".join, report.duplicates))
    yield from _section("sets of near-duplicates", map(" ~ ".join, report.near_duplicates))
    yield from _section("equal pictures under several labels", map(" = ".join, report.conflicts))
    yield from _section("near-duplicates under several labels", map(" ~ ".join, report.near_conflicts))
    yield from _section("warnings", report.warnings, colour="yellow", limit=None)
    yield from _section("problems", report.problems, colour="red", limit=None)
    if not report.problems:
        yield ""
        yield click.style("a build can use these images", fg="green")


def _head(head: HeadAccount) -> Iterator[str]:
    """Yield what is known of one task."""
    yield ""
    yield click.style(f"{head.name} ({head.kind})", bold=True)
    if head.labels:
        yield from _counts("images that show", head.labels)
    for name, spread in head.values.items():
        yield (
            f"  {name}: {spread.smallest:g} to {spread.largest:g}, median {spread.median:g}, standard deviation {spread.std:g}"
        )
    for name, count in head.unknown.items():
        yield f"  not known of {count} {'image' if count == 1 else 'images'}: {name}"


def _table(report: Hygiene) -> Iterator[str]:
    totals = {split: sum(row[split] for row in report.classes.values()) for split in ("train", "val", "test")}
    yield from _counts("stratum" if report.heads else "class", {**report.classes, "all": totals})


def _counts(title: str, counts_by_name: dict[str, dict[str, int]]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [(title, "train", "val", "test")]
    rows += [(name, *(str(row[split]) for split in ("train", "val", "test"))) for name, row in counts_by_name.items()]
    width = max(len(row[0]) for row in rows)
    for name, *counts in rows:
        yield f"  {name.ljust(width)}" + "".join(count.rjust(8) for count in counts)


def _section(title: str, entries: Iterable[str], *, colour: str | None = None, limit: int | None = SHOWN) -> Iterator[str]:
    listed = list(entries)
    if not listed:
        return
    yield ""
    yield click.style(f"{title} ({len(listed)})", bold=True, fg=colour)
    for entry in listed[:limit]:
        yield f"  {entry}"
    if limit and len(listed) > limit:
        yield f"  and {len(listed) - limit} more (--json shows all)"
