"""A comparison as one HTML page that needs nothing else: the verdicts, and the changed decisions with their pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

from edgetune.artefacts.comparison import ChangedDecision, Comparison
from edgetune.report.gate import WORDS, effect_in_words, seen_in_words, title

__all__ = ["html_page"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 75em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3em .7em; }
th, td { border-bottom: 1px solid #ddd; } small { color: #555; }
.BROKEN { color: #a33b00; font-weight: bold; } .INCONCLUSIVE { color: #7a5b00; } .KEPT { color: #005a8c; }
.SKIPPED { color: #666; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(13em, 1fr)); gap: 1em; padding: 0; }
ol li { list-style: none; border: 1px solid #ddd; border-radius: 4px; padding: .7em; overflow-wrap: anywhere; }
img { image-rendering: pixelated; max-width: 100%; display: block; margin-bottom: .5em; }
"""


def html_page(comparison: Comparison, folder: Path) -> str:
    """Return the page.

    Args:
        comparison: the judgement.
        folder: of the report, where the pictures are.
    """
    return "\n".join(_lines(comparison, folder)) + "\n"


def _lines(comparison: Comparison, folder: Path) -> Iterator[str]:
    name = escape(title(comparison))
    yield '<!doctype html><html lang="en"><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{comparison.overall}: {name}</title><style>{STYLE}</style>"
    yield f'<h1>{name}</h1><p><span class="{comparison.overall}">{comparison.overall}</span>: '
    yield f"{escape(WORDS[comparison.overall])}. Measured on {escape(comparison.where)}.</p>"
    for text in comparison.warnings:
        yield f"<p>⚠️ {escape(text)}</p>"
    yield "<table><tr><th>verdict<th>check<th>found<th>allowed<th>why</tr>"
    for row in comparison.verdicts:
        yield f'<tr><td class="{row.verdict}">{row.verdict}<td>{escape(row.name)}<td>{escape(row.figure)}'
        yield f"<br><small>{escape(seen_in_words(row))}</small><td>{escape(row.limit)}<td>{escape(row.reason)}</tr>"
    yield "</table>"
    if comparison.changed:
        yield f"<h2>{comparison.changed_total} changed decisions, worst first</h2><ol>"
        for one in comparison.changed:
            yield _item(one, folder)
        yield "</ol>"
    yield "</html>"


def _item(one: ChangedDecision, folder: Path) -> str:
    picture = ""
    if one.picture:
        content = base64.b64encode((folder / one.picture).read_bytes()).decode()
        picture = f'<img alt="{escape(one.image)}" src="data:image/png;base64,{content}">'
    head = f"{escape(one.head)}: " if one.head else ""
    margin = "" if one.margin is None else f", margin {one.margin:.2f}"
    return (
        f"<li>{picture}<b>{head}{escape(one.baseline)} → {escape(one.candidate)}</b><br>right: {escape(one.label or '?')}<br>"
        f"<small>{effect_in_words(one)}{margin}<br>{escape(one.image)}</small></li>"
    )
