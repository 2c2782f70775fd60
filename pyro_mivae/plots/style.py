"""How every picture looks: colours, figures without pyplot, and PNGs for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from pyro_mivae.arguments import checked, flag, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Petroff (2021), "Accessible Color Sequences for Data Visualization", https://arxiv.org/abs/2107.02270:
# ten colours that stay apart for the common kinds of colour blindness.
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
MARKERS = ("o", "^", "s", "D", "v")

INK = "#1f2328"
MUTED = "#59636e"
LINE = "#d1d9e0"
# On a dark page exactly these three change; colours that carry data stay.
DARK = {INK: "#e6edf3", MUTED: "#a3acb7", LINE: "#30363d"}

FONT = 10.5
SMALL = 9.5
# Five inches shown on a phone (about 370 pixels) leave 10-point text at about 10 pixels.
WIDTH = 5.0
DPI = 200


def group_color(index: int) -> str:
    """Names the colour of a group (a category, a label, a curve), repeating after the tenth."""
    return PALETTE[index % len(PALETTE)]


def group_marker(index: int) -> str:
    """Names the marker of a group, which changes where the colours begin to repeat."""
    return MARKERS[(index // len(PALETTE)) % len(MARKERS)]


def site_color(site: str) -> str:
    """Names the colour of a site, the same one in every picture: ``z`` blue, ``c`` orange."""
    known = {"z": 0, "c": 1, "x": 8}
    return group_color(known.get(site, 2 + sum(map(ord, site)) % 6))


@checked(height=number(above=0, most=10_000), width=number(above=0, most=100))
def new_figure(height: float = 3.2, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Makes a figure with one Axes on the Agg canvas: no display, no pyplot, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def style_axes(ax: Axes, *, grid: bool = False, frame: bool = True) -> None:
    """Gives an Axes the package's look: quiet frame, no tick marks, readable text."""
    ax.set_facecolor("none")
    ax.tick_params(length=0, labelsize=SMALL, labelcolor=INK)
    ax.xaxis.label.set(color=MUTED, fontsize=SMALL)
    ax.yaxis.label.set(color=MUTED, fontsize=SMALL)
    for side, spine in ax.spines.items():
        spine.set_visible(frame and side in ("left", "bottom"))
        spine.set(edgecolor=LINE, linewidth=1.0)
    if grid:
        ax.grid(color=LINE, linewidth=0.6)
        ax.set_axisbelow(True)


@contextmanager
def dark_colors(figure: Figure) -> Iterator[None]:
    """Lends a figure the inks of a dark page, and gives it back as it was."""
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    undo = []
    for artist in figure.findobj():
        if isinstance(artist, Text | Line2D):
            before = to_hex(artist.get_color())
            if before in DARK:
                artist.set_color(DARK[before])
                undo.append((artist.set_color, before))
        elif isinstance(artist, Patch):
            edge = to_hex(artist.get_edgecolor())
            if edge in DARK:
                artist.set_edgecolor(DARK[edge])
                undo.append((artist.set_edgecolor, edge))
    try:
        yield
    finally:
        for restore, color in undo:
            restore(color)


@checked(dark=flag())
def render_png(figure: Figure, *, dark: bool = False) -> bytes:
    """Renders a figure as PNG, its height trimmed to what is drawn, its width kept.

    Texts are drawn as they are: a dollar sign begins no formula.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    engine = figure.get_layout_engine()
    buffer = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # of the ticks, which drawing makes
        for _ in range(2):  # the first makes the ticks, for which the second makes room
            figure.draw_without_rendering()
        figure.set_layout_engine("none")
        with dark_colors(figure) if dark else nullcontext():
            drawn = figure.get_tightbbox()
            whole = Bbox([[0.0, drawn.y0 - 0.06], [figure.get_figwidth(), drawn.y1 + 0.06]])
            ground = "none" if dark else "white"
            figure.savefig(buffer, format="png", facecolor=ground, bbox_inches=whole)
    figure.set_layout_engine(engine)
    return buffer.getvalue()
