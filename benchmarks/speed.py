"""What a training step costs, beside hand-written PyTorch of the same mathematics, and others.

Each variant is trained by `mi.fit`, as it is by default and by the engines that it can do with, by
`mi.SVI`, by Pyro's own SVI, on ours and, where there is one, on Pyro's own ELBO, and by
hand-written losses, eager and compiled, whose equality with the variant's is asserted first. All
take turns in random order in one process; a turn is an epoch of whole steps, the fetching of the
batch included. Ratios are taken turn by turn. The VAE is also trained by pythae and by pyroVED,
where they are installed; pyroVED's has no batch norm. Categories are summed out exactly, without
the warm start and the warm-up of the weights. What is in the results file is not measured again.

    python -m benchmarks speed
    python -m benchmarks speed --variants vae infocat --batch-sizes 128 --turns 15
    python -m benchmarks speed --data mnist --data-root DIR
    python -m benchmarks speed --variants vae cat --hidden-dims 400 --out FILE
    python -m benchmarks speed --variants iaf vamp full-covariance two-categories
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from benchmarks import common
from benchmarks.common import RESULTS, machine, write

if TYPE_CHECKING:
    from torch import Tensor, nn

WARM_UPS = 2
SECONDS_PER_TURN = 1.0
STEPS = (5, 100)
OPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("cat", "infocat", "two-categories"),
        {"warm_start": 0, "warmup": 0.0, "categorical": "enumerate"},
    ),
    "vmi": {"generated": "mean"},
    "critic-infomax": {"bound": "nwj", "critic": "joint"},
}
"""The objectives that are written by hand, and nothing besides."""

Times = dict[str, dict[str, list[float]]]


def measure(
    variant: str,
    batch_size: int,
    device: str = "cpu",
    turns: int = 9,
    steps: int | None = None,
    *,
    images: Tensor | None = None,
    contenders: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    hidden_dims: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Times the steps of one variant at one batch size.

    Args:
        variant: Name of the variant, or of one with another part, see `SWAPPED`.
        batch_size: Images per step.
        device: ``"cpu"`` or ``"cuda"``.
        turns: How often each contender is timed, after `WARM_UPS` turns that are not.
        steps: Steps per turn; as many as hand-written PyTorch does in a second if omitted.
        images: Images to train on, repeated where a turn needs more; 28 x 28 noise if omitted.
        contenders: Who is timed; all that can be if omitted.
        options: Options of the variant.
        hidden_dims: Widths of an MLP's hidden layers, without batch norm, for encoder and
            decoder; the variant's own networks if omitted. InfoGAN has no use for it.

    Returns:
        Milliseconds per step of each contender in each turn, and what they were measured with.

    Raises:
        AssertionError: If the hand-written loss or its gradient is not the variant's.
    """
    import torch

    from benchmarks.contenders import contenders_for
    from benchmarks.handwritten import build_case

    images = torch.rand(4 * batch_size, 1, 28, 28) if images is None else images
    taken = {**OPTIONS.get(variant, {}), **(options or {})}
    vae, handwritten = build_case(variant, tuple(images.shape[1:]), taken, hidden_dims)
    names = contenders_for(variant) if contenders is None else contenders
    cell = compare(vae, handwritten, names, images, batch_size, device, turns, steps)
    return cell | {"variant": variant}


def compare(
    vae: Any,
    handwritten: type[nn.Module],
    contenders: Sequence[str],
    images: Tensor,
    batch_size: int,
    device: str,
    turns: int,
    steps: int | None,
) -> dict[str, Any]:
    """Times the steps of a variant that is built; see `measure`."""
    import torch

    from benchmarks.contenders import build
    from benchmarks.handwritten import check_equal

    torch.compiler.reset()  # it keeps what it compiled of a loss for other shapes, up to a limit
    vae = vae.to(device)
    x = repeated(images, 4 * batch_size).to(device)
    difference = check_equal(vae, handwritten, x[:batch_size])
    if steps is None:
        turn = build("hand-written", vae, handwritten, x, batch_size)
        turn()
        seconds = time_turn(turn, device)["wall"] / 4
        steps = min(max(STEPS[0], round(SECONDS_PER_TURN / seconds)), STEPS[1])
    x = repeated(images, steps * batch_size).to(device)
    turns_of = {name: build(name, vae, handwritten, x, batch_size) for name in contenders}
    times = time_in_turns(turns_of, turns, device)
    return {
        "variant": vae.name,
        "batch_size": batch_size,
        "device": device,
        "threads": torch.get_num_threads(),
        "steps_per_turn": steps,
        "largest_difference": difference,
        "milliseconds": {
            name: {clock: [round(1e3 * s / steps, 4) for s in of] for clock, of in both.items()}
            for name, both in times.items()
        },
    }


def time_in_turns(
    turns_of: Mapping[str, Callable[[], object]], turns: int, device: str = "cpu", seed: int = 0
) -> Times:
    """Gives each contender its turns, each round in another random order.

    Args:
        turns_of: What a turn of each contender does; closed at the end, if it can be.
        turns: How many turns are timed.
        device: Where they compute.
        seed: Of the order.

    Returns:
        Seconds on the wall and of the process's CPUs, by contender, clock and turn.
    """
    times: Times = {name: {"wall": [], "cpu": []} for name in turns_of}
    order, shuffle = list(turns_of), random.Random(seed)
    try:
        for turn in range(WARM_UPS + turns):
            shuffle.shuffle(order)
            for name in order:
                for clock, seconds in time_turn(turns_of[name], device).items():
                    if turn >= WARM_UPS:
                        times[name][clock].append(seconds)
    finally:
        for of_contender in turns_of.values():
            getattr(of_contender, "close", lambda: None)()
    return times


