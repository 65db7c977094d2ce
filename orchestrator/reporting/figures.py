"""The canvas that every plot of the report is drawn on: one look, and images that need no other file."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FULL_WIDTH = 10.4
HALF_WIDTH = 5.1
INK, MUTED, GRID = "#1f2933", "#5f6b7a", "#e3e7ec"

# Okabe and Ito's colours, told apart by colour-blind readers; their yellow is too faint on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")

_MOST_LETTERS = 26


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Hold an image as a data URI, with the text that stands for it."""

    source: str
    alt: str


def draw_plot(draw: Callable[[Figure], None], *, width: float, height: float, alt: str) -> Plot:
    """Draw on an empty figure of `width` x `height` inches and give it as an SVG image."""
    stream = io.BytesIO()
    with _house_style(), warnings.catch_warnings():
        # A letter that the bundled font lacks is only measured with it; the browser draws it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return Plot(source=f"data:image/svg+xml;base64,{encoded}", alt=alt)


def _house_style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(
        {
            "font.size": 8.5,
            "axes.edgecolor": "#b8c1cc",
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlesize": 9.0,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "text.color": INK,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "legend.frameon": False,
            # Names are data: a dollar sign in one begins no formula.
            "text.parse_math": False,
            # Letters stay text for the browser to draw: it knows more scripts than the bundled font.
            "svg.fonttype": "none",
            # The same report gives the same bytes.
            "svg.hashsalt": "orchestrator",
        }
    )


def group_color(position: int) -> str:
    """Give the colour of the group at a position in the order of groups."""
    return PALETTE[position % len(PALETTE)]


def label(name: str) -> str:
    """Shorten a name to fit beside an axis, without characters that no image can hold."""
    printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return printable if len(printable) <= _MOST_LETTERS else f"{printable[: _MOST_LETTERS - 1]}…"


def panels(figure: Figure, rows: int, columns: int, *, sharex: bool = False, sharey: bool = False) -> list[Axes]:
    """Divide a figure into a grid of axes, listed row by row."""
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return [axes for row in grid for axes in row]
