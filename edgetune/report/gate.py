"""A comparison as a person reads it: lines on a terminal, and a page of Markdown for a CI job's summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgetune.artefacts import VerdictRow
from edgetune.artefacts.comparison import ChangedDecision, Comparison
from edgetune.report.words import cell, table

__all__ = ["console_lines", "effect_in_words", "seen_in_words", "summary_markdown", "title", "verdict_in_words"]

WORDS = {
    "KEPT": "the candidate is as good as its baseline, within the tolerances",
    "BROKEN": "the candidate is worse than its baseline by more than a tolerance",
    "INCONCLUSIVE": "nothing is shown to be worse, but not everything could be confirmed",
}
EFFECTS = {"lost": "only the baseline is right", "gained": "only the candidate is right", "other": "neither is right"}
WORST = 10
"""Changed images on a terminal."""
IN_MARKDOWN = 30
SIGNS = {"KEPT": "✅", "BROKEN": "❌", "INCONCLUSIVE": "❔", "SKIPPED": "⚪"}


def title(comparison: Comparison) -> str:
    """Return what was compared with what."""
    return f"{comparison.candidate.given} against {comparison.baseline.given}"


def verdict_in_words(comparison: Comparison) -> str:
    """Return the overall verdict and what it means, in one line."""
    return f"{comparison.overall}: {WORDS[comparison.overall]}"


def effect_in_words(one: ChangedDecision) -> str:
    """Return what a changed decision did to the accuracy."""
    return EFFECTS[one.effect] if one.label else "what is right is not known"


def _samples(row: VerdictRow) -> str:
    return str(row.data.get("samples", ""))


def _smallest(row: VerdictRow) -> str:
    return str(row.data.get("smallest", ""))


def seen_in_words(row: VerdictRow) -> str:
    """Return how much a verdict rests on, and the smallest change that it could have seen; empty if nothing was looked at."""
    if not _samples(row):
        return ""
    return f"from {_samples(row)}" + (f", enough to see {_smallest(row)}" if _smallest(row) else "")


def console_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the comparison as plain lines: verdicts, the worst changed images, the word that follows."""
    yield title(comparison)
    width = max(len(row.name) for row in comparison.verdicts)
    for row in comparison.verdicts:
        limit = f" (allowed: {row.limit})" if row.limit and row.figure else ""
        found = f"{row.figure}{limit}" if row.figure else row.reason
        yield f"{row.verdict:<12} {row.name:<{width}}  {found}".rstrip()
        if _samples(row):
            yield f"{'':<12} {'':<{width}}  {seen_in_words(row)}"
        if row.reason and row.figure:
            yield f"{'':<12} {'':<{width}}  {row.reason}"
    yield from _changed(comparison)
    for text in comparison.warnings:
        yield f"warning: {text}"
    yield f"measured on {comparison.where}{_load(comparison)}"
    yield verdict_in_words(comparison)


def _changed(comparison: Comparison) -> Iterator[str]:
    if comparison.changed:
        yield f"{comparison.changed_total} decisions changed; the worst:"
    for one in comparison.changed[:WORST]:
        right = f", right: {one.label}" if one.label else ""
        head = f"{one.head}: " if one.head else ""
        yield f"  {one.image}  {head}{one.baseline} → {one.candidate}{right}{_margin(one, ', margin ')}"
    if len(comparison.changed) > WORST:
        yield f"  … and {comparison.changed_total - WORST} more; --output DIR keeps a list with pictures"


def _margin(one: ChangedDecision, before: str = "") -> str:
    return "" if one.margin is None else f"{before}{one.margin:.2f}"


def _load(comparison: Comparison) -> str:
    before = comparison.environment.get("load_average")
    after = comparison.environment.get("after", {}).get("load_average")
    return f", load {before[0]:.1f} before, {after[0]:.1f} after" if before and after else ""


def summary_markdown(comparison: Comparison, pictures: bool = False) -> str:
    """Return the comparison as GitHub-flavoured Markdown.

    Args:
        comparison: the judgement.
        pictures: show those of changed decisions: for a page that lies beside them, not for a job's summary.
    """
    lines = [f"# {SIGNS[comparison.overall]} edgetune compare: {comparison.overall}", ""]
    lines += [f"{cell(title(comparison))}: {cell(WORDS[comparison.overall])}.", ""]
    header = ("", "verdict", "check", "found", "allowed", "from", "enough to see", "why")
    lines += table(header, [_row(row) for row in comparison.verdicts])
    lines += [f"\n> ⚠️ {cell(text)}" for text in comparison.warnings]
    lines += _changed_markdown(comparison, pictures)
    lines += ["", f"Measured on {cell(comparison.where)}{cell(_load(comparison))}."]
    lines += _facts(comparison)
    return "\n".join(lines) + "\n"


def _row(row: VerdictRow) -> Sequence[str]:
    return SIGNS[row.verdict], row.verdict, row.name, row.figure, row.limit, _samples(row), _smallest(row), row.reason


def _changed_markdown(comparison: Comparison, pictures: bool) -> list[str]:
    if not comparison.changed:
        return []
    shown = comparison.changed if pictures else comparison.changed[:IN_MARKDOWN]
    header = (*(("picture",) if pictures else ()), "image", "right", "baseline", "candidate", "effect", "margin")
    lines = table(
        header,
        [
            (
                *(("",) if pictures else ()),
                one.image,
                one.label or "?",
                f"{one.head}: {one.baseline}" if one.head else one.baseline,
                one.candidate,
                effect_in_words(one),
                _margin(one),
            )
            for one in shown
        ],
    )
    if pictures:
        for place, one in enumerate(shown, start=2):
            lines[place] = f"| {f'![]({one.picture})' if one.picture else ''} |" + lines[place].removeprefix("|  |")
    more = f" The first {len(shown)}:" if len(shown) < comparison.changed_total else ""
    return [
        "",
        f"## {comparison.changed_total} changed decisions, worst first",
        "",
        *([more.strip(), ""] if more else []),
        *lines,
    ]


def _facts(comparison: Comparison) -> list[str]:
    data = comparison.data
    lines = ["", "<details><summary>What was compared</summary>", ""]
    lines += table(
        ("", "baseline", "candidate"),
        [
            (name, getattr(comparison.baseline, key), getattr(comparison.candidate, key))
            for name, key in (
                ("what", "given"),
                ("kind", "kind"),
                ("product", "product"),
                ("precision", "precision"),
                ("model sha256", "model_sha256"),
                ("bundle sha256", "bundle_sha256"),
            )
        ],
    )
    if data:
        lines += ["", f"{data['images']} images of {cell(data['source'])}, pixels sha256 `{data['images_sha256']}`."]
    return [*lines, "", "</details>"]
