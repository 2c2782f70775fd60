"""The unsupervised start by itself: agreement between starts, its own term, and the labels.

For each radius, several starts from initial weights of their own. The agreement of their
categories, by pairs and up to renaming, needs no labels, so it may choose the radius. The accuracy
against the labels is shown beside it, of the training data, which the start saw without labels.
The correlation is that of the term's loss with that accuracy over the starts: positive where the
term prefers categories that agree less with the labels. The vote of the starts needs no labels
either: each datum's category is that of most starts, with the names of the start that agrees most
with the others.

    python -m benchmarks starts
    python -m benchmarks starts --data mnist --data-root DIR --radius 0.12 0.16 0.2
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine, parser, write


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Runs the starts, prints a table, and writes results as JSON."""
    command = parser("starts", __doc__)
    command.add_argument("--data", default="digits")
    command.add_argument("--data-root")
    command.add_argument("--radius", nargs="+", type=float, default=[0.5, 0.71, 1.0])
    command.add_argument("--starts", type=int, default=12)
    command.add_argument("--steps", type=int, help="of each start; as in training if omitted")
    command.add_argument("--first-seed", type=int, default=100)
    command.add_argument("--out", type=Path)
    asked = command.parse_args(argv)
    out = asked.out or RESULTS / f"starts-{asked.data}-{date.today()}.json"
    rows = [measure(radius, asked) for radius in asked.radius]
    options = {k: v for k, v in vars(asked).items() if v is not None and k != "out"}
    options |= {"data_root": "DIR"} if asked.data_root else {}
    told = " ".join(f"--{name.replace('_', '-')} {_written(v)}" for name, v in options.items())
    content = {"command": f"python -m benchmarks starts {told}", "machine": machine()}
    content |= {"rows": rows}
    write(out, content)
    print(table(rows))
    print(f"written to {out}")
    return content


def _written(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def measure(radius: float, asked: Any) -> dict[str, Any]:
    """Runs the starts of a radius."""
    import pyro

    import pyro_mivae as mi
    from pyro_mivae.metrics import category_agreement, cluster_accuracy

    data = mi.load_dataset(asked.data, root=asked.data_root)
    start = mi.CategoryStart(asked.steps, starts=1, start_radius=radius)
    losses, accuracies, found = [], [], []
    for seed in range(asked.first_seed, asked.first_seed + asked.starts):
        pyro.set_rng_seed(seed)
        vae = mi.InfoCatVAE(data.data_shape, warm_start=start)
        vae.initialize(data.x_train)
        (term,) = start.terms(vae.categories, len(data.x_train))
        vae.eval()
        batches = data.x_train.split(max(100, min(250, len(data.x_train) // 10)))
        values = [-term.per_datum(vae.guide, batch).item() for batch in batches if len(batch) > 9]
        losses.append(statistics.fmean(values))
        found.append(vae.encode(data.x_train)["c"].argmax(-1))
        accuracies.append(cluster_accuracy(found[-1], data.y_train))
        print(f"radius {radius}, seed {seed}: loss {losses[-1]:.3f}", flush=True)
    agreement = [category_agreement(a, b).accuracy for a, b in combinations(found, 2)]
    return {
        "radius": radius,
        "losses": losses,
        "accuracies": accuracies,
        "agreement": agreement,
        "vote": cluster_accuracy(vote(found), data.y_train),
    }


def vote(found: Sequence[Any]) -> Any:
    """Returns the category that most starts give each datum, by the names of the middle one."""
    from scipy.optimize import linear_sum_assignment
    from torch.nn.functional import one_hot

    from pyro_mivae.metrics import category_agreement

    size = 1 + max(int(each.max()) for each in found)
    shares = [sum(category_agreement(each, other).accuracy for other in found) for each in found]
    votes = [one_hot(each, size) for each in found]
    middle = votes[shares.index(max(shares))]
    for place, each in enumerate(votes):
        _, names = linear_sum_assignment(middle.T @ each, maximize=True)
        votes[place] = each[:, names]
    return sum(votes).argmax(-1)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lays the results out as a Markdown table."""
    lines = [
        "| radius | starts | agreement between starts | accuracy | lowest | highest | vote | "
        "correlation of loss and accuracy |",
        "| --- " * 8 + "|",
    ]
    for row in rows:
        accuracies = row["accuracies"]
        cells = [
            f"{row['radius']:g}",
            str(len(accuracies)),
            f"{statistics.fmean(row['agreement']):.3f}",
            f"{statistics.fmean(accuracies):.3f} ± {statistics.stdev(accuracies):.3f}",
            f"{min(accuracies):.3f}",
            f"{max(accuracies):.3f}",
            f"{row['vote']:.3f}",
            f"{statistics.correlation(row['losses'], accuracies):.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