def time_turn(turn: Callable[[], object], device: str = "cpu") -> dict[str, float]:
    """Runs one turn; gives the seconds on the wall and of the process's CPUs."""
    import torch

    started = time.perf_counter(), time.process_time()
    turn()
    if device == "cuda":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    return {"wall": wall - started[0], "cpu": cpu - started[1]}


def repeated(images: Tensor, count: int) -> Tensor:
    """Gives as many images, in turn from the first again."""
    import torch

    return images[torch.arange(count) % len(images)]


def clock_of(cell: Mapping[str, Any]) -> str:
    """On one thread of a CPU its own time counts, which others on the machine hardly disturb."""
    return "cpu" if cell["device"] == "cpu" and cell["threads"] == 1 else "wall"


def spread(values: Sequence[float]) -> list[float]:
    """Quartiles."""
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3


def ratios(cell: Mapping[str, Any], name: str, baseline: str) -> list[float]:
    """Quartiles, over the turns, of a contender's cost in that of another in the same turn."""
    of, clock = cell["milliseconds"], clock_of(cell)
    return spread([a / b for a, b in zip(of[name][clock], of[baseline][clock], strict=True)])


def table(cells: Sequence[Mapping[str, Any]], baseline: str | None) -> str:
    """Lays medians and quartiles out: milliseconds per step, or ratios to a baseline."""
    names = list(dict.fromkeys(name for cell in cells for name in cell["milliseconds"]))
    title = "ms per step" if baseline is None else f"in {baseline}"
    lines = [f"| {title} | batch | " + " | ".join(names) + " |", "|" + " --- |" * (2 + len(names))]
    for cell in cells:
        of = cell["milliseconds"]
        row = [cell["variant"], str(cell["batch_size"])]
        for name in names:
            if name not in of or (baseline is not None and baseline not in of):
                row.append("–")
            elif baseline is None:
                row.append("{1:.2f} ({0:.2f}–{2:.2f})".format(*spread(of[name][clock_of(cell)])))
            else:
                row.append("{1:.2f} ({0:.2f}–{2:.2f})".format(*ratios(cell, name, baseline)))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def tables(cells: Sequence[Mapping[str, Any]]) -> str:
    """Lays all results out."""
    baselines = (None, "hand-written", "hand-written, compiled")
    return "\n\n".join(table(cells, baseline) for baseline in baselines)


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Makes the parser of what the benchmarks of time share."""
    made = common.parser(name, description)
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    made.add_argument("--threads", type=int, default=1, help="of a CPU")
    made.add_argument("--turns", type=int, default=9)
    made.add_argument("--steps", type=int, help="per turn; as many as make about a second")
    where = f"results file  [default: {RESULTS}/{name}-DEVICE-DATE.json]"
    made.add_argument("--out", type=Path, help=where)
    made.add_argument("--picture", type=Path, help="beside the results file if omitted")
    return made


def open_results(args: argparse.Namespace, name: str, key: str) -> tuple[Path, dict[str, Any]]:
    """Finds the results file and what is in it already.

    Raises:
        SystemExit: If it was measured on another machine.
    """
    import torch

    torch.set_num_threads(args.threads)
    path = args.out or RESULTS / f"{name}-{args.device}-{date.today()}.json"
    content = json.loads(path.read_text()) if path.exists() else {"machine": machine(), key: []}
    if content["machine"] != machine():
        raise SystemExit(
            f"{path} was measured elsewhere: {content['machine']}; give another --out"
        )
    return path, content


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures what is missing, and prints and draws all."""
    options = parser("speed", __doc__)
    options.add_argument("--variants", nargs="+", help="all if omitted")
    options.add_argument("--batch-sizes", nargs="+", type=int, default=[128, 1024])
    options.add_argument("--contenders", nargs="+", help="all that are installed if omitted")
    options.add_argument("--data", help="images of a data set in place of noise")
    options.add_argument("--data-root")
    options.add_argument("--hidden-dims", nargs="+", type=int, help="of plain MLPs for all")
    args = options.parse_args(argv)
    import pyro_mivae as mi
    from benchmarks.contenders import contenders_for, missing_packages
    from benchmarks.handwritten import CASES, HANDWRITTEN
    from benchmarks.speed_picture import draw

    variants = args.variants or list(HANDWRITTEN)
    common.check_names(options, "--variants", variants, CASES)
    for variant in variants:
        known = contenders_for(variant)
        common.check_names(options, f"--contenders of {variant}", args.contenders or (), known)
    path, content = open_results(args, "speed", "cells")
    if not args.contenders:
        for package in missing_packages():
            print(f"{package} is left out: it is not installed")
    images = None if args.data is None else mi.load_dataset(args.data, root=args.data_root).x_train
    done = {(c["variant"], c["batch_size"], c["data"], c["threads"]) for c in content["cells"]}
    for batch_size in args.batch_sizes:
        for variant in variants:
            if (variant, batch_size, args.data, args.threads) in done:
                continue
            started = time.perf_counter()
            cell = measure(
                variant,
                batch_size,
                args.device,
                args.turns,
                args.steps,
                images=images,
                contenders=args.contenders,
                hidden_dims=args.hidden_dims,
            )
            content["cells"].append(cell | {"data": args.data, "hidden_dims": args.hidden_dims})
            write(path, content)
            print(variant, batch_size, f"{time.perf_counter() - started:.0f} s", flush=True)
    print(tables(content["cells"]))
    picture = args.picture or path.with_suffix(".png")
    picture.write_bytes(draw(content["cells"]))
    print(f"all turns: {path}; picture: {picture}")
    return content


if __name__ == "__main__":
    main()
