"""The parts of the GPU benchmark, each a table of cells that are measured one by one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

import pyro_mivae as mi
from benchmarks.gpu_contenders import Build, builds, ours, recording
from benchmarks.gpu_race import Bench, Scale, race
from benchmarks.gpu_results import Cell
from benchmarks.handwritten import HANDWRITTEN, check_equal
from benchmarks.speed import repeated, time_turn

GPU = Scale(
    "cuda", 60_000, (128, 512, 2048, 8192, 16_384), 20, 7, 12, (1, 2, 4, 8), (2048,) * 2, (1, 8)
)
SMOKE = Scale("cpu", 40, (16, 32), 2, 2, 2, (1, 2), (8,), (1, 2))


Measure = Callable[[Bench, Cell], bool | None]
"""Fills a cell; False if it was cut short."""


class NoiselessGuide(PyroModule):
    """A guide of almost no noise, so that losses hardly depend on the random numbers."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        size = bench.images[0].numel()
        self.encoder = mi.networks.mlp((size, 400, 20))
        self.register_buffer("scale", torch.tensor(1e-6))

    def forward(self, x: Tensor) -> None:
        """Samples ``z``."""
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x.flatten(1)), self.scale).to_event(1))


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    """Raises every warning, but for one of the compiler in torch 2.11."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        yield


def largest_difference(losses: list[float], wanted: list[float]) -> float:
    """Returns the largest difference, in units of what was wanted."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, wanted, strict=True))


