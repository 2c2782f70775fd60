"""Data sets, and pictures."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pyro_mivae import data, plots
from pyro_mivae.training import History

from .calls import Call

FOLDER = Path(tempfile.gettempdir()) / "pyro_mivae_calls"
X = torch.rand(4, 1, 8, 8)
ROWS = [{"beta": b, "rate": 2 / b, "distortion": 5 + b, "mi_lower": 1 / b} for b in (1.0, 2.0)]


def files():
    """A file and a folder of images."""
    (FOLDER / "folder").mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "set.csv").exists():
        np.savez(FOLDER / "set.npz", images=np.eye(8)[None].repeat(4, 0))
        np.save(FOLDER / "set.npy", np.eye(8))
        (FOLDER / "set.csv").write_text("a,label\n1,b\n2,c\n")
        Image.new("L", (6, 8)).save(FOLDER / "folder" / "0.png")
    return {"folder": FOLDER / "folder"} | {k: FOLDER / f"set.{k}" for k in ("npz", "npy", "csv")}


def history():
    return History({"epoch": e, "loss": 3.0 / e, "elbo": -3.0 / e, "kl_z": 1.0} for e in (1, 2))


def drawn(name):
    """A function that draws, on Axes of its own."""
    function = getattr(plots, name)

    @functools.wraps(function)
    def draw(**arguments):
        return function(plots.new_figure()[1], **arguments)

    return draw


PICTURES = {
    "plot_latent_space": lambda: {
        "codes": torch.rand(9, 3),
        "groups": torch.arange(9) % 3,
        "names": ["a", "b", "c"],
        "colors": [0, 1, 2],
        "max_points": 5,
    },
    "plot_confusion_matrix": lambda: {
        "labels": torch.arange(9) % 2,
        "categories": torch.arange(9) % 3,
        "num_categories": 3,
        "label_names": ["a", "b"],
    },
    "plot_factor_matrix": lambda: {
        "shares": torch.rand(2, 3),
        "names": ["z0", "z1"],
        "factor_names": ["a", "b", "c"],
    },
    "plot_grid": lambda: {"cells": torch.rand(2, 3, 1, 8, 8), "row_labels": ["a", "b"]},
    "plot_reconstructions": lambda: {"originals": X, "reconstructions": {"a": X}},
    "plot_parts": lambda: {
        "originals": X,
        "reconstructions": {"a": X},
        "traversals": [X],
        "names": ["b"],
    },
    "plot_samples": lambda: {"samples": X, "columns": 2},
    "plot_conditional_samples": lambda: {
        "samples": torch.rand(2, 4, 1, 8, 8),
        "occupancy": torch.rand(2),
        "names": ["a", "b"],
    },
    "plot_traversals": lambda: {
        "traversals": torch.rand(2, 4, 1, 8, 8),
        "nats": torch.rand(2),
        "names": ["a", "b"],
    },
    "plot_interpolations": lambda: {
        "pictures": torch.rand(2, 4, 1, 8, 8),
        "starts": ["a", "b"],
        "ends": ["b", "a"],
    },
    "plot_radii": lambda: {
        "pictures": torch.rand(2, 3, 1, 8, 8),
        "multiples": [0.0, 1.0, 2.0],
        "names": ["a", "b"],
    },
    "plot_curves": lambda: {
        "curves": {"loss": [3.0, 2.0], "val_loss": [3.0, float("nan")]},
        "epochs": [1, 2],
        "colors": {"loss": "red"},
        "names": {"loss": "the loss"},
        "ylabel": "nats",
    },
    "plot_runs": lambda: {
        "runs": {"a": [([1, 2], [3.0, 2.0])]},
        "colors": {"a": "red"},
        "ylabel": "nats",
    },
    "plot_loss_curves": lambda: {"history": history()},
    "plot_information_curves": lambda: {"history": history(), "num_categories": 3},
    "plot_rate_distortion": lambda: {
        "rows": ROWS,
        "along": "beta",
        "apart": "beta",
        "color": "mi_lower",
    },
    "plot_sandwich": lambda: {
        "intervals": {"z": (1.0, 2.0), "c": (1.0, float("nan"))},
        "marks": {"rate": 3.0},
        "colors": {"z": "red"},
    },
    "plot_contributions": lambda: {
        "names": ["z0", "z1"],
        "lower": [0.0, 1.0],
        "upper": [1.0, 2.0],
        "cost": [1.0, 2.0],
        "color": "red",
    },
    "plot_information_bar": lambda: {"nats": {"z": torch.rand(3), "c": torch.tensor(1.0)}},
}

CALLS = [
    Call("split_indices", data.split_indices, lambda: {"count": 9, "labels": torch.arange(9) % 2}),
    Call(
        "keep_labels",
        data.keep_labels,
        lambda: {"labels": torch.arange(9) % 2, "count": 3, "seed": 1},
    ),
    Call("resize_images", data.resize_images, lambda: {"images": X, "size": (5, 6)}),
    Call("binarize", data.binarize, lambda: {"x": X, "protocol": "fixed", "seed": 1}),
    Call("read_npz", data.read_npz, lambda: {"path": files()["npz"]}),
    Call("read_npy", data.read_npy, lambda: {"path": files()["npy"]}, 20),
    Call("read_csv", data.read_csv, lambda: {"path": files()["csv"]}, 20),
    Call("read_given", data.read_given, lambda: {"path": files()["npy"], "count": None}, 20),
    Call("read_folder", data.read_folder, lambda: {"path": files()["folder"], "image_size": 8}),
    Call(
        "read_images",
        data.read_images,
        lambda: {"name_or_path": files()["npz"], "root": FOLDER, "image_size": (8, 9)},
    ),
    Call(
        "load_dataset",
        data.load_dataset,
        lambda: {
            "name_or_path": files()["npz"],
            "root": FOLDER,
            "image_size": 8,
            "seed": 1,
            "binarize": "fixed",
        },
    ),
    Call(
        "grid_figure",
        plots.grid_figure,
        lambda: {"rows": 2, "columns": 3, "data_shape": (1, 8, 8), "label_width": 1.0},
    ),
    Call("new_figure", plots.new_figure, lambda: {"height": 2.0, "width": 3.0}),
    *(Call(name, drawn(name), arguments, examples=10) for name, arguments in PICTURES.items()),
]
