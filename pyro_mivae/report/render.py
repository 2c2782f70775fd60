"""Pages from templates, with everything that they show inside them."""

from __future__ import annotations

import base64
import io
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from typing import Any

import pyro
import torch

from pyro_mivae.plots import render_png
from pyro_mivae.report.panel import Panel

_WHITE, _DARK_CARD = "#ffffff", "#161b22"  # the cards of style.css


def render(template: str, **values: object) -> str:
    """Fills in one of the package's templates; what is filled in is escaped.

    Args:
        template: Name of its file.
        **values: What it asks for.

    Returns:
        The page.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    files = resources.files(__package__)
    environment = Environment(
        loader=FunctionLoader(lambda name: files.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(versions=versions(), **values)


def render_panel(panel: Panel) -> dict[str, Any]:
    """Renders a panel's figure for light and dark pages.

    Args:
        panel: The panel.

    Returns:
        ``panel``; ``light`` and ``dark`` as data URIs; and ``png``, the light one's bytes.
    """
    light = _shrink(render_png(panel.figure), _WHITE)
    dark = _shrink(render_png(panel.figure, dark=True), _DARK_CARD)
    return {"panel": panel, "light": _data_uri(light), "dark": _data_uri(dark), "png": light}


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Gives nested values one by one, a name like ``model.beta`` each; None is left out.

    Args:
        values: The values.
        prefix: What the names begin with.

    Yields:
        Name and text.
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", str(value)


def versions() -> str:
    """Names the versions of what a page was made with."""
    try:
        ours = metadata.version("pyro-mivae")
    except metadata.PackageNotFoundError:
        ours = "(not installed)"
    return (
        f"pyro-mivae {ours}, pyro {pyro.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def _shrink(png: bytes, ground: str) -> bytes:
    """Lays a picture on a ground and keeps its 256 best colours: half the bytes, none seen."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        whole = Image.new("RGBA", image.size, ground)
        whole.alpha_composite(image.convert("RGBA"))
    buffer = io.BytesIO()
    few = whole.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
