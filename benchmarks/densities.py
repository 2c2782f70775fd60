"""The density of binary images under several priors and guides, by the published protocol.

MNIST, each pixel drawn anew from its grey value in every epoch; 40 latents, two hidden layers of
300, one optimiser and one number of epochs. The first model has a standard normal prior and a
mean-field guide; each of the others changes one of the two. Published for the first: 84.45 nats,
by 5,000 importance samples, for gated layers trained to convergence; with a VampPrior of 500
pseudo-inputs 82.43 (Tomczak & Welling, 2018, VAE with a VampPrior,
https://arxiv.org/abs/1705.07120, as the Exemplar VAE's paper reports them). The test images are
one fixed draw. Each run is written as it ends; the same command goes on.

    python -m benchmarks densities --data-root DIR --epochs 50
    python -m benchmarks densities --data-root DIR --epochs 20 --warmup 0.5 --models normal iaf
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, parser
from benchmarks.finished import key, made_with, put, read, rounded
from benchmarks.results_table import spread

KEPT = (
    *("elbo", "rate", "log_px", "log_px_se", "log_px_ais", "log_px_ais_se", "log_px_ais_gap"),
    *("amortization_gap", "amortization_gap_se"),
)
WIDTHS = (300, 300)
LATENT_DIM = 40
BATCH_SIZE = 128


def _prior(name: str, *args: Any, **options: Any) -> Callable[[Sequence[int]], dict[str, Any]]:
    """Builds the part of a model from the shape of an image, which a VampPrior takes first."""

    def parts(data_shape: Sequence[int]) -> dict[str, Any]:
        import pyro_mivae as mi

        first = (data_shape,) if name == "VampPrior" else ()
        return {"prior": getattr(mi, name)(*first, *args, **options)}

    return parts


MIXTURE = {"learn": ("means", "weights", "scales"), "means": "random", "category": None}
MODELS: dict[str, Callable[[Sequence[int]], dict[str, Any]]] = {
    "normal": lambda _: {},
    "vamp": _prior("VampPrior", LATENT_DIM, num_components=500),
    "mixture": _prior("MixturePrior", 100, LATENT_DIM, 3.0, **MIXTURE),
    "two-levels": _prior("HierarchicalPrior", LATENT_DIM, hidden_dims=(300,), skip=True),
    "full-covariance": lambda _: {"guide": "full-covariance"},
    "gaussian-mixture": lambda _: {"guide": "gaussian-mixture"},
    "iaf": lambda _: {"guide": "iaf"},
}
"""By name, parts of the VAE beside the networks: a prior of 40 latents, or a guide."""
BASE = "normal"
PUBLISHED = {"normal": 84.45, "vamp": 82.43}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains and measures what is missing, and prints the table.

    Args:
        argv: The command line.

    Returns:
        What the results file holds.
    """
    command = parser("densities", __doc__)
    command.add_argument("--data", default="mnist", help="name or path of the data set")
    command.add_argument("--data-root")
    command.add_argument("--picture", type=Path, help="draw the table, too")
    command.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--first-seed", type=int, default=0)
    command.add_argument("--epochs", type=int, nargs="+", default=[50])
    command.add_argument("--iwae-items", type=int, default=1000)
    command.add_argument("--iwae-samples", type=int, default=5000)
    command.add_argument("--ais-items", type=int, default=200)
    command.add_argument("--ais-temperatures", type=int, default=200)
    command.add_argument("--refine-items", type=int, default=100)
    command.add_argument(
        "--warmup", type=float, default=0.0, help="share of the steps in which the KL weight rises"
    )
    command.add_argument("--out", type=Path, default=RESULTS / f"densities-{date.today()}.json")
    args = command.parse_args(argv)
    names = ("iwae_items", "iwae_samples", "ais_items", "ais_temperatures", "refine_items")
    measure = {name: getattr(args, name) for name in names}
    measure["generative_items"] = args.ais_items  # for the gap of AIS
    told = " ".join(f"--{name.replace('_', '-')} {getattr(args, name)}" for name in names)
    epochs_told = " ".join(map(str, args.epochs))
    if args.warmup:
        told += f" --warmup {args.warmup}"
    command_told = f"--data {args.data} --data-root DIR --epochs {epochs_told} {told}"
    put(args.out, {"command": f"python -m benchmarks densities {command_told}"})
    order = [{"variant": name_of(model, epochs)} for epochs in args.epochs for model in MODELS]
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for epochs, model in product(args.epochs, args.models):
            cell = {"variant": name_of(model, epochs), "seed": seed}
            if key(cell) not in map(key, read(args.out)["runs"]):
                source = args.data, args.data_root
                run = run_one(source, model, (epochs, args.warmup), seed, measure)
                put(args.out, {}, cell | run, order)
                print(f"{cell['variant']}, seed {seed}: {run['metrics']}", flush=True)
    content = read(args.out)
    print(table(content))
    if args.picture is not None:
        args.picture.write_bytes(draw(content))
    return content


def name_of(model: str, epochs: int) -> str:
    """Names a row of the table."""
    return f"{model}, {epochs} epochs"