def check(bench: Bench, cell: Cell) -> None:
    """Trains staged and captured with warnings as errors, and compares losses with the CPU's.

    Plain Pyro trains the same weights on the CPU, in the same order of the images. The random
    numbers of the two devices differ, so each epoch's loss agrees to 3 %, and to 0.1 % with a
    guide of almost no noise. The cell's difference is in units of these tolerances.

    Raises:
        AssertionError: If it is above 1.
    """
    size = bench.scale.batch_sizes[0]
    x = repeated(bench.images, min(len(bench.images), 40 * size + size // 2)).cpu()
    settings = {"epochs": 3, "batch_size": size}
    worst = 0.0
    for name, tolerance in (("own guide", 0.03), ("noiseless guide", 1e-3)):
        torch.manual_seed(0)
        vae = bench.mlp_vae(guide=NoiselessGuide(bench) if name == "noiseless guide" else None)
        reference = copy.deepcopy(vae).cpu()
        with recording(), warnings_as_errors():
            losses = mi.fit(vae, x, **settings, engine="staged", device=bench.scale.device)["loss"]
            wanted = mi.fit(reference, x, **settings, engine="eager", device="cpu")["loss"]
        difference = largest_difference(losses, wanted)
        cell[name] = {"losses": losses, "CPU": wanted, "difference": difference}
        worst = max(worst, difference / tolerance)
        bench.results.save()
    cell["difference"] = worst
    if not worst <= 1:
        raise AssertionError(f"losses are {worst:.2g} times the tolerance from the CPU's")


def same_noise(
    variant: str, options: dict[str, Any], bench: Bench, cell: Cell, engine: str = "staged"
) -> None:
    """Compares a captured training with one that is staged and taken step by step.

    Both see the same noise, and warnings are errors.

    Raises:
        AssertionError: If losses differ by more than 1e-4 of themselves.
    """
    size = max(bench.scale.batch_sizes[0], 64)  # the fewest that critics take
    rest = 70 if engine == "staged" else 0  # each size of batch is compiled by itself
    x = repeated(bench.images, 3 * size + rest)
    settings = {"epochs": 2, "batch_size": size, "device": bench.scale.device}
    settings |= {"lr_schedule": "cosine", "clip_norm": 100.0}
    losses = []
    for capture, means in ((True, engine), (False, "staged")):
        vae = bench.mlp_vae() if variant == "vae" else bench.model(variant, **options)
        with recording(capture=capture), warnings_as_errors():
            losses.append(mi.fit(vae, x, **settings, engine=means)["loss"])
    cell["difference"] = largest_difference(*losses)
    if not cell["difference"] <= 1e-4:
        raise AssertionError(f"captured losses {losses[0]}, step by step {losses[1]}")


def vae_race(names: tuple[str, ...], bench: Bench, cell: Cell) -> bool:
    """Times contenders on the VAE of one hidden layer, after checking the hand-written loss."""
    return checked_race(bench.mlp_vae(), builds(*names), bench, cell)


def infocat_race(bench: Bench, cell: Cell) -> bool:
    """Times contenders on InfoCatVAE of ten categories, summed out; one decodes two of them."""
    vae = bench.model("infocat", num_categories=10)
    sampled = bench.model("infocat", num_categories=10, categorical="sample")
    contenders = builds(
        "ours", "hand-made graph", "ours, compiled", "hand-made graph, compiled",
        "stock SVI, our ELBO",
    )  # fmt: skip
    contenders["ours, two decodes"] = lambda vae, *rest: ours()(sampled, *rest)
    return checked_race(vae, contenders, bench, cell)


def checked_race(vae: Any, contenders: dict[str, Build], bench: Bench, cell: Cell) -> bool:
    """Checks the hand-written loss and gradient on the CPU, then times contenders."""
    size = bench.scale.batch_sizes[0]
    x = repeated(bench.images, size).cpu()
    check_equal(copy.deepcopy(vae).cpu(), HANDWRITTEN[vae.name], x)
    return race(bench, cell, vae, contenders, size)


def epoch(engine: str, bench: Bench, cell: Cell) -> None:
    """Times the epochs of `mi.fit`, a smaller last batch included."""
    seconds = cell["seconds"] = []

    def note(row: Any) -> None:
        seconds.append(round(row["seconds"], 5))
        bench.results.save()

    size, device = bench.scale.batch_sizes[0], bench.scale.device
    cell["steps"] = -(-len(bench.images) // size)
    settings = {"epochs": bench.scale.epochs, "batch_size": size, "device": device}
    with recording():
        mi.fit(bench.mlp_vae(), bench.images, **settings, engine=engine, on_epoch=note)
    cell["median"] = median(seconds[1:])


def batch(size: int, bench: Bench, cell: Cell) -> bool:
    """Times steps at one batch size."""
    names = ("ours", "ours, compiled", "hand-made graph", "hand-made graph, compiled")
    return race(bench, cell, bench.mlp_vae(), builds(*names), size)


def replays(bench: Bench, cell: Cell) -> bool:
    """Times steps by how many are captured as one graph."""
    contenders = {f"{count} a replay": ours(steps=count) for count in bench.scale.replays}
    return race(bench, cell, bench.mlp_vae(), contenders, bench.scale.batch_sizes[0])


def precisions(size: int, bench: Bench, cell: Cell) -> bool:
    """Times steps of wide networks by the precision of their products."""
    allowed = ("float32", "tf32", "bf16") if bench.scale.device == "cuda" else ("float32", "bf16")
    contenders = {name: ours("compiled", name) for name in allowed}
    return race(bench, cell, bench.mlp_vae(bench.scale.widths), contenders, size)


def many(count: int, bench: Bench, cell: Cell) -> None:
    """Times `mi.fit_many` on small models."""
    x = torch.nn.functional.adaptive_avg_pool2d(bench.images[:1797], 8)
    seeds, device = range(count), bench.scale.device
    settings = {"epochs": bench.scale.epochs, "seeds": seeds, "device": device}
    models = [mi.VAE((1, 8, 8)) for _ in seeds]
    seconds = time_turn(lambda: mi.fit_many(models, x, **settings), device)["wall"]
    cell["models per minute"] = round(60 * count / seconds, 1)


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        about: What it measures.
        seconds: Its time, after which no contender and no round is begun.
        cells: What it measures, by name.
    """

    about: str
    seconds: float
    cells: Callable[[Scale], dict[str, Measure]]


ENGINES = ("staged", "compiled")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "beta, scheduled": ("beta", {"beta": mi.linear_warmup(4, 0.5)}),
    "critic-infomax, mine": ("critic-infomax", {"bound": "mine"}),
    "infocat, gumbel": ("infocat", {"categorical": "gumbel"}),
    "infocat, sample": ("infocat", {"categorical": "sample"}),
    **{name: (name, {}) for name in mi.VARIANTS if name not in ("vae", "beta")},
}
TARGETS = (
    "ours", "hand-made graph", "stock SVI, our ELBO", "stock SVI, Pyro's ELBO",
    "ours, compiled", "hand-made graph, compiled",
)  # fmt: skip
OTHERS = (
    "ours", "ours, never compared", "ours, not captured", "ours, eager", "by hand",
    "by hand, compiled",
)  # fmt: skip
PARTS: dict[str, Part] = {
    "check": Part(
        "warnings as errors: losses against the CPU's, captured against step by step",
        60,
        lambda scale: {
            "against the CPU": check,
            "captured": partial(same_noise, "vae", {}),
            "compiled": partial(same_noise, "vae", {}, engine="compiled"),
        },
    ),
    "step": Part(
        "steps of the VAE 784-400-20; a turn is an epoch of the whole batches",
        110,
        lambda scale: {"vae": partial(vae_race, TARGETS)},
    ),
    "epoch": Part(
        "seconds per epoch of mi.fit",
        50,
        lambda scale: {engine: partial(epoch, engine) for engine in ENGINES},
    ),
    "infocat": Part(
        "steps of InfoCatVAE with ten categories", 90, lambda scale: {"infocat": infocat_race}
    ),
    "mi.SVI": Part(
        "steps of mi.SVI beside those of fit",
        60,
        lambda scale: {
            "vae": partial(vae_race, ("ours", "mi.SVI", "ours, compiled", "mi.SVI, compiled"))
        },
    ),
    "variants": Part(
        "every variant, captured against step by step on the same noise",
        60,
        lambda scale: {name: partial(same_noise, *given) for name, given in VARIANTS.items()},
    ),
    "replays": Part("steps by how many a replay takes", 40, lambda scale: {"vae": replays}),
    "others": Part("steps by other means", 60, lambda scale: {"vae": partial(vae_race, OTHERS)}),
    "batches": Part(
        "steps by the size of the batch",
        60,
        lambda scale: {str(size): partial(batch, size) for size in scale.batch_sizes[1:]},
    ),
    "precision": Part(
        "steps of wide networks by precision",
        60,
        lambda scale: {
            str(size): partial(precisions, size)
            for size in (scale.batch_sizes[-1], scale.batch_sizes[len(scale.batch_sizes) // 2])
        },
    ),
    "many": Part(
        "models per minute of mi.fit_many",
        60,
        lambda scale: {str(count): partial(many, count) for count in scale.models},
    ),
}
"""The parts, the most important first."""
