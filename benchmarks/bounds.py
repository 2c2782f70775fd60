"""Each bound on mutual information beside the truth: its bias, its spread, and where it fails.

First with the optimal critic, which is known for correlated Gaussians, so that what is seen is
the bound's own doing. There TUBA with the best baseline and the Jensen-Shannon estimate have NWJ's
value, and MINE has Donsker and Varadhan's; a Barber-Agakov bound and a rate would be exact but for
their scatter. Then with critics that learn, from fresh pairs at every step, scored on fresh pairs.
All runs count, none is selected. It takes about four minutes of one core; the results in this
folder's ``results`` and the picture are of the second command.

    python -m benchmarks bounds
    python -m benchmarks bounds --seeds 3
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.bounds_picture import draw
from benchmarks.common import RESULTS, machine, write
from pyro_mivae.bounds import (
    MovingAverage,
    club_bound,
    donsker_varadhan_bound,
    infonce_bound,
    interpolated_bound,
    jensen_shannon_estimate,
    leave_one_out_bound,
    mine_bound,
    nwj_bound,
    off_diagonal,
    smile_estimate,
)
from pyro_mivae.networks import Critic, build_critic

PICTURE = Path(__file__).parents[1] / "docs" / "bounds.png"
OPTIMAL: dict[str, Callable[[Tensor], Tensor]] = {
    "infonce": infonce_bound,
    "interpolated, alpha 0.5": lambda t: interpolated_bound(t, 0.0, alpha=0.5),
    "interpolated, alpha 0.01": lambda t: interpolated_bound(t, 0.0, alpha=0.01),
    "nwj": lambda t: nwj_bound(1 + t.diagonal(), 1 + off_diagonal(t)),
    "nwj, permuted": lambda t: nwj_bound(1 + t.diagonal(), 1 + _permuted(t)),
    "dv": lambda t: donsker_varadhan_bound(t.diagonal(), off_diagonal(t)),
    "dv, permuted": lambda t: donsker_varadhan_bound(t.diagonal(), _permuted(t)),
    "smile, clip 1": lambda t: smile_estimate(t.diagonal(), off_diagonal(t), clip=1.0),
    "smile, clip 5": lambda t: smile_estimate(t.diagonal(), off_diagonal(t), clip=5.0),
    "leave-one-out": leave_one_out_bound,
    "club": club_bound,
}
"""By the log-ratios of n pairs; beside all n (n - 1) pairs drawn apart, n of a permutation."""

SHARES = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
Score = Callable[[Tensor], Tensor]


class Gaussians:
    """Pairs of correlated Gaussians with a known information."""

    def __init__(self, dims: int, nats: float, seed: int, dtype: torch.dtype) -> None:
        self.rho = math.sqrt(-math.expm1(-2 * nats / dims))
        self.dims, self.dtype = dims, dtype
        self.generator = torch.Generator().manual_seed(seed)

    def pairs(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n data and their codes, shape ``(n, dims)`` each."""
        x, noise = torch.randn(2, n, self.dims, generator=self.generator, dtype=self.dtype)
        return x, self.rho * x + math.sqrt(1 - self.rho**2) * noise

    def log_ratios(self, x: Tensor, z: Tensor) -> Tensor:
        """Gives log p(z_i | x_j) - log p(z_i), shape ``(n, n)``."""
        variance = 1 - self.rho**2
        of_code = z.square().sum(1)[:, None]
        residuals = of_code - 2 * self.rho * z @ x.T + self.rho**2 * x.square().sum(1)
        return 0.5 * (of_code - residuals / variance - self.dims * math.log(variance))


def optimal(dims: int, nats: float, n: int, runs: int) -> list[dict[str, Any]]:
    """Measures every bound on many samples of n pairs, by the optimal critic."""
    values: dict[str, list[float]] = {name: [] for name in OPTIMAL}
    for seed in range(runs):
        gaussians = Gaussians(dims, nats, seed, torch.float64)
        ratios = gaussians.log_ratios(*gaussians.pairs(n))
        for name, bound in OPTIMAL.items():
            values[name].append(bound(ratios).item())
    return [
        {"bound": name, "dims": dims, "nats": nats} | summary(values[name], nats)
        for name in OPTIMAL
    ]


def summary(values: list[float], nats: float) -> dict[str, Any]:
    """Summarises the values of one bound over samples."""
    all_of = torch.tensor(values, dtype=torch.float64)
    finite = all_of[all_of.isfinite()]
    return {
        "mean": round(finite.mean().item(), 4),
        "sd": round(finite.std().item(), 4),
        "bias": round(finite.mean().item() - nats, 4),
        "quantiles": [round(q, 4) for q in all_of.quantile(SHARES).tolist()],
        "above_truth": round((all_of > nats).double().mean().item(), 4),
        "not_finite": len(all_of) - len(finite),
    }


def objectives() -> dict[str, tuple[Score, dict[str, Score]]]:
    """What a critic learns from, and what is then read off its scores."""
    average = MovingAverage(0.1)

    def both(function: Callable[[Tensor, Tensor], Tensor]) -> Score:
        return lambda t: function(t.diagonal(), off_diagonal(t))

    dv, nwj = both(donsker_varadhan_bound), both(nwj_bound)
    jensen_shannon = both(jensen_shannon_estimate)
    smile = both(lambda joint, marginal: smile_estimate(joint, marginal, clip=5.0))

    def interpolated(t: Tensor) -> Tensor:
        return interpolated_bound(t, 1.0, alpha=0.01)

    return {
        "infonce": (infonce_bound, {"infonce": infonce_bound}),
        "interpolated, alpha 0.01": (interpolated, {"interpolated, alpha 0.01": interpolated}),
        "nwj": (nwj, {"nwj": nwj}),
        "dv": (dv, {"dv": dv}),
        "mine": (both(lambda j, m: mine_bound(j, m, average)), {"mine": dv}),
        "jensen-shannon": (
            jensen_shannon,
            {"jensen-shannon": jensen_shannon, "smile, clip 5": smile},
        ),
    }


