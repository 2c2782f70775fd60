"""Command line, data and tables of the example scripts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyro
import torch
from torch import Tensor

import pyro_mivae as mi
from pyro_mivae.data import Dataset


def parser(doc: str | None, *, epochs: int) -> argparse.ArgumentParser:
    """Makes the command line of a script; the script adds its own options.

    Args:
        doc: The script's docstring, shown by ``--help``.
        epochs: Its passes over the digits.
    """
    command = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--data", default="digits", help="digits, mnist, ..., FILE.npz, FOLDER")
    command.add_argument("--data-root", help="folder of torchvision's data sets")
    command.add_argument("--epochs", type=int, default=epochs)
    command.add_argument("--batch-size", type=int, default=128)
    command.add_argument("--lr", type=float, default=1e-3)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--device", default="cpu", help="cpu or cuda")
    command.add_argument("--smoke", action="store_true", help="two epochs on made-up images")
    return command


def start(args: argparse.Namespace) -> Dataset:
    """Seeds the random numbers, empties Pyro's parameter store, and loads the images.

    Args:
        args: What the command line gave; ``--smoke`` shortens the training.
    """
    pyro.set_rng_seed(args.seed)
    pyro.clear_param_store()
    if args.smoke:
        args.epochs, args.batch_size = 2, 16
        return stripes(args.device)
    images = mi.load_dataset(args.data, root=args.data_root)
    moved = {k: v.to(args.device) for k, v in vars(images).items() if isinstance(v, Tensor)}
    return replace(images, **moved)


def stripes(device: str = "cpu") -> Dataset:
    """Makes 64 training and 64 test images of 8×8 pixels: noise, and one bright row as label."""
    y = torch.arange(128) % 8
    x = 0.1 * torch.rand(128, 1, 8, 8)
    x[torch.arange(128), 0, y] += 0.8
    x, y = x.to(device), y.to(device)
    return Dataset("stripes", x[:64], y[:64], x[64:], y[64:], tuple("01234567"))


def nats_per_image(
    vae: mi.Variant, elbo: mi.MutualInformationELBO, x: Tensor, *given: Tensor
) -> dict[str, float]:
    """Evaluates an objective, without a gradient and without batch statistics.

    Args:
        vae: The variant.
        elbo: Its objective, whose ledger sums over the images.
        x: Images.
        *given: Their condition, if there is one.

    Returns:
        The ledger, per image.
    """
    vae.eval()
    elbo.loss(vae.model, vae.guide, x, *given)
    vae.train()
    return {name: float(value) / len(x) for name, value in elbo.ledger.items()}


def table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str]) -> None:
    """Prints a row of numbers per name.

    Args:
        rows: Numbers by row and column.
        columns: Which to print, in this order.
    """
    first = max(map(len, rows))
    widths = [max(9, len(column) + 2) for column in columns]
    print(" " * first + "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True)))
    for name, row in rows.items():
        numbers = (f"{row[c]:>{w}.2f}" for c, w in zip(columns, widths, strict=True))
        print(f"{name:<{first}}" + "".join(numbers))
