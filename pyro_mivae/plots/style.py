"""Style of pictures: colours, checks, figures without pyplot, PNGs for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pyro_mivae.arguments import (
    Checker,
    Given,
    Sizes,
    checked,
    checker,
    flag,
    instance,
    number,
    numbers,
    several,
    shown,
)
from pyro_mivae.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox
    from PIL.Image import Image

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
REAL = instance(Real, example="0.5")
CELLS = numbers("...", "width", finite=False)
WORDS = several(instance(str, example="'a'"), least=0)
NAMES = several(instance(str, example="'a'"))
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


def series(name: str, value: Any, sizes: Sizes | None = None) -> list[float]:
    """Checks numbers, possibly NaN; returned as a list."""
    values = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    return several(REAL, least=0)(name, values, sizes)


def color(name: str, value: Any, sizes: Sizes | None = None) -> Any:
    """Checks for a colour that matplotlib knows."""
    from matplotlib.colors import is_color_like

    if not is_color_like(value):
        raise OptionError(f"{name}={shown(value)}; allowed are colours, such as '#3f90da'")
    return value


@checker
def pair(given: Given, each: Checker) -> list[Any]:
    """Checks for two elements; returned as a list."""
    values = several(each)(given.name, given.value, given.sizes)
    if len(values) != 2:
        raise OptionError(f"{given.name} holds {len(values)}; give 2")
    return values


def group_color(index: int) -> str:
    """Returns the colour of a group (category, label, curve); repeats after the tenth."""
    return PALETTE[index % len(PALETTE)]


def group_marker(index: int) -> str:
    """Returns the marker of a group; a new one each time the colours repeat."""
    return MARKERS[(index // len(PALETTE)) % len(MARKERS)]


def site_color(site: str) -> str:
    """Returns the colour of a site, the same in every picture: ``z`` blue, ``c`` orange."""
    known = {"z": 0, "c": 1, "x": 8}
    return group_color(known.get(site, 2 + sum(map(ord, site)) % 6))


@checked(height=number(above=0, most=10_000), width=number(above=0, most=100))
def new_figure(height: float = 3.2, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Makes a figure with one Axes on the Agg canvas: no display, no pyplot, no global state.

    Example:
        >>> figure, ax = new_figure(height=2.0)
        >>> figure.get_size_inches().tolist()[1]
        2.0
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def style_axes(ax: Axes, *, grid: bool = False, frame: bool = True) -> None:
    """Applies the package's style to an Axes: light frame, no tick marks, readable text."""
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


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Labels rows at heights 0, 1, ..., the first at the top."""
    ax.set_yticks(range(len(names)), list(names))
    ax.tick_params(axis="y", labelsize=FONT)
    ax.set_ylim(len(names) - 0.4, -0.6)


def write(
    ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float] = (0, 0), **look: Any
) -> Annotation:
    """Writes a text, ``offset`` points away from a place."""
    look = {"fontsize": SMALL, "color": INK, "textcoords": "offset points", **look}
    return ax.annotate(text, at, offset, **look)


def write_free(
    ax: Axes,
    text: str,
    places: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    taken: list[Bbox],
    *,
    inside: bool = True,
    **look: Any,
) -> bool:
    """Writes a text at the first place and offset where it covers nothing, if there is one.

    The figure's layout must be final. The text's box is added to ``taken``.
    """
    for at, (right, up) in places:
        look["ha"] = "center" if right == 0 else "left" if right > 0 else "right"
        look["va"] = "center" if right == 0 else "bottom" if up > 0 else "top"
        note = write(ax, text, at, (right, up), **look)
        box = note.get_window_extent()
        fits = not inside or ax.bbox.count_contains(box.corners()) == 4
        if fits and not box.count_overlaps(taken):
            taken.append(box.padded(2))
            return True
        note.remove()
    return False


def name_of(group: int, names: Sequence[str] | None) -> str:
    """Returns a group's name, or its number."""
    return names[group] if names is not None and 0 <= group < len(names) else str(group)


def percent(share: float) -> str:
    """Formats a share in percent, with a digit after the point for small shares."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


@checked(dark=flag())
def render_png(figure: Figure, *, dark: bool = False) -> bytes:
    """Renders a figure as PNG, with the height trimmed to its content.

    Texts are literal: a dollar sign does not begin a formula. With ``dark`` the colours suit a
    dark page; the figure itself keeps its own.

    Example:
        >>> figure, ax = new_figure()
        >>> render_png(figure)[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    render_schemes(figure, dark)[0].save(buffer, "PNG")
    return buffer.getvalue()


def render_schemes(figure: Figure, *dark: bool) -> list[Image]:
    """Renders a figure for light and for dark pages, which share one layout."""
    from matplotlib import rc_context
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    engine = figure.get_layout_engine()
    with rc_context({"text.parse_math": False}):  # of the ticks, which drawing makes
        if engine is not None:
            for _ in range(2):  # the first makes the ticks, for which the second makes room
                engine.execute(figure)
        figure.set_layout_engine(None)
        drawn = figure.get_tightbbox()
        whole = Bbox([[0.0, drawn.y0 - 0.06], [figure.get_figwidth(), drawn.y1 + 0.06]])
        pictures = [_render(figure, whole, dark=each) for each in dark]
    figure.set_layout_engine(engine)
    return pictures


def _render(figure: Figure, box: Bbox, *, dark: bool) -> Image:
    """Renders a part of a figure, and restores its colours."""
    from PIL import Image

    buffer = io.BytesIO()
    inked = list(_inked(figure)) if dark else []
    for artist, name, ink in inked:
        artist.set(**{name: DARK[ink]})
    try:
        ground = "none" if dark else "white"
        figure.savefig(buffer, format="rgba", dpi="figure", facecolor=ground, bbox_inches=box)
    finally:
        for artist, name, ink in inked:
            artist.set(**{name: ink})
    width = int(box.width * figure.dpi)
    height = buffer.tell() // (4 * width)
    return Image.frombuffer("RGBA", (width, height), buffer.getvalue())


def _inked(figure: Figure) -> Iterator[tuple[Artist, str, str]]:
    """Artists with a colour that dark pages change: artist, property, colour."""
    from matplotlib.artist import getp
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    for artist in figure.findobj():
        if isinstance(artist, Text | Line2D | Patch):
            name = "edgecolor" if isinstance(artist, Patch) else "color"
            ink = to_hex(getp(artist, name))
            if ink in DARK:
                yield artist, name, ink
