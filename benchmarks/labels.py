"""What are 100 labels worth? Accuracy against the number of labels, over splits.

Each split has labels of its own, equally many of each class, drawn by the seed that also draws
weights and noise. None is selected. The accuracy is that of argmax q(c|x) on the test images,
category k being label k; beside it the best one-to-one map, and the categories of the start alone.
Finished runs are kept in the results file, and a stopped command goes on where it was.

    python -m benchmarks labels
    python -m benchmarks labels --data mnist --data-root DIR --labels 100 600 1000 3000 --splits 10
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import parser
from benchmarks.results_table import COLUMNS, figure
from benchmarks.trainings import Filling, add_options

VARIANTS = ("cat", "infocat")
LABELS = (100, 600, 1000, 3000)
SHOWN = {
    "accuracy": figure("classification_accuracy", 3),
    **{name: COLUMNS[name] for name in ("clustering accuracy", "generation accuracy", "−ELBO")},
    "seconds": COLUMNS["seconds"],
}


def table(content: Mapping[str, Any]) -> str:
    """Lays mean ± standard deviation over the splits out.

    Args:
        content: A results file.

    Returns:
        A Markdown table.
    """
    lines = ["| labels | variant | splits | the start alone | " + " | ".join(SHOWN) + " |"]
    lines.append("|" + " --- |" * (len(SHOWN) + 4))
    runs = [run for run in content["runs"] if "failed" not in run]
    for variant, labels in dict.fromkeys((run["variant"], run["labels"]) for run in runs):
        own = [run for run in runs if (run["variant"], run["labels"]) == (variant, labels)]
        start = figure("classification_accuracy", 3)([{"metrics": r["start_alone"]} for r in own])
        cells = [str(labels), variant, str(len(own)), start, *(of(own) for of in SHOWN.values())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Trains what is missing, and prints the tables.

    Args:
        argv: The command line.

    Returns:
        What the results files hold, one per data set.
    """
    command = parser("labels", __doc__)
    add_options(command)
    command.add_argument("--variants", nargs="+", choices=VARIANTS, default=["cat"])
    command.add_argument("--labels", nargs="+", type=int, default=[100])
    command.add_argument("--splits", type=int, dest="seeds", help="the same as --seeds")
    command.add_argument("--warm-start", type=int, help="steps of the start")
    command.add_argument("--starts", type=int, help="starts, of which the best is kept")
    args = command.parse_args(argv)
    cells = [
        {"variant": variant, "labels": labels, "start": "informed"}
        for variant in args.variants
        for labels in args.labels
    ]
    order = [
        {"variant": variant, "labels": labels, "start": "informed"}
        for variant in VARIANTS
        for labels in sorted({*LABELS, *args.labels})
    ]
    given = {name: getattr(args, name) for name in ("warm_start", "starts")}
    chosen = {name: value for name, value in given.items() if value is not None}
    lengths = {Path(data).stem: chosen for data in args.data}
    contents = Filling("labels", order, cells, args, lengths).fill()
    for content in contents:
        print(f"\n{content['data']}\n\n{table(content)}")
    return contents
