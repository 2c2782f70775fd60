"""Annealed importance sampling of a VAE: its gap, its time, and importance sampling beside.

A VAE of 20 latents is trained on images, each pixel drawn once from its grey value. Then, at the
default options of annealing:

* ``own``: log p(x) of data drawn from the model, from both sides; their mean difference is the
  gap, and they bound I_p(x; code);
* ``test``: log p(x) of test images from below;
* ``iwae``: the importance-weighted bound of the same images, and the ELBO.

Seconds are those on the clock, and the processor's, of all threads.

    python -m benchmarks ais --data-root DIR
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, machine, parser, write

SAMPLES = (1000, 5000)


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Measures, prints a table, and writes results as JSON."""
    command = parser("ais", __doc__)
    command.add_argument("--data", default="mnist")
    command.add_argument("--data-root")
    command.add_argument("--images", type=int, default=1000, metavar="N")
    command.add_argument("--own", type=int, default=250, metavar="N")
    command.add_argument("--epochs", type=int, default=5)
    command.add_argument("--latent-dim", type=int, default=20)
    command.add_argument("--temperatures", type=int, default=200)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path)
    asked = vars(command.parse_args(argv))
    out = asked.pop("out") or RESULTS / f"ais-{asked['data']}-{date.today()}.json"
    rows = measure(**asked)
    shown = {name: value for name, value in asked.items() if name != "data_root"}
    told = "".join(f" --{name.replace('_', '-')} {value}" for name, value in shown.items())
    root = " --data-root DIR" if asked["data_root"] else ""
    content = {
        "command": f"python -m benchmarks ais{root}{told}",
        "settings": {**shown, "annealing": rows.pop("options")},
        "machine": machine(),
        "rows": rows,
    }
    write(out, content)
    print(table(rows))
    print(f"written to {out}")
    return content


def measure(
    data: str,
    data_root: str | None,
    images: int,
    own: int,
    epochs: int,
    latent_dim: int,
    temperatures: int,
    threads: int,
    seed: int,
) -> dict[str, Any]:
    """Trains the model and measures the rows of the table."""
    import torch

    import pyro_mivae as mi
    from pyro_mivae.evidence.annealing import AnnealingOptions
    from pyro_mivae.evidence.importance import importance_weighted
    from pyro_mivae.posterior.probe import probed

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    given = mi.load_dataset(data, root=data_root)
    train, test = (torch.bernoulli(x) for x in (given.x_train, given.x_test[:images]))
    vae = mi.VAE(given.data_shape, latent_dim=latent_dim)
    mi.fit(vae, train, epochs=epochs, seed=seed, device="cpu")
    pair = vae.model, vae.guide
    rows: dict[str, Any] = {"options": asdict(AnnealingOptions(num_temperatures=temperatures))}
    how: dict[str, Any] = {"num_temperatures": temperatures, "seed": seed}

    def keep(name: str, told: Callable[[Any], dict[str, float]], run: Callable[[], Any]) -> None:
        load = os.getloadavg()[0]
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        clocks = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        rows[name] = {**told(found), **clocks, "load": load}
        print(f"{name}: {rows[name]}", flush=True)

    def sampled(num_samples: int) -> Any:
        with probed(*pair, test, batch_size=1024, seed=seed) as (x, known), torch.no_grad():
            return importance_weighted(known, x, num_samples)

    keep(
        "own",
        of_both_sides,
        lambda: mi.bidirectional_monte_carlo(*pair, test, items=own, **how),
    )
    keep(
        "test",
        lambda found: {
            "log_px": found.mean,
            "log_px_se": found.se,
            "acceptance": found.acceptance,
        },
        lambda: mi.annealed_log_likelihood(*pair, test, **how),
    )
    for num_samples in SAMPLES:
        keep(
            f"iwae {num_samples}",
            lambda found: {"log_px": float(found[0].mean()), "elbo": float(found[1].mean())},
            partial(sampled, num_samples),
        )
    return rows


def of_both_sides(found: Any) -> dict[str, float]:
    """Figures of bidirectional Monte Carlo, with their standard errors over the data."""
    low, high, likelihood = found.log_px_lower, found.log_px_upper, found.log_likelihood
    parts = {
        "log_px_lower": low,
        "log_px_upper": high,
        "gap": high - low,
        "information_lower": likelihood - high,
        "information_upper": likelihood - low,
    }
    figures = {name: float(rows.mean()) for name, rows in parts.items()}
    errors = {f"{n}_se": float(rows.std()) / math.sqrt(len(rows)) for n, rows in parts.items()}
    return {**figures, **errors, "acceptance": found.acceptance}


def table(rows: dict[str, Any]) -> str:
    """Lays out every row in Markdown."""
    lines = ["| | nats | seconds (of the processor) |", "| --- | --- | --- |"]
    for name, row in rows.items():
        told = f"log p(x) ≥ {row['log_px']:.2f}" if name != "own" else (
            f"log p(x) {row['log_px_lower']:.2f} to {row['log_px_upper']:.2f}, gap "
            f"{row['gap']:.3f} ± {row['gap_se']:.3f}; I_p(x; code) "
            f"{row['information_lower']:.2f} to {row['information_upper']:.2f}"
        )  # fmt: skip
        lines.append(f"| {name} | {told} | {row['wall']:.0f} ({row['cpu']:.0f}) |")
    return "\n".join(lines)
