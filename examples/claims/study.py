"""What the claim scripts share: models trained from several seeds, and verdicts on claims.

A claim compares two models, seed by seed, or a model with a number. It *holds* where the
one-sided 95 % confidence bound of the mean difference (Student's t over the seeds) is on its side,
*does not hold* where the bound on the other side is, and is *undecided* otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.stats import t as student

import pyro_mivae as mi
from pyro_mivae.data import Dataset

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
NOT_MEASURED = "not measured"


def parser(doc: str | None, *, epochs: int, data: str = "digits") -> argparse.ArgumentParser:
    """Makes the command line of a claim script; the script adds its own options.

    Args:
        doc: The script's docstring, shown by ``--help``.
        epochs: Passes over the images.
        data: What it trains on by default.
    """
    command = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--data", default=data, help="digits, mnist, ..., FILE.npz, FOLDER")
    command.add_argument("--data-root", help="folder of torchvision's data sets")
    command.add_argument("--subset", type=int, help="train on so many images, drawn once")
    command.add_argument("--epochs", type=int, default=epochs)
    command.add_argument("--batch-size", type=int, default=128)
    command.add_argument("--lr", type=float, default=1e-3)
    command.add_argument("--seeds", type=int, default=3, help="how many, 2 or more")
    command.add_argument("--first-seed", type=int, default=0)
    command.add_argument("--device", default="auto", help="auto, cpu or cuda")
    command.add_argument("--out", type=Path, help="JSON file for all runs and verdicts")
    command.add_argument("--smoke", action="store_true", help="two epochs on made-up images")
    return command


class Study:
    """Trains models from several seeds on the same images, and judges claims on them.

    Args:
        args: What the command line gave; ``--smoke`` shortens everything.

    Attributes:
        images: The images.
        runs: By model, the figures of each seed.
        verdicts: The verdict on each claim.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        if args.seeds < 2:
            raise SystemExit(f"--seeds {args.seeds}: 2 or more are needed to tell a difference")
        self.args = args
        self.images = _stripes() if args.smoke else _subset(_load(args), args.subset)
        if args.smoke:
            args.epochs, args.batch_size, args.seeds = 2, 64, 2
        self.runs: dict[str, list[dict[str, float]]] = {}
        self.verdicts: dict[str, str] = {}
        self._claims: list[dict[str, str]] = []

    @property
    def seeds(self) -> range:
        """The seeds of every model."""
        return range(self.args.first_seed, self.args.first_seed + self.args.seeds)

    def train(
        self,
        name: str,
        make: Callable[[], mi.Variant],
        measure: Callable[[mi.Variant], Mapping[str, float]] | None = None,
        **options: Any,
    ) -> None:
        """Trains a model from every seed, and measures each; a name that is known is left alone.

        Args:
            name: What tables call it.
            make: Builds the model; random numbers are seeded before.
            measure: Figures of a trained model; `mi.evaluate` on the test images if omitted.
            **options: Keywords of `mi.fit`, in place of the command line's.
        """
        if name in self.runs:
            return
        args, images = self.args, self.images
        settings = {"epochs": args.epochs, "batch_size": args.batch_size, "lr": args.lr} | options
        rows = []
        for seed in self.seeds:
            torch.manual_seed(seed)
            vae = make()
            start = time.perf_counter()
            mi.fit(vae, images.x_train, device=args.device, seed=seed, **settings)
            seconds = time.perf_counter() - start
            figures = self.evaluate(vae) if measure is None else measure(vae)
            rows.append({"seed": seed, "seconds": seconds, **figures})
            print(f"{name}, seed {seed}: trained in {seconds:.0f} s", flush=True)
        self.runs[name] = rows
        self.save()

    def evaluate(self, vae: mi.Variant) -> dict[str, float]:
        """Evaluates a model on the test images, with the training images for its probes."""
        images = self.images
        train = None if images.y_train is None else (images.x_train, images.y_train)
        quick = {"samples_per_category": 16, "iwae_samples": 4} if self.args.smoke else {}
        return dict(mi.evaluate(vae, images.x_test, images.y_test, train, **quick))

    def mean(self, model: str, figure: str) -> float:
        """Gives a figure's mean over the seeds."""
        return fmean(row[figure] for row in self.runs[model])

    def table(self, figures: Mapping[str, str], models: Sequence[str] | None = None) -> None:
        """Prints mean and standard deviation over the seeds, a line per model.

        Args:
            figures: Heading of each figure that is shown.
            models: Which models; all if omitted.
        """
        models = list(self.runs if models is None else models)
        width = max(map(len, models))
        print(" " * width + "".join(f"{heading:>18}" for heading in figures.values()))
        for model in models:
            cells = []
            for figure in figures:
                values = [row[figure] for row in self.runs[model]]
                cells.append(f"{fmean(values):>10.3f} ± {stdev(values):<5.3f}")
            print(f"{model:<{width}}" + "".join(cells))

    def higher(self, a: str, b: str, figure: str, by: float = 0.0) -> tuple[str, str]:
        """Asks whether a figure is higher for one model than for another, seed by seed.

        Args:
            a: The model of the higher figure.
            b: The other.
            figure: The figure.
            by: By how much more.

        Returns:
            The verdict, and the numbers behind it.
        """
        pairs = zip(self.runs[a], self.runs[b], strict=True)
        differences = [one[figure] - other[figure] for one, other in pairs]
        means = f"{figure}: {a} {self.mean(a, figure):.3f}, {b} {self.mean(b, figure):.3f}"
        return self._sign([d - by for d in differences]), f"{means} ({_spread(differences)})"

    def above(self, model: str, figure: str, level: float) -> tuple[str, str]:
        """Asks whether a model's figure is above a level.

        Args:
            model: The model.
            figure: The figure.
            level: The level.

        Returns:
            The verdict, and the numbers behind it.
        """
        values = [row[figure] for row in self.runs[model]]
        text = f"{figure} of {model}: {_spread(values)}, level {level:g}"
        return self._sign([value - level for value in values]), text

    def below(self, model: str, figure: str, level: float) -> tuple[str, str]:
        """Asks whether a model's figure is below a level; see `above`."""
        verdict, text = self.above(model, figure, level)
        return {HOLDS: FAILS, FAILS: HOLDS}.get(verdict, verdict), text

    def claim(self, text: str, *evidence: tuple[str, str]) -> str:
        """Prints a claim, the numbers and the verdict: that of the weakest piece of evidence.

        Args:
            text: What the source says.
            *evidence: Verdicts with their numbers; none where it was not measured.

        Returns:
            The verdict.
        """
        found = {verdict for verdict, _ in evidence}
        weakest = (verdict for verdict in (FAILS, UNDECIDED, HOLDS) if verdict in found)
        verdict = next(weakest, NOT_MEASURED)
        print(f"\nclaim:   {text}")
        for _, numbers in evidence:
            print(f"         {numbers}")
        print(f"verdict: {verdict}", flush=True)
        self.verdicts[text] = verdict
        numbers = [numbers for _, numbers in evidence]
        self._claims.append({"claim": text, "verdict": verdict, "numbers": "; ".join(numbers)})
        self.save()
        return verdict

    def save(self) -> None:
        """Writes all runs and verdicts to ``--out``, if that was given."""
        if self.args.out is None:
            return
        versions = {name: metadata.version(name) for name in ("pyro-mivae", "pyro-ppl", "torch")}
        settings = {k: v for k, v in vars(self.args).items() if k != "data_root"}
        settings = {k: v for k, v in settings.items() if not isinstance(v, Path)}
        content = {
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version(), **versions},
            "settings": settings,
            "claims": self._claims,
            "runs": {name: [_defined(row) for row in rows] for name, rows in self.runs.items()},
        }
        self.args.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")

    @staticmethod
    def _sign(differences: Sequence[float]) -> str:
        margin = float(student.ppf(0.95, len(differences) - 1))
        margin *= stdev(differences) / len(differences) ** 0.5
        if fmean(differences) - margin > 0:
            return HOLDS
        return FAILS if fmean(differences) + margin < 0 else UNDECIDED


def _defined(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row as JSON has it, null where a figure is not defined."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):+.3f} ± {stdev(values):.3f} over {len(values)} seeds"


def _load(args: argparse.Namespace) -> Dataset:
    return mi.load_dataset(args.data, root=args.data_root)


def _subset(images: Dataset, count: int | None) -> Dataset:
    """Keeps so many training images, the same whatever the seed of training."""
    if count is None or count >= len(images.x_train):
        return images
    chosen = torch.randperm(len(images.x_train), generator=torch.Generator().manual_seed(0))[
        :count
    ]
    labels = None if images.y_train is None else images.y_train[chosen]
    return replace(images, x_train=images.x_train[chosen], y_train=labels)


def _stripes() -> Dataset:
    """Makes 192 training and 96 test images of 8×8 pixels: noise, and a bright row as label."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(288) % 8
    x = 0.1 * torch.rand(288, 1, 8, 8, generator=generator)
    x[torch.arange(288), 0, y] += 0.8
    return Dataset("stripes", x[:192], y[:192], x[192:], y[192:], tuple("01234567"))
