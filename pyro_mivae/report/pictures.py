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
    dark: bytes = b""  # and on a dark card


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
            png, page = _encoded(light, "PNG"), _encoded(light, "WEBP")
            yield replace(panel, figure=None, png=png, light=page, dark=_encoded(dark, "WEBP"))
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
    """Puts a picture on a background, in fewer colours if that is not visible."""
    from PIL import Image, ImageChops, ImageStat

    whole = Image.new("RGBA", picture.size, ground)
    whole.alpha_composite(picture)
    whole = whole.convert("RGB")
    few = whole.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    lost = ImageStat.Stat(ImageChops.difference(whole, few.convert("RGB"))).rms
    return few if max(lost) < _SEEN else whole


def _encoded(image: Image, kind: str) -> bytes:
    """Encodes a picture; WebP is lossless only for a palette: more colours take megabytes."""
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, kind, compress_level=8)
    else:
        how: dict[str, Any] = {"lossless": True} if image.mode == "P" else {"quality": 75}
        image.convert("RGB").save(buffer, kind, method=4, **how)
    return buffer.getvalue()
