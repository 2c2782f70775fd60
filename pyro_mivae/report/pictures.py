"""Pictures of a page: panels, their PNGs, and the files of a report in a folder."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning
from pyro_mivae.plots.style import render_schemes
from pyro_mivae.training import write_file

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = ".pictures"
"""The list of a folder's pictures."""
_NAME = re.compile(r"\w[\w.%-]*\.png")
_WHITE, _DARK_CARD = "#ffffff", "#161b22"  # the cards of style.css
_COLOURS = 112
_OF_NAMES = 32  # colours of names, gaps, and the edges of images
_MOST = 20_000  # bytes without loss: fourteen pictures, twice, in a page of 500 kB
_WIDTH = 600  # pixels of a larger picture; the page shows 528
_WHOLE = 0.8  # share of differing pixels from which a dark picture is whole
_SEEN = 2.0  # of 255, root mean square: more than curves and grey images lose by it


@dataclass(frozen=True)
class Panel:
    """One picture of the page, or the reason that it is missing."""

    key: str  # name of its PNG, without the ending
    title: str
    sentence: str  # what it shows
    look_for: str = ""
    figure: Any = None  # of matplotlib
    png: bytes = b""  # on white, for a file
    light: bytes = b""  # the same for the page, as WebP
    dark: bytes = b""  # what lies over it on a dark card


def render_panels(make: Callable[..., Iterator[Panel]], *args: object) -> Iterator[Panel]:
    """Makes and renders panels; a failed one shows the reason, with a warning."""
    panels = make(*args)
    name = make.__name__.strip("_")
    while True:
        key, title = f"no_{name}", name.replace("_", " ").capitalize()
        try:
            panel = next(panels, None)
            if panel is None:
                return
            key, title = panel.key, panel.title
            pictures = render_schemes(panel.figure, False, True)
            light, dark = map(_on, (_WHITE, _DARK_CARD), pictures)
            few = _in_few_colours(light)
            png = _encoded(few, "PNG", compress_level=8)
            over = _differing(light, dark)
            yield replace(panel, figure=None, png=png, light=_for_page(few), dark=over)
        except Exception as error:
            kind = "" if isinstance(error, PyroMivaeError) else f"{type(error).__name__}: "
            reason = f"could not be drawn: {kind}{' '.join(str(error).split())}"
            warnings.warn(f"the picture {title!r} {reason}", PyroMivaeWarning, stacklevel=2)
            yield Panel(key, title, f"This picture {reason}")


def write_pictures(folder: Path, pictures: Mapping[str, bytes]) -> None:
    """Writes pictures, and removes the other pictures of an earlier report.

    The list is written first, so it names every picture even if the writing stops.
    """
    earlier = listed_pictures(folder)
    _list_pictures(folder, {path.name for path in earlier} | pictures.keys())
    for name, png in pictures.items():
        write_file(folder / name, png)
    for path in earlier:
        if path.name not in pictures:
            path.unlink()
    _list_pictures(folder, pictures.keys())


def file_name(key: str) -> str:
    """Returns the name of a picture's file; a site in its key may have any name."""
    return re.sub(r"[^\w.-]", lambda sign: f"%{ord(sign[0]):02x}", key) + ".png"


def listed_pictures(folder: Path) -> list[Path]:
    """Finds the pictures of earlier reports."""
    try:
        names = (folder / PICTURES).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    plain = [name for name in dict.fromkeys(names) if _NAME.fullmatch(name)]
    return [folder / name for name in plain if (folder / name).is_file()]


def _list_pictures(folder: Path, names: Collection[str]) -> None:
    write_file(folder / PICTURES, "".join(f"{name}\n" for name in sorted(names)))


def _on(ground: str, picture: Image) -> Image:
    """Puts a picture on a background."""
    from PIL import Image

    whole = Image.new("RGBA", picture.size, ground)
    whole.alpha_composite(picture)
    return whole.convert("RGB")


def _in_few_colours(whole: Image) -> Image:
    """Returns a picture with a palette if that is not visible."""
    from PIL import Image, ImageChops, ImageStat

    few = whole.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    lost = ImageStat.Stat(ImageChops.difference(whole, few.convert("RGB"))).rms
    return few if max(lost) < _SEEN else whole


def _differing(light: Image, dark: Image) -> bytes:
    """Encodes the parts of a dark picture that differ from the light one: not the data's images.

    Where little is the same it is the whole picture.
    """
    from PIL import Image, ImageChops, ImageFilter, ImageStat

    red, green, blue = ImageChops.difference(light, dark).split()
    differs = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    differs = differs.point(lambda level: 255 * (level > 0))
    differs = differs.filter(ImageFilter.MaxFilter(3))  # the edges of images, which loss blurs
    if ImageStat.Stat(differs).mean[0] > _WHOLE * 255:
        return _for_page(_in_few_colours(dark))
    layer = Image.new("RGB", dark.size, _DARK_CARD)
    layer.paste(dark, mask=differs)
    layer = layer.quantize(_OF_NAMES, dither=Image.Dither.NONE).convert("RGB")
    layer.putalpha(differs)
    return _encoded(layer, "WEBP", lossless=True)


def _for_page(picture: Image) -> bytes:
    """Encodes a picture as WebP, without loss if it has a palette and that takes few bytes."""
    whole = picture.convert("RGB")
    exact = [_encoded(whole, "WEBP", lossless=True)] if picture.mode == "P" else []
    if exact and len(exact[0]) <= _MOST:
        return exact[0]
    smaller = whole.resize((_WIDTH, whole.height * _WIDTH // whole.width))
    return min([*exact, _encoded(smaller, "WEBP", quality=50)], key=len)


def _encoded(image: Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"method": 4} if kind == "WEBP" else {}), **how)
    return buffer.getvalue()
