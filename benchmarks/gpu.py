"""All that is worth measuring on a GPU, in under eight minutes, the most worth first.

Each part writes its result at once and has seconds of its own, so that whatever stops it leaves
what there is; parts that are in the results file are not measured again. Steps include the
fetching of the batch and, for ours, the epoch's own costs. Before anything is timed the
hand-written loss is checked to be the variant's, and captured training to equal uncaptured.

    python -m benchmarks gpu
    python -m benchmarks gpu --parts steps epoch
    python -m benchmarks gpu --smoke        all of it on the CPU, in miniature
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import common
from benchmarks.common import RESULTS, machine, write
from benchmarks.speed import spread, time_in_turns, time_turn

SECONDS = 450.0
MNIST_SIZE = 60_000


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    device: str
    shape: tuple[int, int, int]
    images: int
    steps: int
    turns: int
    batch_sizes: tuple[int, ...]
    replays: tuple[int, ...]
    widths: tuple[int, ...]
    models: tuple[int, ...]
    epochs: int


GPU = Scale(
    "cuda",
    (1, 28, 28),
    MNIST_SIZE,
    100,
    7,
    (128, 512, 2048, 8192, 16_384),
    (1, 2, 4, 8),
    (2048, 2048),
    (1, 8, 32, 64),
    12,
)
SMOKE = Scale("cpu", (1, 8, 8), 40, 2, 1, (16, 32), (1, 2), (8,), (1, 2), 2)


class Clock:
    """Tells whether there is time for another cell of a part."""

    def __init__(self, seconds: float, longest: float) -> None:
        self.end = time.perf_counter() + min(seconds, longest)

    def cells(self, names: Any, left_out: list[str]) -> Iterator[Any]:
        """Gives names while there is time; the rest is noted as left out."""
        for name in names:
            if time.perf_counter() < self.end:
                yield name
            else:
                left_out.append(str(name))


def model(scale: Scale, variant: str = "vae", **options: Any) -> Any:
    """Builds a variant for images of MNIST's size, the same each time."""
    import torch

    import pyro_mivae as mi

    if variant in ("cat", "infocat"):
        options = {"warm_start": 0, "warmup": 0.0, **options}
    torch.manual_seed(0)
    return mi.VARIANTS[variant](scale.shape, **options).to(scale.device)


def mlp_vae(scale: Scale, widths: tuple[int, ...] = (400,)) -> Any:
    """Builds the VAE of 784, these widths, and 20, and back."""
    import pyro_mivae as mi

    return model(
        scale,
        latent_dim=20,
        encoder=mi.networks.MLPEncoder(scale.shape, widths),
        decoder=mi.networks.MLPDecoder(20, scale.shape, widths[::-1]),
    )


def noise(scale: Scale, count: int) -> Any:
    """Makes images."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *scale.shape, generator=generator).to(scale.device)


def check_mathematics(scale: Scale, vae: Any) -> None:
    """Asserts, on the CPU, that the hand-written loss and its gradient are the variant's."""
    from benchmarks.handwritten import HANDWRITTEN, check_equal

    x = noise(scale, scale.batch_sizes[0]).cpu()
    check_equal(copy.deepcopy(vae).cpu(), HANDWRITTEN[vae.name], x)


def compare(
    scale: Scale, vae: Any, builds: dict[str, Any], batch_size: int, clock: Clock
) -> dict[str, Any]:
    """Builds contenders, has them take turns, and gives milliseconds per step and turn."""
    import torch

    from benchmarks.gpu_contenders import close

    x = noise(scale, scale.steps * batch_size)
    turns_of: dict[str, Any] = {}
    result: dict[str, Any] = {"batch_size": batch_size, "left_out": [], "prepared": {}}
    on_gpu = scale.device == "cuda"
    for name in clock.cells(builds, result["left_out"]):
        if on_gpu:
            torch.cuda.empty_cache()
        started, before = time.perf_counter(), torch.cuda.memory_reserved() if on_gpu else 0
        with telling(result["left_out"], name):
            turn = builds[name](vae, x, batch_size)
            turn()
            turns_of[name] = turn
        result["prepared"][name] = {"seconds": round(time.perf_counter() - started, 2)}
        if on_gpu:
            result["prepared"][name]["mib"] = (torch.cuda.memory_reserved() - before) >> 20
    times = time_in_turns(turns_of, scale.turns, scale.device)
    result["milliseconds"] = {
        name: [round(1e3 * s / scale.steps, 5) for s in clocks["wall"]]
        for name, clocks in times.items()
    }
    close(turns_of)
    return result


