"""The gradient of each way to treat a category: its variance, its bias and its cost.

On the same batches, with fresh noise each time, the gradient of CatVAE's objective is taken many
times: where training begins (``random``), after the informed start (``informed``), and after some
epochs (``trained``). By part of the model, summed over its parameters:

* ``noise``: the variance on one batch, as a multiple of the exact objective's there (which draws
  z and sums c out), and on a fresh batch each time, ``total``, as training sees it;
* ``bias``: distance of the mean gradient from the exact one's, as a share of its length, and a
  dash where it is within three standard errors of none. Its square is estimated without bias from
  the products of groups of draws, its error by leaving out one group at a time.

Time per step (loss and gradient) is the process's CPU time, interleaved in random order.

    python -m benchmarks variance --data digits
    python -m benchmarks variance --data mnist --data-root DIR
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import pstdev, quantiles
from typing import Any

from benchmarks import common
from benchmarks.common import RESULTS, machine, write

PARTS = {
    "encoder": "guide.encoder",
    "categories": "guide.heads.0",
    "codes": "guide.heads.1",
    "decoder": "model.decoder",
}
GROUPS = 10
STATES = ("random", "informed", "trained")
SETTINGS = ("data", "draws", "epochs", "batch_size", "turns", "means", "seed")


def objectives() -> dict[str, Any]:
    """The exact objective first, then what stands in its place."""
    import pyro_mivae as mi

    def sampled(exact: int, draws: int) -> Any:
        return mi.SampledCategoricalELBO(exact=exact, draws=draws, max_plate_nesting=1)

    return {
        "enumerate": mi.MutualInformationELBO(max_plate_nesting=1),
        "sample 1 + 1": sampled(1, 1),
        "sample 1 + 2": sampled(1, 2),
        "sample 1 + 3": sampled(1, 3),
        "sample 2 + 1": sampled(2, 1),
        "sample 0 + 1": sampled(0, 1),
        "soft": mi.RelaxedCategoricalELBO(max_plate_nesting=1),
        "gumbel": mi.RelaxedCategoricalELBO(relaxation="gumbel", max_plate_nesting=1),
    }


def gradient(objective: Any, vae: Any, x: Any) -> dict[str, Any]:
    """The gradient of the loss per datum, by part, each as one vector."""
    import torch

    named = dict(vae.named_parameters())
    loss = objective.differentiable_loss(vae.model, vae.guide, x) / len(x)
    slopes = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    return {
        part: torch.cat([slope.flatten() for name, slope in slopes.items() if prefix in name])
        for part, prefix in PARTS.items()
    }


class Moments:
    """Means of vectors, by group, and the sum of their squares."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Any] = [0.0] * GROUPS
        self.squares: Any = 0.0

    def add(self, vector: Any) -> None:
        """Counts one more vector."""
        group = self.count % GROUPS
        self.sums[group] = self.sums[group] + vector
        self.squares = self.squares + vector.double().square()
        self.count += 1

    @property
    def variance(self) -> float:
        """Summed over the elements."""
        mean = sum(self.sums).double() / self.count
        of_each = (self.squares / self.count - mean.square()) * self.count / (self.count - 1)
        return float(of_each.sum())

    @property
    def groups(self) -> Any:
        """The mean of each group, shape ``(GROUPS, elements)``."""
        import torch

        return torch.stack(self.sums).double() * GROUPS / self.count


def square(means: Any) -> float:
    """Squared length of the mean of independent vectors, noise left out."""
    n = len(means)
    of_sum, of_each = means.sum(0).square().sum(), means.square().sum()
    return float(of_sum - of_each) / (n * (n - 1))


def bias(found: Moments, exact: Moments) -> dict[str, float]:
    """Length of the bias as a share of the exact gradient's, and what noise alone would show."""
    import torch

    apart = found.groups - exact.groups
    left_out = [square(torch.cat([apart[:g], apart[g + 1 :]])) for g in range(GROUPS)]
    error = (GROUPS - 1) / GROUPS**0.5 * pstdev(left_out)
    length = max(square(exact.groups), 1e-300)
    estimate = square(apart)
    return {
        "bias": (max(estimate, 0.0) / length) ** 0.5,
        "bias_of_noise": (3 * error / length) ** 0.5,
    }


def measure(vae: Any, x_train: Any, batch_size: int, draws: int) -> dict[str, Any]:
    """Variance and bias of every objective's gradient, by part."""
    import torch

    generator = torch.Generator().manual_seed(0)
    batches = [
        x_train[torch.randperm(len(x_train), generator=generator)[:batch_size]]
        for _ in range(draws)
    ]
    exact: dict[str, tuple[Moments, Moments]] = {}
    result: dict[str, Any] = {}
    for name, objective in objectives().items():
        found = {part: (Moments(), Moments()) for part in PARTS}
        for fresh in batches:
            for which, x in enumerate((batches[0], fresh)):
                for part, vector in gradient(objective, vae, x).items():
                    found[part][which].add(vector)
        exact = exact or found
        result[name] = {
            part: {
                "noise": noise.variance / exact[part][0].variance,
                "total": total.variance / exact[part][1].variance,
                **(bias(noise, exact[part][0]) if found is not exact else {}),
            }
            for part, (noise, total) in found.items()
        }
    return result


