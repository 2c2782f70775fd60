"""The report: pictures as files, and one page with all of them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from pyro_mivae.elbo import explain
from pyro_mivae.figures import parse
from pyro_mivae.networks.presets import default_network
from pyro_mivae.progress import telling
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.information import NATS
from pyro_mivae.report.latent_space import CODES
from pyro_mivae.report.pictures import Panel, file_name, render_panels, write_pictures
from pyro_mivae.report.samples import DRAWN
from pyro_mivae.report.summary import Number, headline, remaining, story, summarize
from pyro_mivae.training import versions, write_file

PANELS: Sequence[Callable[[ReportData], Iterator[Panel]]] = (*DRAWN, *CODES, *NATS)
"""Pictures of a report, in order: functions from the data to panels, if any."""

FIRST = ("loss_curves",)
"""Pictures of the first screen."""
SHOWN = 6  # panels that are not folded, of these
UNFOLDED = (
    "samples reconstructions columns traversals confusion sandwich latent_space_neighbours "
    "latent_space"
).split()

WEIGHT = "weight_"  # columns of the history with the weights of targets


def write_report(
    folder: str | Path,
    data: ReportData,
    *,
    protocol: Mapping[str, object] | None = None,
    config: Mapping[str, object] | None = None,
    panels: Sequence[Callable[[ReportData], Iterator[Panel]]] = PANELS,
) -> Path:
    """Writes ``report.html``, one page that needs no other file, and its pictures as PNGs.

    If a picture cannot be drawn, a line on the page and a warning give the reason.

    The model's mode (training or evaluation) and torch's random numbers are restored, and the
    pictures are the same each time.
    """
    config = dict(config or {})
    steps = data.history["step"] if "step" in data.history else []
    ends = [
        f"the weight that holds {name.removeprefix(WEIGHT)} ended at {data.history[name][-1]:.3g}"
        for name in data.history.columns
        if name.startswith(WEIGHT)
    ]
    rest: list[Number] = []
    single: list[Number] = []
    for number in remaining(data):
        of = parse(number.name)
        (rest if of is None or of.index is None else single).append(number)
    path = Path(folder) / "report.html"
    was_training = data.vae.training
    data.vae.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            makers = telling("pictures", panels)
            pictures = [picture for make in makers for picture in render_panels(make, data)]
            page = render(
                "report.html",
                data=data,
                title=type(data.vae).__name__,
                data_name=Path(str(config.get("data", ""))).name,
                summary=summarize(data),
                story=story(data, _network(config, data)),
                numbers=list(headline(data)),
                tables={
                    f"All {len(rest)} numbers": rest,
                    f"{len(single)} numbers of single dimensions and categories": single,
                },
                objective="\n".join(
                    [explain(data.vae.objective(int(steps[-1]) if steps else None)), *ends]
                ),
                **_sorted(pictures),
                protocol=list(flatten(protocol or {})),
                command=config.pop("command", ""),
                config=list(flatten(config)),
            )
    finally:
        data.vae.train(was_training)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pictures(path.parent, {file_name(one.key): one.png for one in pictures if one.png})
    return write_file(path, page)


def _network(config: Mapping[str, object], data: ReportData) -> str:
    """Names the networks of a run; nothing if they are not known, or for a game."""
    model = config.get("model")
    if not isinstance(model, Mapping) or not data.has_density:
        return ""
    kind = str(model.get("network") or default_network(data.vae.data_shape))
    return f"{Path(kind).name} networks"


def _sorted(pictures: Sequence[Panel]) -> dict[str, list[Panel]]:
    """Divides pictures into those of the first screen, six shown in full, and folded ones."""
    first = [one for one in pictures if one.key in FIRST]
    rest = [one for one in pictures if one not in first]
    rank = {
        one.key: next((n for n, k in enumerate(UNFOLDED) if one.key.startswith(k)), len(PANELS))
        for one in rest
    }
    shown = sorted(rest, key=lambda one: rank[one.key])[:SHOWN]
    return {
        "first": first,
        "shown": shown,
        "folded": [one for one in rest if one not in shown],
    }


def render(template: str, **values: object) -> str:
    """Renders one of the package's templates, with escaped values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pyro_mivae", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    return environment.get_template(template).render(versions=versions(), **values)


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields nested values by names such as ``model.beta``, without None."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", str(value)