@contextlib.contextmanager
def telling(notes: list[str], name: str) -> Iterator[None]:
    """Notes what breaks, and what could not be captured, compiled or staged."""
    from pyro_mivae.errors import PyroMivaeWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PyroMivaeWarning)
        try:
            yield
        except Exception as error:
            notes.append(f"{name}: {type(error).__name__}: {error}"[:500])
    notes += [f"{name}: {w.message}" for w in caught if "the training step" in str(w.message)]


def ratio(result: dict[str, Any], name: str, baseline: str) -> float | None:
    """The median over the turns of a contender's cost in that of another."""
    of = result["milliseconds"]
    if name not in of or baseline not in of:
        return None
    return median(a / b for a, b in zip(of[name], of[baseline], strict=True))


def part_steps(scale: Scale, clock: Clock) -> dict[str, Any]:
    """Steps at the smallest batch, ours beside Pyro's SVI and hand-written PyTorch."""
    from benchmarks.gpu_contenders import STEPS

    batch_size = scale.batch_sizes[0]
    vae = mlp_vae(scale)
    check_mathematics(scale, vae)
    result = compare(scale, vae, STEPS, batch_size, clock)
    ours = [name for name in ("ours", "ours, compiled") if name in result["milliseconds"]]
    best = min(ours, key=lambda name: median(result["milliseconds"][name]), default="ours")
    faster = ratio(result, "stock SVI", best)
    slower = ratio(result, best, "hand-written, captured")
    result["best of ours"] = best
    result["steps that compiling takes"] = break_even(result)
    result["targets"] = {
        "stock SVI's step in ours, at least 20": target(faster, faster and faster >= 20),
        "ours in a hand-written captured step, at most 1.1": target(
            slower, slower and slower <= 1.1
        ),
    }
    return result


def break_even(result: dict[str, Any]) -> float | None:
    """After how many steps compiling has saved the time that it took."""
    of, ready = result["milliseconds"], result["prepared"]
    if not {"ours", "ours, compiled"} <= of.keys():
        return None
    saved = median(a - b for a, b in zip(of["ours"], of["ours, compiled"], strict=True))
    took = ready["ours, compiled"]["seconds"] - ready["ours"]["seconds"]
    return round(1e3 * took / saved) if saved > 0 else None


def target(value: float | None, met: Any) -> dict[str, Any]:
    """A figure beside what was asked of it."""
    return {"value": value and round(value, 3), "met": None if value is None else bool(met)}