def step_times(vae: Any, x: Any, turns: int, means: str) -> dict[str, dict[str, float]]:
    """CPU seconds of a loss and its gradient: quartiles, and the ratio to the exact one's."""
    from pyro_mivae.engine.steps import Engine
    from pyro_mivae.engine.tracing import TrainStep

    def loss_of(objective: Any) -> Callable[[Any], Any]:
        def loss(x: Any) -> Any:
            return objective.differentiable_loss(vae.model, vae.guide, x), objective.ledger

        return loss

    steps = {
        name: Engine(TrainStep.of_modules(loss_of(objective), vae), means).step(x)
        for name, objective in objectives().items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for turn in range(turns + 3):
        for name in order.sample(list(steps), len(steps)):
            began = time.process_time()
            steps[name](x)
            if turn >= 3:
                seconds[name].append(time.process_time() - began)
    quartiles = {name: quantiles(of_one, n=4) for name, of_one in seconds.items()}
    median = quartiles["enumerate"][1]
    return {
        name: {"low": low, "median": middle, "high": high, "ratio": middle / median}
        for name, (low, middle, high) in quartiles.items()
    }


def prepare(state: str, images: Any, epochs: int, batch_size: int, seed: int) -> tuple[Any, float]:
    """Builds the model of a state, and says how sure it is of the categories."""
    import torch

    import pyro_mivae as mi

    torch.manual_seed(seed)
    vae = mi.CatVAE(images.data_shape)
    if state == "informed":
        vae.initialize(images.x_train)
    elif state == "trained":
        settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "device": "cpu"}
        mi.fit(vae, images.x_train, **settings)
    return vae, float(vae.encode(images.x_train[:2000])["c"].max(-1).values.mean())


def table(content: dict[str, Any]) -> str:
    """Lays out every state's figures."""
    lines = []
    for state, found in content["states"].items():
        lines += [
            "",
            f"{state}: the most probable category has {found['sureness']:.3f} on average",
        ]
        heads = [f"{part}: noise, total, bias" for part in PARTS]
        lines.append("| category | " + " | ".join(heads) + " |")
        lines.append("|" + " --- |" * (len(PARTS) + 1))
        for name, parts in found["gradients"].items():
            cells = [f"{of['noise']:.3g}, {of['total']:.3g}, {_told(of)}" for of in parts.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| category | ms / step | quartiles | ratio |", "| --- | --- | --- | --- |"]
    for name, of in content["step"].items():
        low, middle, high = (1e3 * of[key] for key in ("low", "median", "high"))
        lines.append(f"| {name} | {middle:.2f} | {low:.2f} – {high:.2f} | {of['ratio']:.3f} |")
    return "\n".join(lines)


def _told(of: dict[str, float]) -> str:
    return f"{of['bias']:.1%}" if of.get("bias", 0.0) > of.get("bias_of_noise", 0.0) else "–"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures, and prints the table."""
    parser = common.parser("variance", __doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root")
    parser.add_argument("--draws", type=int, default=400, help="gradients of each")
    parser.add_argument("--epochs", type=int, default=40, help="of training before the last state")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--turns", type=int, default=200, help="timed steps of each")
    means = ["eager", "staged", "compiled"]
    parser.add_argument("--means", default="compiled", choices=means, help="of the timed steps")
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="results file")
    args = parser.parse_args(argv)
    if args.draws < 2 * GROUPS:
        parser.error(f"--draws {args.draws}: {2 * GROUPS} or more are needed")

    import pyro
    import torch

    import pyro_mivae as mi

    torch.set_num_threads(1)
    images = mi.load_dataset(args.data, root=args.data_root)
    path = args.out or RESULTS / f"variance-{args.data}-{date.today()}.json"
    content: dict[str, Any] = {
        "machine": machine() | {"threads": 1},
        "settings": {key: vars(args)[key] for key in SETTINGS},
        "states": {},
    }
    for state in args.states:
        vae, sureness = prepare(state, images, args.epochs, args.batch_size, args.seed)
        torch.manual_seed(args.seed)
        with pyro.validation_enabled(False):
            gradients = measure(vae, images.x_train, args.batch_size, args.draws)
        content["states"][state] = {"sureness": sureness, "gradients": gradients}
        write(path, _rounded(content))
    with pyro.validation_enabled(False):
        x = images.x_train[: args.batch_size]
        content["step"] = step_times(vae, x, args.turns, args.means)
    write(path, _rounded(content))
    print(table(content))
    print(f"all figures: {path}")
    return content


if __name__ == "__main__":
    main()
