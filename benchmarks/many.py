"""Models per minute: several models by `mi.fit` in a loop, by `mi.fit_many`, and by two processes.

S models of one variant are trained from S seeds. Contenders take turns in random order. A turn is
whole trainings, from fresh weights to the last step; staging, compiling and the start of processes
count. What is in the results file is not measured again.

    python -m benchmarks many
    python -m benchmarks many --variants vae --sizes 8 --counts 1 4 --epochs 5 --turns 2
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import common
from benchmarks.common import RESULTS, machine, write

JOBS = 2
CONTENDERS = ("fit", "fit_many", f"fit_many(jobs={JOBS})")
IMAGES = {8: 1438, 28: 2560}
"""Training images by their size: those of the digits, and twenty batches."""
BATCH_SIZE = 128
OPTIONS: dict[str, dict[str, Any]] = dict.fromkeys(("cat", "infocat"), {"warm_start": 0})


def measure(
    variant: str,
    size: int,
    count: int,
    epochs: int,
    turns: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Times the training of some models.

    Args:
        variant: Name of the variant.
        size: Height and width of the images.
        count: How many models.
        epochs: Passes over the images.
        turns: How often each contender trains them.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        Seconds of each contender in each turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    job = (variant, size, epochs, device)
    trainings: Sequence[Callable[[], object]] = (
        lambda: [train_one(job, seed) for seed in range(count)],
        lambda: train_many(job, count),
        lambda: train_many(job, count, JOBS),
    )
    train = dict(zip(CONTENDERS, trainings, strict=True))
    train_one((variant, size, 1, device), 0)
    for turn in range(turns):
        order = list(CONTENDERS)
        random.Random(turn).shuffle(order)
        for name in order:
            start = time.perf_counter()
            train[name]()
            seconds[name].append(time.perf_counter() - start)
    return {
        "variant": variant,
        "size": size,
        "count": count,
        "epochs": epochs,
        "images": IMAGES[size],
        "batch_size": BATCH_SIZE,
        "device": device,
        "seconds": seconds,
    }


def train_one(job: tuple[str, int, int, str], seed: int) -> None:
    """Trains one model by `mi.fit`.

    Args:
        job: What to train.
        seed: The seed.
    """
    import pyro_mivae as mi

    variant, size, epochs, device = job
    vae, x = _model(variant, size, seed), _images(size)
    mi.fit(vae, x, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, device=device)


def train_many(job: tuple[str, int, int, str], count: int, jobs: int = 1) -> None:
    """Trains several models by `mi.fit_many`.

    Args:
        job: What to train.
        count: How many.
        jobs: Processes.
    """
    import pyro_mivae as mi

    variant, size, epochs, device = job
    vaes = [_model(variant, size, seed) for seed in range(count)]
    how = {"epochs": epochs, "batch_size": BATCH_SIZE, "device": device, "jobs": jobs}
    mi.fit_many(vaes, _images(size), **how)


def _model(variant: str, size: int, seed: int) -> Any:
    import torch

    import pyro_mivae as mi

    torch.manual_seed(seed)
    return mi.VARIANTS[variant].build((1, size, size), **OPTIONS.get(variant, {}))


def _images(size: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.rand(IMAGES[size], 1, size, size, generator=generator)


def per_minute(row: dict[str, Any]) -> dict[str, float]:
    """Returns each contender's models per minute, by the median turn.

    Args:
        row: What `measure` returned.
    """
    return {name: 60 * row["count"] / median(turns) for name, turns in row["seconds"].items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Puts the results in a table of models per minute.

    Args:
        rows: What `measure` returned.
    """
    head = ["variant", "images", "epochs", "models", *CONTENDERS]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for row in rows:
        rates = per_minute(row)
        cells = [row["variant"], f"{row['size']} x {row['size']}", row["epochs"], row["count"]]
        cells += [f"{rates[name]:.2f}" for name in CONTENDERS]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measures, writes the results, and prints a table."""
    parser = common.parser("many", __doc__)
    parser.add_argument("--variants", nargs="+", default=["vae", "infocat"])
    parser.add_argument("--sizes", nargs="+", type=int, choices=sorted(IMAGES), default=[8, 28])
    parser.add_argument("--counts", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS / f"many-{date.today()}.json",
        help="results file  [default: %(default)s]",
    )
    options = parser.parse_args(argv)
    from pyro_mivae import VARIANTS

    common.check_names(parser, "--variants", options.variants, VARIANTS)
    content: dict[str, Any] = {"machine": machine(), "rows": []}
    if options.out.exists():
        content = json.loads(options.out.read_text())
    keys = ("variant", "size", "count", "epochs", "device")
    done = {tuple(row[key] for key in keys) for row in content["rows"]}
    for variant in options.variants:
        for size in options.sizes:
            for count in options.counts:
                if (variant, size, count, options.epochs, options.device) in done:
                    continue
                row = measure(variant, size, count, options.epochs, options.turns, options.device)
                content["rows"].append(row)
                write(options.out, content)
    print(table(content["rows"]))
    print(f"written to {options.out}")
