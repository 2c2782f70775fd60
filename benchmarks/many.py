"""Models per minute: several models one after the other, at once, and each in a process.

S models of one variant are trained from S seeds: by `mi.fit` one after the other; by `mi.fit_many`
as it chooses, and with all steps at once; and by `mi.fit` in as many processes as there are cores,
whose start is not counted. Contenders take turns in random order. A turn is whole trainings, from
fresh weights to the last step; staging and compiling count. What is in the results file is not
measured again.

    python -m benchmarks many
    python -m benchmarks many --variants vae --sizes 8 --counts 1 4 --epochs 5 --turns 2
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import common
from benchmarks.common import RESULTS, machine, write

CONTENDERS = ("fit", "fit_many", "at once", "processes")
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
    contenders: Sequence[str] = CONTENDERS,
) -> dict[str, Any]:
    """Times the training of some models.

    Args:
        variant: Name of the variant.
        size: Height and width of the images.
        count: How many models.
        epochs: Passes over the images.
        turns: How often each contender trains them.
        device: ``"cpu"`` or ``"cuda"``.
        contenders: Who trains them.

    Returns:
        Seconds of each contender in each turn, by the clock and of this process's CPU.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    job = (variant, size, epochs, device)
    workers = min(os.cpu_count() or 1, count)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        if "processes" in contenders:
            list(pool.map(train_one, [((variant, size, 1, device), 0)] * workers))
        trainings: dict[str, Callable[[], object]] = {
            "fit": lambda: [train_one((job, seed)) for seed in range(count)],
            "fit_many": lambda: train_many(job, count, None),
            "at once": lambda: train_many(job, count, True),
            "processes": lambda: list(pool.map(train_one, [(job, s) for s in range(count)])),
        }
        train_one(((variant, size, 1, device), 0))
        for turn in range(turns):
            order = list(contenders)
            random.Random(turn).shuffle(order)
            for name in order:
                start, spent = time.perf_counter(), time.process_time()
                trainings[name]()
                seconds[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - spent)
    return {
        "variant": variant,
        "size": size,
        "count": count,
        "epochs": epochs,
        "images": IMAGES[size],
        "batch_size": BATCH_SIZE,
        "device": device,
        "workers": workers,
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def train_one(task: tuple[tuple[str, int, int, str], int]) -> None:
    """Trains one model alone.

    Args:
        task: What to train, and the seed.
    """
    import pyro_mivae as mi

    (variant, size, epochs, device), seed = task
    vae, x = _model(variant, size, seed), _images(size)
    mi.fit(vae, x, epochs=epochs, batch_size=BATCH_SIZE, seed=seed, device=device)


def train_many(job: tuple[str, int, int, str], count: int, at_once: bool | None) -> None:
    """Trains several models by `mi.fit_many`.

    Args:
        job: What to train.
        count: How many.
        at_once: As for `mi.fit_many`.
    """
    import pyro_mivae as mi

    variant, size, epochs, device = job
    vaes = [_model(variant, size, seed) for seed in range(count)]
    mi.fit_many(
        vaes,
        _images(size),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        at_once=at_once if count > 1 else None,
        device=device,
    )


def _model(variant: str, size: int, seed: int) -> Any:
    import torch

    import pyro_mivae as mi

    torch.manual_seed(seed)
    return mi.VARIANTS[variant]((1, size, size), **OPTIONS.get(variant, {}))


def _images(size: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.rand(IMAGES[size], 1, size, size, generator=generator)


def per_minute(row: dict[str, Any]) -> dict[str, float]:
    """Gives each contender's models per minute, by the median turn.

    Args:
        row: What `measure` returned.
    """
    return {name: 60 * row["count"] / median(turns) for name, turns in row["seconds"].items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Puts the results in a table of models per minute.

    Args:
        rows: What `measure` returned.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    head = ["variant", "images", "epochs", "models", *names, "at once / fit"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for row in rows:
        rates = per_minute(row)
        cells = [row["variant"], f"{row['size']} x {row['size']}", row["epochs"], row["count"]]
        cells += [f"{rates[name]:.2f}" if name in rates else "" for name in names]
        both = {"at once", "fit"} <= rates.keys()
        cells.append(f"{rates['at once'] / rates['fit']:.2f}" if both else "")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]]) -> bytes:
    """Draws models per minute over the number of models, a picture for each variant and size.

    Args:
        rows: What `measure` returned.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from pyro_mivae.plots import PALETTE, render_png
    from pyro_mivae.plots.style import INK, SMALL, style_axes

    kinds = sorted({(row["variant"], row["size"]) for row in rows})
    figure = Figure(figsize=(3.6 * len(kinds), 3.2), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (variant, size) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds):
        own = [row for row in rows if (row["variant"], row["size"]) == (variant, size)]
        own.sort(key=lambda row: row["count"])
        for number, name in enumerate(CONTENDERS):
            points = [(r["count"], per_minute(r)[name]) for r in own if name in r["seconds"]]
            if points:
                ax.plot(*zip(*points, strict=True), "o-", color=PALETTE[number], label=name, ms=4)
        ax.set_xscale("log", base=2)
        ax.set_xticks([row["count"] for row in own], [str(row["count"]) for row in own])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set_xlabel("models")
        ax.set_ylabel("models per minute")
        ax.set_title(f"{variant}, {size} x {size}", fontsize=SMALL, color=INK)
        style_axes(ax, grid=True)
    figure.axes[0].legend(frameon=False, fontsize=SMALL - 1, labelcolor=INK)
    return render_png(figure)


def main(argv: Sequence[str]) -> None:
    """Measures, and writes results, table and picture."""
    parser = common.parser("many", __doc__)
    parser.add_argument("--variants", nargs="+", default=["vae", "infocat"])
    parser.add_argument("--sizes", nargs="+", type=int, choices=sorted(IMAGES), default=[8, 28])
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument(
        "--out",
        type=Path,
        default=RESULTS / f"many-{date.today()}.json",
        help="results file, the picture beside it  [default: %(default)s]",
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
                row = measure(
                    variant,
                    size,
                    count,
                    options.epochs,
                    options.turns,
                    options.device,
                    options.contenders,
                )
                content["rows"].append(row)
                write(options.out, content)
    print(table(content["rows"]))
    options.out.with_suffix(".png").write_bytes(draw(content["rows"]))
    print(f"written to {options.out} and {options.out.with_suffix('.png')}")