def trained(nats: float, critic: str, settings: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains a critic by each objective from several seeds, and measures what it has learned."""
    values: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(settings.seeds):
        for name, (objective, readings) in objectives().items():
            gaussians = Gaussians(settings.critic_dims, nats, seed, torch.float32)
            network = train(critic, gaussians, objective, seed, settings)
            with torch.no_grad():
                samples = [gaussians.pairs(settings.n) for _ in range(settings.samples)]
                scores = [network.all_pairs(*pairs) for pairs in samples]
                for reading, read in readings.items():
                    of_seed = [read(s).item() for s in scores]
                    values.setdefault((reading, name), []).append(of_seed)
    return [
        {"bound": reading, "learned_from": name, "critic": critic, "nats": nats}
        | summary([value for of_seed in by_seed for value in of_seed], nats)
        | {"mean_of_each_seed": [round(mean(of_seed), 4) for of_seed in by_seed]}
        for (reading, name), by_seed in values.items()
    ]


def train(
    critic: str, gaussians: Gaussians, objective: Score, seed: int, settings: argparse.Namespace
) -> Critic:
    """Trains a critic on fresh pairs at every step."""
    torch.manual_seed(seed)
    dims, widths = gaussians.dims, (settings.width, settings.width)
    network = build_critic(critic, (dims,), dims, widths)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr)
    for _ in range(settings.steps):
        optimiser.zero_grad()
        (-objective(network.all_pairs(*gaussians.pairs(settings.batch)))).backward()
        optimiser.step()
    return network


def tables(content: dict[str, Any]) -> str:
    """Lays out mean ± sd, and the share of runs above the truth."""
    lines = []
    for dims in sorted({row["dims"] for row in content["optimal"]}):
        of_dims = [row for row in content["optimal"] if row["dims"] == dims]
        nats = sorted({row["nats"] for row in of_dims})
        lines += ["", f"Optimal critic, {dims} dimensions: mean ± sd (runs above the truth)"]
        lines.append("| bound | " + " | ".join(f"{i:g} nats" for i in nats) + " |")
        lines.append("|" + " --- |" * (len(nats) + 1))
        for name in OPTIMAL:
            cells = [_cell(row) for row in of_dims if row["bound"] == name]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if content["trained"]:
        keys = list(dict.fromkeys((row["critic"], row["nats"]) for row in content["trained"]))
        lines += ["", "Trained critic: mean ± sd (runs above the truth)"]
        lines.append("| bound | " + " | ".join(f"{c}, {i:g} nats" for c, i in keys) + " |")
        lines.append("|" + " --- |" * (len(keys) + 1))
        for name in dict.fromkeys(row["bound"] for row in content["trained"]):
            of_name = [row for row in content["trained"] if row["bound"] == name]
            lines.append(f"| {name} | " + " | ".join(map(_cell, of_name)) + " |")
    return "\n".join(lines[1:])


def _cell(row: dict[str, Any]) -> str:
    lost = f", {row['not_finite']} not finite" if row["not_finite"] else ""
    return f"{row['mean']:.4g} ± {row['sd']:.2g} ({row['above_truth']:.0%}{lost})"


def _permuted(ratios: Tensor) -> Tensor:
    """Each code beside the next code's datum: as many pairs drawn apart as together."""
    following = torch.arange(len(ratios)).roll(-1)
    return ratios[torch.arange(len(ratios)), following]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures, writes, draws and prints."""
    parser = common.parser("bounds", __doc__)
    parser.add_argument("--n", type=int, default=512, help="pairs in a sample")
    parser.add_argument("--runs", type=int, default=120, help="samples by the optimal critic")
    parser.add_argument("--nats", type=float, nargs="+", default=[0.5, 1, 2, 4, 6, 8, 10])
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--critics", nargs="*", default=["joint", "separable"])
    parser.add_argument("--critic-nats", type=float, nargs="+", default=[2, 6])
    parser.add_argument("--critic-dims", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each critic")
    parser.add_argument("--steps", type=int, default=800, help="of training a critic")
    parser.add_argument("--batch", type=int, default=64, help="pairs in a step of training")
    parser.add_argument("--width", type=int, default=128, help="of both hidden layers")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--samples", type=int, default=4, help="that each trained critic scores")
    parser.add_argument("--out", type=Path, help="results file")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--redraw", type=Path, help="results file to draw, instead of measuring")
    args = parser.parse_args(argv)
    if args.redraw:
        content = json.loads(args.redraw.read_text())
    else:
        path = args.out or RESULTS / f"bounds-{date.today()}.json"
        settings = {k: v for k, v in vars(args).items() if k not in ("out", "picture", "redraw")}
        began = time.process_time()
        content = {
            "machine": machine() | {"threads": torch.get_num_threads()},
            "settings": settings,
            "optimal": [],
            "trained": [],
        }
        for dims, nats in product(args.dims, args.nats):
            content["optimal"] += optimal(dims, nats, args.n, args.runs)
            print(f"optimal critic, {dims} dimensions, {nats:g} nats: done", flush=True)
        for critic, nats in product(args.critics, args.critic_nats):
            content["trained"] += trained(nats, critic, args)
            print(f"{critic} critic, {nats:g} nats: done", flush=True)
        content["cpu_seconds"] = round(time.process_time() - began)
        write(path, content)
        print(f"all results: {path}")
    print(tables(content))
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    args.picture.write_bytes(draw(content))
    print(f"drawn: {args.picture}")
    return content


if __name__ == "__main__":
    main()
