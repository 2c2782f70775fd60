"""CatVAE beside InfoCatVAE, and exact enumeration beside two decodes, soft and Gumbel category.

Every cell is trained from several seeds, none selected, and evaluated on the test images with the
category summed out exactly. The start is ``informed`` (the default), ``random`` (none, with the
same warm-up), or the informed start ``alone``, before any training. Finished runs are kept in the
results file and not trained again, so that a stopped benchmark goes on where it was.

    python -m benchmarks categories --data digits
    python -m benchmarks categories --data mnist --data-root DIR
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.common import RESULTS, machine, split_options, write

CELLS = [
    *product(("cat", "infocat"), ("enumerate", "sample", "soft", "gumbel"), ("informed",)),
    *product(("cat", "infocat"), ("enumerate",), ("random",)),
    ("infocat", "enumerate", "alone"),
]
COLUMNS = {
    "-ELBO": lambda m: -m["elbo"],
    "I(c;x)": lambda m: m["mi_c_lower"],
    "accuracy": lambda m: m["cluster_accuracy"],
    "NMI": lambda m: m["nmi"],
    "generation": lambda m: m["generation_accuracy"],
    "categories": lambda m: m["categories_used"],
    "s / epoch": lambda m: m["seconds_per_epoch"],
}
UNTRAINED = ("-ELBO", "generation", "s / epoch")
"""What the start alone leaves undefined: its decoder is not trained."""


def run_cell(
    variant: str,
    categorical: str,
    start: str,
    seed: int,
    data: str,
    data_root: str | None,
    epochs: int | None,
) -> dict[str, Any]:
    """Trains and evaluates one cell from one seed, on one thread."""
    import torch

    torch.set_num_threads(1)
    import pyro_mivae as mi
    from pyro_mivae.runs.options import default_options

    images = mi.load_dataset(data, root=data_root)
    settings = default_options(images.name, variant, len(images.x_train)) | {"seed": seed}
    if epochs is not None:
        settings["epochs"] = epochs
    if start == "random":
        settings["warm_start"] = 0
    of_model, of_fit = split_options(settings)
    torch.manual_seed(seed)
    vae = mi.VARIANTS[variant](images.data_shape, categorical=categorical, **of_model)
    began = time.perf_counter()
    seconds_per_epoch = None
    if start == "alone":
        vae.initialize(images.x_train)
    else:
        history = mi.fit(vae, images.x_train, device="cpu", **of_fit)
        seconds_per_epoch = round(mean(history["seconds"]), 3)
    seconds = time.perf_counter() - began
    metrics = mi.evaluate(
        vae,
        images.x_test,
        images.y_test,
        train=(images.x_train, images.y_train),
        probe_items=2000,
        iwae_items=200,
        iwae_samples=16,
    )
    wanted = ("elbo", "distortion", "rate", "kl_c", "kl_z", "mi_c_lower", "cluster_accuracy")
    wanted += ("nmi", "ari", "generation_accuracy", "categories_used", "linear_probe")
    return {
        "variant": variant,
        "categorical": categorical,
        "start": start,
        "seed": seed,
        "settings": settings,
        "seconds": round(seconds, 1),
        "metrics": {name: round(float(metrics[name]), 4) for name in wanted}
        | {"seconds_per_epoch": seconds_per_epoch},
    }


def k_means(data: str, data_root: str | None) -> dict[str, float]:
    """Clusters the training images' pixels and scores the clusters of the test images."""
    import torch
    from sklearn.cluster import KMeans

    import pyro_mivae as mi
    from pyro_mivae.metrics import cluster_accuracy, normalised_mutual_information

    images = mi.load_dataset(data, root=data_root)
    pixels = [x.flatten(1).numpy() for x in (images.x_train, images.x_test)]
    found = torch.tensor(KMeans(10, n_init=5, random_state=0).fit(pixels[0]).predict(pixels[1]))
    return {
        "accuracy": round(cluster_accuracy(found, images.y_test), 4),
        "nmi": round(normalised_mutual_information(found, images.y_test), 4),
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Lays mean ± standard deviation over the seeds out; of times, the fastest run's."""
    lines = ["| variant | category | start | seeds | " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + " --- |" * (len(COLUMNS) + 4))
    for cell in CELLS:
        of_cell = [run for run in runs if _cell(run) == cell]
        if not of_cell:
            continue
        shown = []
        for name, column in COLUMNS.items():
            if cell[2] == "alone" and name in UNTRAINED:
                shown.append("–")
                continue
            values = [column(run["metrics"]) for run in of_cell]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            fastest = name == "s / epoch"
            shown.append(f"{min(values):.2f}" if fastest else f"{mean(values):.2f}{spread}")
        lines.append("| " + " | ".join([*cell, str(len(of_cell)), *shown]) + " |")
    return "\n".join(lines)


def _cell(run: dict[str, Any]) -> tuple[str, str, str]:
    return run["variant"], run["categorical"], run["start"]


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-root")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="instead of the data set's default")
    parser.add_argument("--variants", nargs="+", default=["cat", "infocat"])
    ways = ["enumerate", "sample", "soft", "gumbel"]
    parser.add_argument("--categorical", nargs="+", choices=ways, default=ways)
    starts = ["informed", "random", "alone"]
    parser.add_argument("--start", nargs="+", choices=starts, default=starts)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--out", type=Path, help="results file")
    args = parser.parse_args(argv)
    path = args.out or RESULTS / f"categories-{args.data}-{date.today()}.json"
    content = json.loads(path.read_text()) if path.exists() else {"runs": []}
    content |= {"machine": machine() | {"threads_per_run": 1}, "data": args.data}
    done = {(*_cell(run), run["seed"]) for run in content["runs"]}
    wanted = [
        (*cell, seed)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for cell in CELLS
        if cell[0] in args.variants and cell[1] in args.categorical and cell[2] in args.start
    ]
    with ProcessPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(run_cell, *cell, args.data, args.data_root, args.epochs)
            for cell in wanted
            if cell not in done
        ]
        for job in as_completed(jobs):
            content["runs"].append(job.result())
            write(path, content)
            latest = content["runs"][-1]
            print(*_cell(latest), latest["seed"], latest["metrics"], flush=True)
    if "k-means" not in content:
        content["k-means"] = k_means(args.data, args.data_root)
        write(path, content)
    print(table(content["runs"]))
    print(f"k-means on the pixels: {content['k-means']}")
    print(f"all runs: {path}")
    return content["runs"]


if __name__ == "__main__":
    main()
