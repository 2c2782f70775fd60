"""CatVAE beside InfoCatVAE, and exact enumeration beside two decodes, soft and Gumbel category.

Every cell is trained from several seeds, none selected, and evaluated on the test images with the
category summed out exactly. The start is ``informed`` (the default), ``random`` (none, with the
same warm-up), or the informed start ``alone``, before any training. Finished runs are kept in the
results file, as those of `benchmarks.results` are, and a stopped command goes on where it was.

    python -m benchmarks categories
    python -m benchmarks categories --data mnist --data-root DIR --epochs 5
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from benchmarks.common import parser
from benchmarks.finished import key
from benchmarks.results_table import LABELS, NATS, NONE
from benchmarks.trainings import Filling, add_options

VARIANTS, WAYS = ("cat", "infocat"), ("enumerate", "sample", "soft", "gumbel")
STARTS = ("informed", "random", "alone")
CELLS = [
    dict(zip(("variant", "categorical", "start"), names))
    for names in (
        *product(VARIANTS, WAYS, ("informed",)),
        *product(VARIANTS, ("enumerate",), ("random",)),
        ("infocat", "enumerate", "alone"),
    )
]
COLUMNS = {
    name: (NATS | LABELS)[name]
    for name in (
        "−ELBO", "I(x; c)", "clustering accuracy", "NMI", "generation accuracy", "categories used",
    )
}  # fmt: skip
UNTRAINED = ("−ELBO", "generation accuracy")
"""What the start alone leaves undefined: its decoder is not trained."""


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Lays mean ± standard deviation over the seeds out.

    Args:
        runs: Runs of one data set.

    Returns:
        A Markdown table.
    """
    lines = ["| variant | category | start | seeds | " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + " --- |" * (len(COLUMNS) + 4))
    for cell in CELLS:
        own = [run for run in runs if key(run)[:-1] == key(cell)[:-1] and "failed" not in run]
        if not own:
            continue
        hidden = UNTRAINED if cell["start"] == "alone" else ()
        shown = [NONE if name in hidden else of(own) for name, of in COLUMNS.items()]
        lines.append("| " + " | ".join([*cell.values(), str(len(own)), *shown]) + " |")
    return "\n".join(lines)


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
    command.add_argument("--categorical", nargs="+", choices=WAYS, default=WAYS)
    command.add_argument("--start", nargs="+", choices=STARTS, default=STARTS)
    args = command.parse_args(argv)
    wanted = (args.variants, args.categorical, args.start)
    cells = [
        cell
        for cell in CELLS
        if all(name in of for name, of in zip(cell.values(), wanted, strict=True))
    ]
    filling = Filling("categories", CELLS, cells, args)
    contents = filling.fill()
    for content in contents:
        print(f"{content['data']}\n{table(content['runs'])}")
        known = content.get("pixels") or content.get("k-means")
        print(f"of the pixels, by k-means and probes: {known}")
    for path in filling.paths.values():
        print(f"all runs: {path}" if path.exists() else f"no runs yet: {path}")
    return contents


if __name__ == "__main__":
    main()
