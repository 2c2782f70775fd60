"""Pages from templates, with everything that they show inside them."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning
from pyro_mivae.plots import render_png
from pyro_mivae.report.panel import Panel
from pyro_mivae.training import versions

_WHITE, _DARK_CARD = "#ffffff", "#161b22"  # the cards of style.css


def render(template: str, **values: object) -> str:
    """Fills in one of the package's templates; what is filled in is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    files = resources.files(__package__)
    environment = Environment(
        loader=FunctionLoader(lambda name: files.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    return environment.get_template(template).render(versions=told, **values)


@dataclass(frozen=True)
class Picture:
    """A panel as the page shows it, or why it could not be drawn.

    Attributes:
        key: Its place on the page, and the name of its PNG.
        title: Its heading.
        panel: What is said of it; None where it could not be drawn.
        light: Its PNG on white.
        dark: Its PNG on a dark card.
        reason: Why it could not be drawn.
    """

    key: str
    title: str
    panel: Panel | None = None
    light: bytes = b""
    dark: bytes = b""
    reason: str = ""

    @property
    def sources(self) -> list[tuple[str, str]]:
        """The light and the dark one as data URIs, by the class that shows them."""
        return [("on-light", _data_uri(self.light)), ("on-dark", _data_uri(self.dark))]


def render_panels(make: Callable[..., Iterator[Panel]], *args: object) -> Iterator[Picture]:
    """Makes panels and renders them; one that cannot be drawn warns, and says why in its place."""
    panels = make(*args)
    while True:
        name = make.__name__.strip("_")
        key, title = f"no_{name}", name.replace("_", " ").capitalize()
        try:
            panel = next(panels, None)
            if panel is None:
                return
            key, title = panel.key, panel.title
            picture = render_panel(panel)
        except Exception as error:
            kind = "" if isinstance(error, PyroMivaeError) else f"{type(error).__name__}: "
            reason = kind + " ".join(str(error).split())
            picture = Picture(key, title, reason=reason)
            warnings.warn(
                f"the picture {title!r} could not be drawn: {reason}",
                PyroMivaeWarning,
                stacklevel=2,
            )
        yield picture


def render_panel(panel: Panel) -> Picture:
    """Renders a panel's figure for light and dark pages."""
    light = _shrink(render_png(panel.figure), _WHITE)
    dark = _shrink(render_png(panel.figure, dark=True), _DARK_CARD)
    return Picture(panel.key, panel.title, panel, light, dark)


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Gives nested values one by one, a name like ``model.beta`` each; None is left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", str(value)


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