def part_epoch(scale: Scale, clock: Clock) -> dict[str, Any]:
    """An epoch of MNIST's size by `mi.fit`, 784-400-20, batches of 128 and the rest."""
    import pyro_mivae as mi

    x = noise(scale, scale.images)
    result: dict[str, Any] = {"left_out": [], "seconds": {}, "steps": -(-len(x) // 128)}
    for engine in clock.cells(("staged", "compiled"), result["left_out"]):
        history = mi.fit(
            mlp_vae(scale), x, epochs=scale.epochs, engine=engine, device=scale.device
        )
        result["seconds"][engine] = [round(s, 5) for s in history["seconds"]]
    least = min(median(seconds[1:]) for seconds in result["seconds"].values())
    result["targets"] = {"an epoch of 469 steps, under 0.1 s": target(least, least < 0.1)}
    return result


EQUALITY: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("vae", {}),
    "beta, scheduled": ("beta", {"beta": 4.0}),
    "infomax": ("infomax", {}),
    "vmi": ("vmi", {}),
    "critic-infomax": ("critic-infomax", {}),
    "critic-infomax, mine": ("critic-infomax", {"bound": "mine"}),
    "mmd": ("mmd", {}),
    "cat": ("cat", {}),
    "infocat": ("infocat", {}),
    "infocat, gumbel": ("infocat", {"categorical": "gumbel"}),
    "infocat, sample": ("infocat", {"categorical": "sample"}),
    "infogan": ("infogan", {}),
}


def part_variants(scale: Scale, clock: Clock) -> dict[str, Any]:
    """Every variant trains captured, and as it trains uncaptured on the same noise."""
    import torch

    import pyro_mivae as mi
    from benchmarks.gpu_contenders import recording

    x = noise(scale, 2 * 64 + 70)
    settings = {"epochs": 2, "batch_size": 64, "lr_schedule": "cosine", "clip_norm": 100.0}
    result: dict[str, Any] = {"left_out": [], "variants": {}}
    for name in clock.cells(EQUALITY, result["left_out"]):
        variant, options = EQUALITY[name]
        if "scheduled" in name:
            options = {"beta": mi.linear_warmup(4, 0.5)}
        states, losses, told = [], [], []
        for steps_per_replay in (None, 1):
            vae = model(scale, variant, **options)
            with telling(told, name), recording(steps_per_replay):
                history = mi.fit(vae, x, **settings, engine="staged", device=scale.device)
                losses.append(torch.tensor(history["loss"]))
                states.append(torch.cat([p.detach().flatten() for p in vae.parameters()]))
        cell: dict[str, Any] = {"captured": not told, "told": told}
        if len(states) == 2:
            a, b = states
            cell["weights_differ_by"] = float((a - b).norm() / a.norm())
            cell["losses_differ_by"] = float(((losses[0] - losses[1]) / losses[0]).abs().max())
            cell["equal"] = cell["losses_differ_by"] < 1e-4
        result["variants"][name] = cell
    return result


def part_batches(scale: Scale, clock: Clock) -> dict[str, Any]:
    """Images per second by size of batch."""
    from benchmarks.gpu_contenders import STEPS

    names = ("ours", "ours, compiled", "hand-written, captured")
    few = Scale(**{**vars(scale), "steps": min(scale.steps, 20), "turns": min(scale.turns, 3)})
    result: dict[str, Any] = {"left_out": [], "cells": []}
    for batch_size in clock.cells(scale.batch_sizes, result["left_out"]):
        builds = {name: STEPS[name] for name in names}
        cell = compare(few, mlp_vae(scale), builds, batch_size, clock)
        cell["images_per_second"] = {
            name: round(1e3 * batch_size / median(ms)) for name, ms in cell["milliseconds"].items()
        }
        result["cells"].append(cell)
    return result


def part_replays(scale: Scale, clock: Clock) -> dict[str, Any]:
    """What it pays to capture several steps as one graph."""
    from benchmarks.gpu_contenders import ours

    builds = {
        f"{engine}, {count} per replay": ours(engine, count)
        for engine in ("staged", "compiled")
        for count in scale.replays
    }
    return compare(scale, mlp_vae(scale), builds, scale.batch_sizes[0], clock)


def part_enumerated(scale: Scale, clock: Clock) -> dict[str, Any]:
    """InfoCatVAE with its ten categories summed out, and two of them decoded."""
    from benchmarks.gpu_contenders import STEPS, ours, svi

    vae = model(scale, "infocat", num_categories=10)
    batch_size = scale.batch_sizes[0]
    check_mathematics(scale, vae)
    of_sample = model(scale, "infocat", num_categories=10, categorical="sample")
    builds = {
        "ours": ours(),
        "ours, compiled": ours("compiled"),
        "ours, two decodes, compiled": lambda vae, *rest: ours("compiled")(of_sample, *rest),
        "stock SVI": svi,
        **{name: STEPS[name] for name in ("hand-written, compiled", "hand-written, captured")},
        "hand-written, compiled, captured": STEPS["hand-written, compiled, captured"],
    }
    return compare(scale, vae, builds, batch_size, clock)


def part_precision(scale: Scale, clock: Clock) -> dict[str, Any]:
    """TF32 and bfloat16, for networks that are wide enough to care."""
    from benchmarks.gpu_contenders import ours

    allowed = ("float32", "tf32", "bf16") if scale.device == "cuda" else ("float32", "bf16")
    result: dict[str, Any] = {"left_out": [], "widths": scale.widths, "cells": []}
    few = Scale(**{**vars(scale), "steps": min(scale.steps, 20), "turns": min(scale.turns, 3)})
    sizes = (scale.batch_sizes[-1], scale.batch_sizes[len(scale.batch_sizes) // 2])
    for batch_size in clock.cells(sizes, result["left_out"]):
        builds = {name: ours("compiled", 1, name) for name in allowed}
        cell = compare(few, mlp_vae(scale, scale.widths), builds, batch_size, clock)
        result["cells"].append(cell)
    return result


def part_many(scale: Scale, clock: Clock) -> dict[str, Any]:
    """Small models by `mi.fit_many`, in models per minute."""
    import torch

    import pyro_mivae as mi

    x = torch.rand(min(scale.images, 1797), 1, 8, 8, device=scale.device)
    result: dict[str, Any] = {"left_out": [], "cells": []}
    for count in clock.cells(scale.models, result["left_out"]):
        models = []
        for seed in range(count):
            torch.manual_seed(seed)
            models.append(mi.VAE((1, 8, 8)))
        timed = time_turn(
            lambda models=models, count=count: mi.fit_many(
                models, x, epochs=scale.epochs, seeds=range(count), device=scale.device
            ),
            scale.device,
        )
        rate = 60 * count / timed["wall"]
        result["cells"].append(
            {"models": count, "seconds": timed["wall"], "models_per_minute": round(rate, 1)}
        )
    return result


Part = Callable[[Scale, Clock], dict[str, Any]]
PARTS: dict[str, tuple[Part, float]] = {
    "steps": (part_steps, 130),
    "epoch": (part_epoch, 60),
    "variants": (part_variants, 90),
    "batches": (part_batches, 90),
    "enumerated": (part_enumerated, 80),
    "replays": (part_replays, 60),
    "precision": (part_precision, 60),
    "many": (part_many, 60),
}
"""What is measured, the most worth first, and the most seconds after which no cell is begun."""


def summary(content: dict[str, Any]) -> str:
    """Lays the results out."""
    lines = []
    for name, part in content["parts"].items():
        lines.append(f"\n{name}: {part['about']} ({part['took']:.0f} s)")
        if "error" in part:
            lines.append(f"  BROKE: {part['error']}")
        for cell in [part, *part.get("cells", [])]:
            lines += _rows(cell)
            lines += [f"  note: {text}" for text in cell.get("left_out", [])]
        for engine, seconds in part.get("seconds", {}).items():
            lines.append(f"  {engine}: {median(seconds):.4f} s")
        for variant, cell in part.get("variants", {}).items():
            equal = {True: "equal", False: "DIFFERS", None: ""}[cell.get("equal")]
            told = "captured" if cell["captured"] else f"NOT CAPTURED: {cell['told']}"
            lines.append(f"  {variant}: {told}, {equal} {cell.get('losses_differ_by', '')}")
        if part.get("steps that compiling takes"):
            lines.append(f"  compiling pays after {part['steps that compiling takes']} steps")
        for text, result in part.get("targets", {}).items():
            met = {True: "met", False: "NOT MET", None: "not measured"}[result["met"]]
            lines.append(f"  target: {text}: {result['value']}, {met}")
    return "\n".join(lines)


def _rows(cell: dict[str, Any]) -> list[str]:
    lines = []
    for name, values in cell.get("milliseconds", {}).items():
        low, middle, high = spread(values)
        ready = cell["prepared"][name]
        lines.append(
            f"  batch {cell['batch_size']:>6}  {name:<34}{middle:9.4f} ms"
            + f" ({low:.4f} to {high:.4f})  {1e3 / middle:9.0f} steps/s"
            + f"  ready in {ready['seconds']:.1f} s"
            + (f"  {ready['mib']:6} MiB" if "mib" in ready else "")
        )
    if "models" in cell:
        lines.append(f"  {cell['models']} models: {cell['models_per_minute']} per minute")
    return lines


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures what is missing, and prints all."""
    parser = common.parser("gpu", __doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which none begins")
    parser.add_argument("--smoke", action="store_true", help="on the CPU, in miniature")
    parser.add_argument("--out", type=Path, help="results file")
    args = parser.parse_args(argv)
    import torch

    if not args.smoke and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here; --smoke runs the parts on the CPU")
    scale = SMOKE if args.smoke else GPU
    path = args.out or RESULTS / f"gpu-{'smoke-' * args.smoke}{date.today()}.json"
    content = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    content |= {"machine": machine() | {"cuda": torch.version.cuda}, "scale": vars(scale)}
    started = time.perf_counter()
    for name in args.parts:
        left = args.seconds - (time.perf_counter() - started)
        if left <= 0 or "error" not in content["parts"].get(name, {"error": ""}):
            continue
        run, longest = PARTS[name]
        began = time.perf_counter()
        try:
            result = run(scale, Clock(left, longest))
        except Exception as error:
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}"[:500]}
        seconds = time.perf_counter() - began
        if args.smoke:
            result.pop("targets", None)  # they are about a GPU
        about = (run.__doc__ or "").strip().splitlines()[0]
        content["parts"][name] = {"about": about, "took": round(seconds, 1), **result}
        write(path, content)
        print(summary({"parts": {name: content["parts"][name]}}), flush=True)
    missing = [name for name in args.parts if name not in content["parts"]]
    if missing:
        print(f"\nno time was left for {', '.join(missing)}: run it again, it goes on there")
    print(f"\nall turns: {path}")
    return content


if __name__ == "__main__":
    main()
