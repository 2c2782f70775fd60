"""The report: pictures as files, and one page that holds them all."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_mivae.elbo import explain
from pyro_mivae.errors import ShapeError
from pyro_mivae.figures import is_indexed
from pyro_mivae.report.files import write_pictures
from pyro_mivae.report.headline import Number, headline, remaining, summarize
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.panels import PANELS
from pyro_mivae.report.render import Picture, flatten, render, render_panels
from pyro_mivae.report.subject import Subject
from pyro_mivae.training import atomic_path

if TYPE_CHECKING:
    from pyro_mivae.plots.curves import Columns
    from pyro_mivae.variants import Variant


def write_report(
    folder: str | Path,
    *,
    vae: Variant,
    history: Columns,
    metrics: Mapping[str, float],
    protocol: Mapping[str, object] | Sequence[str] | str,
    x: Tensor,
    labels: Tensor | None = None,
    config: Mapping[str, object] | None = None,
    class_names: Sequence[str] | None = None,
    factors: Tensor | None = None,
    factor_names: Sequence[str] = (),
    panels: Sequence[Callable[[Subject], Iterator[Panel]]] = PANELS,
) -> Path:
    """Writes ``report.html``, one page that needs no other file, and its pictures as PNGs.

    A picture that cannot be drawn leaves a line on the page that says why, and a warning.

    The model is only read: its mode (training or evaluation) and torch's random numbers are as
    before afterwards, and the pictures are the same each time.
    """
    if len(x) == 0 or tuple(x.shape[1:]) != tuple(vae.data_shape):
        raise ShapeError(
            f"x has shape {tuple(x.shape)}; expected (n, {', '.join(map(str, vae.data_shape))}), "
            "n at least 1"
        )
    if labels is not None and labels.shape != x.shape[:1]:
        raise ShapeError(
            f"labels have shape {tuple(labels.shape)} for {len(x)} data; give one label per datum"
        )
    if factors is not None and factors.shape != (len(x), len(factor_names)):
        raise ShapeError(
            f"factors have shape {tuple(factors.shape)} for {len(x)} data and "
            f"{len(factor_names)} names; give a row per datum and a name per column"
        )
    was_training = vae.training
    vae.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            subject = Subject(vae, x, labels, history, metrics, class_names, factors, factor_names)
            pictures = [picture for make in panels for picture in render_panels(make, subject)]
            page = _render(subject, pictures, protocol, config or {})
    finally:
        vae.train(was_training)
    path = Path(folder) / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = {f"{one.key}.png": one.light for one in pictures if one.panel is not None}
    write_pictures(path.parent, drawn)
    with atomic_path(path) as scratch:
        scratch.write_text(page, encoding="utf-8")
    return path


def _num_steps(subject: Subject) -> int | None:
    steps = subject.history["step"] if "step" in subject.history.columns else []
    return int(steps[-1]) if steps else None


def _render(
    subject: Subject,
    pictures: Sequence[Picture],
    protocol: Mapping[str, object] | Sequence[str] | str,
    config: Mapping[str, object],
) -> str:
    settings = dict(config)
    command = settings.pop("command", None)
    vae = subject.vae
    return render(
        "report.html",
        title=type(vae).__name__,
        data_name=Path(str(settings.get("data", ""))).name,
        shape=" × ".join(map(str, vae.data_shape)),
        summary=summarize(subject),
        numbers=list(headline(subject)),
        tables=list(_tables(subject)),
        diagnoses=subject.diagnoses,
        objective=explain(vae.objective(_num_steps(subject))),
        pictures=pictures,
        protocol=_rows(protocol),
        config=list(flatten(settings)),
        command=_wrap(str(command)) if command else "",
        count=f"{len(subject.x):,} {subject.nouns}",
        noun=subject.noun,
    )


def _tables(subject: Subject) -> Iterator[tuple[str, list[Number]]]:
    """All numbers, those of single dimensions and categories in a table of their own."""
    numbers = list(remaining(subject))
    single = [number for number in numbers if is_indexed(number.name)]
    rest = [number for number in numbers if not is_indexed(number.name)]
    if rest:
        yield f"All {len(rest)} numbers", rest
    if single:
        yield f"{len(single)} numbers of single dimensions and categories", single


def _wrap(command: str, width: int = 38) -> str:
    """Breaks a command before its options, so that it fits a phone and can still be pasted."""
    lines = [""]
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if word.startswith("-") and len(lines[-1]) + len(quoted) > width:
            lines.append("  ")
        lines[-1] += quoted + " "
    return "\\\n".join(lines).rstrip()


def _rows(protocol: Mapping[str, object] | Sequence[str] | str) -> list[tuple[str, str]]:
    if isinstance(protocol, str):
        return [("", protocol)]
    if isinstance(protocol, Mapping):
        return list(flatten(protocol))
    return [("", str(line)) for line in protocol]