def run_one(
    source: tuple[str, str | None],
    model: str,
    length: tuple[int, float],
    seed: int,
    measure: Mapping[str, int],
) -> dict[str, Any]:
    """Trains and measures one VAE, on one thread.

    Args:
        source: The data set, and the folder of torchvision's data sets.
        model: A name of `MODELS`.
        length: Epochs of the training, and the share of them in which the KL weight rises from 0.
        seed: Seed of the weights and of the training.
        measure: Options of `information`.
    """
    import torch

    import pyro_mivae as mi
    from pyro_mivae.networks import MLPDecoder, MLPEncoder
    from pyro_mivae.priors import prior_sites

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    (name, root), (epochs, warmup) = source, length
    data = mi.load_dataset(name, root=root)
    shape = data.data_shape
    parts = {"prior": mi.StandardNormalPrior(LATENT_DIM)} | MODELS[model](shape)
    _, code_dim = prior_sites(parts["prior"])
    encoder, decoder = MLPEncoder(shape, WIDTHS), MLPDecoder(code_dim, shape, WIDTHS)
    rising = round(warmup * epochs * math.ceil(len(data.x_train) / BATCH_SIZE))
    beta = mi.linear_warmup(rising) if rising else 1.0
    vae = mi.BetaVAE(shape, beta=beta, encoder=encoder, decoder=decoder, **parts)
    fit = {"epochs": epochs, "batch_size": BATCH_SIZE, "lr_schedule": "cosine"}
    fit |= {"binarize": "dynamic", "seed": seed}
    began = time.process_time()
    mi.fit(vae, data.x_train, device="cpu", progress=False, **fit)
    seconds = time.process_time() - began
    test = mi.load_dataset(name, root=root, binarize="dynamic").x_test
    found = mi.information(vae.model, vae.guide, test, **measure)
    return {
        "settings": {"fit": fit, "warmup": warmup, "information": dict(measure)},
        "made_with": made_with(),
        "seconds": round(seconds, 1),
        "metrics": {name: rounded(found[name]) for name in KEPT if name in found},
    }


def table(content: Mapping[str, Any]) -> str:
    """Lays mean ± standard deviation over the seeds out, in nats per image.

    The gain is that of −log p(x) by AIS over the base model of the same length and seed. Of the
    distance from the ELBO to log p(x), the amortisation gap is what gradient steps on each datum's
    posterior find, and the approximation gap is the rest.
    """
    columns = {"−ELBO": "elbo", "−log p(x), importance": "log_px", "−log p(x), AIS": "log_px_ais"}
    others = ("gap of AIS", "amortisation", "approximation", "gain", "seconds")
    lines = ["| " + " | ".join(["model", "seeds", *columns, *others]) + " |"]
    lines.append("|" + " --- |" * (2 + len(columns) + len(others)))
    runs = {key(run): run for run in content["runs"]}
    for name in dict.fromkeys(run["variant"] for run in content["runs"]):
        own = [run for run in content["runs"] if run["variant"] == name]
        cells = [spread([-run["metrics"][key] for run in own], 2) for key in columns.values()]
        cells.append(spread([run["metrics"].get("log_px_ais_gap") for run in own], 3))
        cells += [spread(gaps, 2) for gaps in zip(*map(inference_gaps, own), strict=True)]
        cells += [spread(gains(name, runs), 2), spread([run["seconds"] for run in own], 0)]
        lines.append("| " + " | ".join([name, str(len(own)), *cells]) + " |")
    for name, figure in PUBLISHED.items():
        told = f"*{name}, published: gated layers, to convergence*"
        lines.append(f"| {told} | – | – | {figure} | – | – | – | – | – | – |")
    return "\n".join(lines)


def inference_gaps(run: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Returns amortisation and approximation gap of a run, in nats; None if not measured."""
    found = run["metrics"]
    if "amortization_gap" not in found:
        return None, None
    gap = found["amortization_gap"]
    return gap, found["log_px_ais"] - found["elbo"] - gap


def gains(name: str, runs: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> list[float]:
    """Returns the gain of a row in log p(x) over the base model, for each seed of both."""
    length, found = name.partition(",")[2], []
    for (own, seed), run in runs.items():
        base = runs.get((f"{BASE},{length}", seed))
        if own == name and base not in (None, run):
            found.append(run["metrics"]["log_px_ais"] - base["metrics"]["log_px_ais"])
    return found


def draw(content: Mapping[str, Any]) -> bytes:
    """Draws every seed: −ELBO, and −log p(x) by AIS left of it. Returns the bytes of a PNG."""
    from pyro_mivae.plots import style

    names = list(dict.fromkeys(run["variant"] for run in content["runs"]))
    figure, ax = style.new_figure(height=0.9 + 0.34 * len(names))
    style.style_axes(ax, grid=True)
    marks = {"log_px_ais": ("−log p(x), AIS", "D", 8), "elbo": ("−ELBO", "o", 0)}
    for column, (label, shape, color) in marks.items():
        points = [
            (-run["metrics"][column], names.index(run["variant"]) + 0.12 * (run["seed"] - 1))
            for run in content["runs"]
        ]
        ax.plot(
            *zip(*points, strict=True), shape, color=style.group_color(color), ms=4, label=label
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("nats per test image, every seed a point")
    look = {"fontsize": style.SMALL, "frameon": False, "labelcolor": style.INK}
    figure.legend(loc="outside upper center", ncols=2, **look)
    return style.render_png(figure)


if __name__ == "__main__":
    main()
