"""Who earns the categories: the unsupervised start, the training, or both; beside baselines.

CatVAE and InfoCatVAE are trained from several seeds, none selected, and evaluated on the test
images with the category summed out exactly. The start is ``informed`` (the default),
``augmented`` (with random affine maps of the images), or ``random`` (none, with the same
warm-up). Each run also keeps figures of its start before the training. A VAE's posterior means
are clustered as a baseline. Finished runs are kept in the results file, as those of
`benchmarks.results` are, and a stopped command goes on where it was.

    python -m benchmarks categories
    python -m benchmarks categories --data mnist --data-root DIR --epochs 5
    python -m benchmarks categories --categorical enumerate sample soft gumbel --start informed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from benchmarks.common import parser
from benchmarks.finished import key
from benchmarks.results_table import LABELS, NATS
from benchmarks.trainings import Filling, add_options

VARIANTS, WAYS = ("cat", "infocat"), ("auto", "enumerate", "sample", "soft", "gumbel")
STARTS = ("informed", "augmented", "random")
BASELINE = {"variant": "vae", "start": "none"}
CELLS = [
    BASELINE,
    *(
        dict(zip(("variant", "categorical", "start"), names))
        for names in product(VARIANTS, WAYS, STARTS)
    ),
]
COLUMNS = {
    name: (NATS | LABELS)[name]
    for name in (
        "clustering accuracy", "NMI", "I(x; c)", "categories used", "generation accuracy", "−ELBO",
    )
}  # fmt: skip
NAMES = {
    "informed": ("the start alone", "start and training"),
    "augmented": ("the start alone, with augmentation", "both, with augmentation"),
    "random": ("", "training alone"),
}


def table(content: Mapping[str, Any]) -> str:
    """Lays mean ± standard deviation over the seeds out.

    Args:
        content: A results file.

    Returns:
        A Markdown table.
    """
    lines = ["| categories of | seeds | " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + " --- |" * (len(COLUMNS) + 2))
    for name, runs in _rows(content):
        cells = [name, str(len(runs)), *(of(runs) for of in COLUMNS.values())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rows(content: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    runs = [run for run in content["runs"] if "failed" not in run]
    if "pixels" in content:
        yield "k-means of the pixels", [{"metrics": content["pixels"]}]
    for clusters in ("k-means", "mixture"):
        found = [run["clusters_of_means"] for run in runs if "clusters_of_means" in run]
        if found:
            yield f"{clusters} of a VAE's means", [{"metrics": own[clusters]} for own in found]
    for cell in CELLS[1:]:
        own = [run for run in runs if key(run)[:-1] == key(cell)[:-1]]
        started = [{"metrics": run["start_alone"]} for run in own if "start_alone" in run]
        for name, found in zip(NAMES[cell["start"]], (started, own), strict=True):
            if found:
                yield f"{cell['variant']}, {cell['categorical']}: {name}", found


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Trains what is missing, and prints the tables.

    Args:
        argv: The command line.

    Returns:
        What the results files hold, one per data set.
    """
    command = parser("categories", __doc__)
    add_options(command)
    command.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    command.add_argument("--categorical", nargs="+", choices=WAYS, default=["auto"])
    command.add_argument("--no-baseline", action="store_true", help="without the VAE")
    command.add_argument("--start", nargs="+", choices=STARTS, default=STARTS)
    args = command.parse_args(argv)
    wanted = set(product(args.variants, args.categorical, args.start))
    cells = [cell for cell in CELLS[1:] if tuple(cell.values()) in wanted]
    cells = cells if args.no_baseline else [BASELINE, *cells]
    filling = Filling("categories", CELLS, cells, args)
    contents = filling.fill()
    for content in contents:
        print(f"{content['data']}\n{table(content)}")
    for path in filling.paths.values():
        print(f"all runs: {path}" if path.exists() else f"no runs yet: {path}")
    return contents


if __name__ == "__main__":
    main()
