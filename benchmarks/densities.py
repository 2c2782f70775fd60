"""The density of a VAE of binary images, by the protocol that published figures have.

MNIST, each pixel drawn anew from its grey value in every epoch; 40 latents, two hidden layers of
300, a standard normal prior, a mean-field guide. Published: 84.45 nats, by 5,000 importance
samples, for gated layers trained to convergence (Tomczak & Welling, 2018, VAE with a VampPrior,
https://arxiv.org/abs/1705.07120, as the Exemplar VAE's paper reports it). The test images are one
fixed draw. Each run is written as it ends; the same command goes on.

    python -m benchmarks densities --data-root DIR --epochs 50
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, parser
from benchmarks.finished import key, made_with, put, read, rounded
from benchmarks.results_table import spread

KEPT = ("elbo", "rate", "log_px", "log_px_se", "log_px_ais", "log_px_ais_se", "log_px_ais_gap")
WIDTHS = (300, 300)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains and measures what is missing, and prints the table.

    Args:
        argv: The command line.

    Returns:
        What the results file holds.
    """
    command = parser("densities", __doc__)
    command.add_argument("--data-root")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--epochs", type=int, nargs="+", default=[50])
    command.add_argument("--iwae-items", type=int, default=1000)
    command.add_argument("--ais-items", type=int, default=200)
    command.add_argument("--out", type=Path, default=RESULTS / f"densities-{date.today()}.json")
    args = command.parse_args(argv)
    measure = {"iwae_items": args.iwae_items, "iwae_samples": 5000, "ais_items": args.ais_items}
    told = " ".join(map(str, args.epochs))
    put(args.out, {"command": f"python -m benchmarks densities --data-root DIR --epochs {told}"})
    order = [{"variant": f"vae, {epochs} epochs"} for epochs in args.epochs]
    for seed in range(args.seeds):
        for epochs, cell in zip(args.epochs, order, strict=True):
            if (cell["variant"], seed) not in map(key, read(args.out)["runs"]):
                run = {**cell, "seed": seed, **run_one(args.data_root, epochs, seed, measure)}
                put(args.out, {}, run, order)
    content = read(args.out)
    print(table(content))
    return content


def run_one(
    root: str | None, epochs: int, seed: int, measure: Mapping[str, int]
) -> dict[str, Any]:
    """Trains and measures one VAE, on one thread.

    Args:
        root: Folder of torchvision's data sets.
        epochs: Length of the training.
        seed: Seed of the weights and of the training.
        measure: Options of `information`.
    """
    import torch

    import pyro_mivae as mi
    from pyro_mivae.networks import MLPDecoder, MLPEncoder

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = mi.load_dataset("mnist", root=root)
    shape, latent_dim = data.data_shape, 40
    networks = MLPEncoder(shape, WIDTHS), MLPDecoder(latent_dim, shape, WIDTHS)
    vae = mi.VAE(shape, latent_dim=latent_dim, encoder=networks[0], decoder=networks[1])
    fit = {"epochs": epochs, "lr_schedule": "cosine", "binarize": "dynamic", "seed": seed}
    began = time.process_time()
    mi.fit(vae, data.x_train, device="cpu", progress=False, **fit)
    seconds = time.process_time() - began
    test = mi.load_dataset("mnist", root=root, binarize="dynamic").x_test
    found = mi.information(vae.model, vae.guide, test, **measure)
    return {
        "settings": {"fit": fit, "information": dict(measure)},
        "made_with": made_with(),
        "seconds": round(seconds, 1),
        "metrics": {name: rounded(found[name]) for name in KEPT if name in found},
    }


def table(content: Mapping[str, Any]) -> str:
    """Lays mean ± standard deviation over the seeds out, in nats per image."""
    columns = {"−ELBO": "elbo", "−log p(x), IWAE-5000": "log_px", "−log p(x), AIS": "log_px_ais"}
    lines = ["| model | seeds | " + " | ".join(columns) + " | gap of AIS | seconds |"]
    lines.append("|" + " --- |" * 7)
    for name in dict.fromkeys(run["variant"] for run in content["runs"]):
        own = [run for run in content["runs"] if run["variant"] == name]
        cells = [spread([-run["metrics"][key] for run in own], 2) for key in columns.values()]
        cells.append(spread([run["metrics"].get("log_px_ais_gap") for run in own], 3))
        cells.append(spread([run["seconds"] for run in own], 0))
        lines.append("| " + " | ".join([name, str(len(own)), *cells]) + " |")
    lines.append("| *published, gated layers, to convergence* | – | – | 84.45 | – | – | – |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
