"""How the cost of a training step grows, and the memory it needs, beside hand-written PyTorch.

One thing grows at a time: the batch, the latent dimension, the number of categories, that of
particles (drawn in one pass or one by one), the number of images. `mi.fit`, hand-written compiled
PyTorch and Pyro's own SVI take turns, as in `benchmarks.speed`; the last batch of an epoch is as
large as the others. Memory is that of a process of its own for each. What is in the results file
is not measured again.

    python -m benchmarks scaling
    python -m benchmarks scaling --sweeps batch memory --device cuda
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import common
from benchmarks.common import write
from benchmarks.memory import peak_memory
from benchmarks.speed import clock_of, compare, measure, open_results, parser, spread

CONTENDERS = ("hand-written, compiled", "ours", "ours, stock SVI")
BATCH = 128
SWEEPS: dict[str, tuple[int, ...]] = {
    "batch": (16, 64, 256, 1024, 4096, 16384),
    "latent_dim": (2, 8, 32, 128, 512),
    "categories": (2, 5, 10, 20, 50),
    "particles": (1, 2, 4, 8, 16),
    "particles one by one": (2, 4, 8),
    "images": (1_000, 4_000, 16_000, 60_000),
    "memory": (16, 128, 1024, 4096),
}
LARGEST_ON_CPU = 4096


def measure_point(
    sweep: str,
    value: int,
    device: str = "cpu",
    turns: int = 5,
    steps: int | None = None,
    contenders: Sequence[str] = CONTENDERS,
) -> dict[str, Any]:
    """Measures one point.

    Args:
        sweep: What grows, one of `SWEEPS`.
        value: Where it stands.
        device: ``"cpu"`` or ``"cuda"``.
        turns: Turns of each contender.
        steps: Steps per turn; as many as hand-written PyTorch does in a second if omitted.
        contenders: Who is timed.

    Returns:
        What `benchmarks.speed.measure` does; of memory, MiB by contender.
    """
    timed = {"device": device, "turns": turns, "steps": steps, "contenders": contenders}
    if sweep == "memory":
        return {"mib": {name: peak_memory(name, "vae", value, device) for name in contenders}}
    if sweep == "batch":
        return measure("vae", value, **timed)
    if sweep == "latent_dim":
        return measure("vae", BATCH, **timed, options={"latent_dim": value})
    if sweep == "categories":
        return measure("cat", BATCH, **timed, options={"num_categories": value})
    if sweep == "images":
        return measure("vae", BATCH, **(timed | {"steps": value // BATCH}))
    import torch

    from benchmarks.handwritten.particles import ParticleLoss, ParticleVAE

    torch.manual_seed(0)
    vae = ParticleVAE((1, 28, 28), num_particles=value, in_one_pass=sweep == "particles")
    images = torch.rand(4 * BATCH, 1, 28, 28)
    return compare(vae, ParticleLoss, contenders, images, BATCH, device, turns, steps)


def table(points: Sequence[Mapping[str, Any]]) -> str:
    """Lays medians out: milliseconds per step and images per second, or MiB."""
    names = list(dict.fromkeys(name for point in points for name in values(point)))
    unit = "MiB, preparation left out" if "mib" in points[0] else "ms per step (images per second)"
    lines = [
        f"| {points[0]['sweep']} | " + " | ".join(names) + " |",
        "|" + " --- |" * (1 + len(names)),
    ]
    for point in points:
        shown = []
        for name in names:
            value = values(point).get(name)
            rate = f" ({1e3 * point['batch_size'] / value:,.0f})" if "batch_size" in point else ""
            shown.append(f"{value:.2f}{rate}")
        lines.append(f"| {point['value']:,} | " + " | ".join(shown) + " |")
    return f"{unit}\n\n" + "\n".join(lines)


def values(point: Mapping[str, Any]) -> dict[str, float]:
    """Gives the median milliseconds per step, or the MiB of steps, of each contender."""
    if "mib" in point:
        return {name: mib["steps"] for name, mib in point["mib"].items()}
    return {name: spread(of[clock_of(point)])[1] for name, of in point["milliseconds"].items()}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures what is missing, and prints and draws all."""
    options = parser("scaling", __doc__)
    options.add_argument("--sweeps", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    options.add_argument("--largest", type=int, help="leaves points beyond it out")
    options.add_argument("--contenders", nargs="+", default=list(CONTENDERS))
    options.set_defaults(turns=5)
    args = options.parse_args(argv)
    from benchmarks.contenders import contenders_for
    from benchmarks.scaling_picture import draw

    common.check_names(options, "--contenders", args.contenders, contenders_for("vae"))
    path, content = open_results(args, "scaling", "points")
    done = {(point["sweep"], point["value"]) for point in content["points"]}
    for sweep in args.sweeps:
        for value in SWEEPS[sweep]:
            too_large = args.device == "cpu" and sweep == "batch" and value > LARGEST_ON_CPU
            if (sweep, value) in done or too_large or value > (args.largest or value):
                continue
            started = time.perf_counter()
            point = measure_point(
                sweep, value, args.device, args.turns, args.steps, args.contenders
            )
            content["points"].append({"sweep": sweep, "value": value, **point})
            write(path, content)
            print(sweep, value, f"{time.perf_counter() - started:.0f} s", flush=True)
    for sweep in SWEEPS:
        points = [point for point in content["points"] if point["sweep"] == sweep]
        if points:
            print(table(points), end="\n\n")
    picture = args.picture or path.with_suffix(".png")
    picture.write_bytes(draw(content["points"]))
    print(f"all turns: {path}; picture: {picture}")
    return content


if __name__ == "__main__":
    main()
