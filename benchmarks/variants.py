"""Every variant with its defaults: what its code knows, and what a step costs.

Each is trained from several seeds, none selected, and measured on the test images. The cost of a
training step is measured apart: variants take turns, a staged epoch each, and every epoch's time
is divided by that of the plain VAE in the same turn; the median over the turns, and quartiles.

    python -m benchmarks variants [--data mnist --data-root DIR --epochs 5]
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from statistics import mean, quantiles, stdev
from typing import Any

from benchmarks.common import RESULTS, machine, split_options, write

COLUMNS = {
    "elbo": "ELBO",
    "distortion": "distortion",
    "rate": "rate",
    "mi_lower": "I(x;code) >=",
    "mi_z_lower": "I(x;z) >=",
    "mi_c_lower": "I(x;c) >=",
    "active_units": "active",
    "linear_probe": "probe",
    "cluster_accuracy": "accuracy",
}
STEPS_PER_TURN = 40


def train(
    variant: str, seed: int, data: str, data_root: str | None, epochs: int | None
) -> dict[str, Any]:
    """Trains and evaluates one variant from one seed, on one thread."""
    import torch

    torch.set_num_threads(1)
    import pyro_mivae as mi
    from pyro_mivae.runs.options import default_options

    images = mi.load_dataset(data, root=data_root)
    settings = default_options(images.name, variant, len(images.x_train)) | {"seed": seed}
    if epochs is not None:
        settings["epochs"] = epochs
    model, of_fit = split_options(settings)
    taken = mi.VARIANTS[variant]
    torch.manual_seed(seed)
    vae = taken(images.data_shape, **_taken(taken, model))
    history = mi.fit(vae, images.x_train, device="cpu", **of_fit)
    metrics = mi.evaluate(
        vae,
        images.x_test,
        images.y_test,
        train=(images.x_train, images.y_train),
        probe_items=2000,
        iwae_items=200,
        iwae_samples=16,
    )
    return {
        "variant": variant,
        "seed": seed,
        "settings": settings,
        "seconds": round(sum(history["seconds"]), 1),
        "metrics": {name: round(float(value), 4) for name, value in metrics.items()},
    }


def time_steps(
    variants: list[str], data_shape: tuple[int, ...], batch_size: int, turns: int
) -> dict[str, list[float]]:
    """Times the steps of each variant, in turns: seconds per step and turn."""
    import torch

    import pyro_mivae as mi

    torch.set_num_threads(1)
    x = torch.rand(STEPS_PER_TURN * batch_size, *data_shape)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    models = {}
    for name in variants:
        torch.manual_seed(0)
        taken = mi.VARIANTS[name]
        models[name] = taken(data_shape, **_taken(taken, {"warm_start": 0}))
    for turn in range(turns + 1):
        for name, vae in models.items():
            options = {"epochs": 1, "batch_size": batch_size, "device": "cpu", "seed": turn}
            history = mi.fit(vae, x, engine="staged", **options)
            if turn:  # the first warms up
                seconds[name].append(history["seconds"][0] / STEPS_PER_TURN)
    return seconds


def _taken(variant_class: type, options: dict[str, Any]) -> dict[str, Any]:
    import inspect

    parameters = inspect.signature(variant_class).parameters
    return {name: value for name, value in options.items() if name in parameters}


def table(content: dict[str, Any]) -> str:
    """Lays mean ± standard deviation over the seeds out, and the cost of a step."""
    lines = ["| variant | seeds | " + " | ".join(COLUMNS.values()) + " | step, in VAE's |"]
    lines.append("|" + " --- |" * (len(COLUMNS) + 3))
    for name in dict.fromkeys(run["variant"] for run in content["runs"]):
        runs = [run["metrics"] for run in content["runs"] if run["variant"] == name]
        shown = []
        for column in COLUMNS:
            values = [run[column] for run in runs if run.get(column) == run.get(column, "")]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            shown.append(f"{mean(values):.2f}{spread}" if values else "–")
        cost = content.get("step", {}).get(name)
        told = "–" if cost is None else "{1:.2f} ({0:.2f} to {2:.2f})".format(*cost["ratio"])
        lines.append("| " + " | ".join([name, str(len(runs)), *shown, told]) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Trains what is missing, times the steps, and prints the table."""
    import pyro_mivae as mi

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="instead of the data set's default")
    parser.add_argument("--variants", nargs="+", default=list(mi.VARIANTS))
    parser.add_argument("--turns", type=int, default=9, help="of the timing; 0 leaves it out")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--out", type=Path, help="results file")
    args = parser.parse_args(argv)
    path = args.out or RESULTS / f"variants-{args.data}-{date.today()}.json"
    content = json.loads(path.read_text()) if path.exists() else {"runs": []}
    content |= {"machine": machine() | {"threads_per_run": 1}, "data": args.data}
    done = {(run["variant"], run["seed"]) for run in content["runs"]}
    wanted = [
        (name, seed)
        for name in args.variants
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        if (name, seed) not in done
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(train, *one, args.data, args.data_root, args.epochs) for one in wanted]
        for job in as_completed(jobs):
            content["runs"].append(job.result())
            write(path, content)
            latest = content["runs"][-1]
            print(latest["variant"], latest["seed"], f"{latest['seconds']} s", flush=True)
    order = list(mi.VARIANTS)
    content["runs"].sort(key=lambda run: (order.index(run["variant"]), run["seed"]))
    if args.turns:
        shape = mi.load_dataset(args.data, root=args.data_root).data_shape
        timed = list(dict.fromkeys(["vae", *args.variants]))
        seconds = time_steps(timed, shape, 128, args.turns)
        for name, measured in seconds.items():
            ratios = [a / b for a, b in zip(measured, seconds["vae"], strict=True)]
            content.setdefault("step", {})[name] = {
                "milliseconds": [round(1e3 * q, 3) for q in quantiles(measured, n=4)],
                "ratio": [round(q, 3) for q in quantiles(ratios, n=4)],
            }
    write(path, content)
    print(table(content))
    print(f"all runs: {path}")
    return content


if __name__ == "__main__":
    main()
