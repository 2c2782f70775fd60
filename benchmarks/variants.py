"""What a training step of every variant costs, with its defaults, in that of the plain VAE's.

Variants take turns, a staged epoch each, and every epoch's time is divided by that of the plain
VAE in the same turn; the median over the turns, and quartiles. What training comes to is measured
by `python -m benchmarks results`.

    python -m benchmarks variants [--data mnist --data-root DIR]
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks import common
from benchmarks.common import RESULTS, machine, write

STEPS_PER_TURN = 40


def time_steps(
    variants: list[str], data_shape: tuple[int, ...], batch_size: int, turns: int
) -> dict[str, list[float]]:
    """Times the steps of each variant, in turns.

    Args:
        variants: Their names.
        data_shape: Shape of one image.
        batch_size: Images per step.
        turns: How many.

    Returns:
        By variant, seconds per step of each turn.
    """
    import torch

    import pyro_mivae as mi

    torch.set_num_threads(1)
    x = torch.rand(STEPS_PER_TURN * batch_size, *data_shape)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    models = {}
    for name in variants:
        torch.manual_seed(0)
        taken = mi.VARIANTS[name]
        cold = {"warm_start": 0} if "cat" in name else {}
        models[name] = taken(data_shape, **cold)
    for turn in range(turns + 1):
        for name, vae in models.items():
            options = {"epochs": 1, "batch_size": batch_size, "device": "cpu", "seed": turn}
            history = mi.fit(vae, x, engine="staged", **options)
            if turn:  # the first warms up
                seconds[name].append(history["seconds"][0] / STEPS_PER_TURN)
    return seconds


def table(content: dict[str, Any]) -> str:
    """Lays medians and quartiles out.

    Args:
        content: What `main` returns.

    Returns:
        A Markdown table.
    """
    lines = ["| variant | ms per step | step, in VAE's |", "| --- | --- | --- |"]
    for name, of in content["step"].items():
        ratio = "{1:.2f} ({0:.2f} to {2:.2f})".format(*of["ratio"])
        lines.append(f"| {name} | {of['milliseconds'][1]:.1f} | {ratio} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Times the steps, and prints the table.

    Args:
        argv: The command line.

    Returns:
        What is written.
    """
    import pyro_mivae as mi

    parser = common.parser("variants", __doc__)
    parser.add_argument("--data", default="digits", help="whose images' shape it is")
    parser.add_argument("--data-root", help="folder of torchvision's data sets")
    names = [*mi.VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--turns", type=int, default=9, help="2 or more")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--out", type=Path, help="results file")
    args = parser.parse_args(argv)
    images = mi.load_dataset(args.data, root=args.data_root)
    timed = list(dict.fromkeys(["vae", *args.variants]))
    seconds = time_steps(timed, images.data_shape, args.batch_size, args.turns)
    step = {}
    for name, measured in seconds.items():
        ratios = [a / b for a, b in zip(measured, seconds["vae"], strict=True)]
        step[name] = {
            "milliseconds": [round(1e3 * q, 3) for q in quantiles(measured, n=4)],
            "ratio": [round(q, 3) for q in quantiles(ratios, n=4)],
        }
    settings = {"batch_size": args.batch_size, "turns": args.turns, "shape": images.data_shape}
    made = machine() | {"threads_per_run": 1}
    content = {"machine": made, "data": images.name, "settings": settings, "step": step}
    path = args.out or RESULTS / f"variants-{Path(args.data).stem}-{date.today()}.json"
    write(path, content)
    print(table(content))
    print(f"all figures: {path}")
    return content


if __name__ == "__main__":
    main()
