"""What pictures are drawn on: sizes, letters and colours, and a PNG file at the end.

The same figures give the same bytes. Colours are Okabe and Ito's, which colour-blind people tell apart; nothing is said by
colour alone. Nothing here touches pyplot, so that no window and no figure of the caller's is concerned.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLUE", "INK", "VERMILLION", "figure_at", "in_letters", "short_name"]

BLUE, VERMILLION, INK, FAINT = "#0072B2", "#D55E00", "#222222", "#8A8A8A"
DOTS_PER_INCH = 100
NAME_LENGTH = 22
# Whatever the user's matplotlibrc says.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # Comes with matplotlib: the same letters on every machine.
    "font.size": 11.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 12.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # A class may be called $5.
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.0,
}


@contextmanager
def figure_at(path: Path, width: int, height: int, *, square: bool = False) -> Iterator[Figure]:
    """Give a figure of so many pixels, and write it as PNG when it is drawn.

    Args:
        path: of the file.
        width: in pixels.
        height: in pixels.
        square: its axes keep their aspect, and labels and bars move up to them.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(
            figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH),
            dpi=DOTS_PER_INCH,
            layout="compressed" if square else "constrained",
        )
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, hspace=0.04)  # type: ignore[union-attr, call-arg]
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_atomic(path, content.getvalue())


def in_letters(text: str) -> str:
    """Return a text in one line, with a square for each letter that the font has no shape for."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    flat = " ".join(text.split())
    return "".join(
        letter if letter.isprintable() and font.get_char_index(ord(letter)) else "\N{WHITE SQUARE}" for letter in flat
    )


def short_name(name: str, index: int) -> str:
    """Return a class's name so that it fits; its index tells it apart where letters are lost."""
    shown = in_letters(name)
    if not shown or shown != " ".join(name.split()):
        shown = f"{index}: {shown}"
    if len(shown) <= NAME_LENGTH:
        return shown
    # Long names often differ at their ends: dates, variants, numbers.
    half = NAME_LENGTH // 2
    return f"{shown[: NAME_LENGTH - half]}…{shown[-half + 1 :]}"
