"""Options of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pyro_mivae.arguments import number, whole
from pyro_mivae.data import PROTOCOLS
from pyro_mivae.engine.precision import Precision
from pyro_mivae.engine.steps import Mode
from pyro_mivae.options import check_fields, option
from pyro_mivae.schedules import Target, written_weight

NUM_SEEDS = 2**32
LR_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training, which `fit`, run folders and the command line share."""

    epochs: int = option(
        check=whole(least=1),
        help="passes over the images; the command line has a default for each data set",
    )
    batch_size: int = option(
        128,
        check=whole(least=1),
        help=(
            "images per step; the last batch may be smaller, or join the one before it if it "
            "has fewer than 64 images and the objective compares them"
        ),
    )
    binarize: str = option(
        "none",
        names=tuple(PROTOCOLS),
        help="protocol that makes the pixels 0 or 1: "
        + "; ".join(f"{name}, {meaning}" for name, meaning in PROTOCOLS.items()),
    )
    label_weight: float | str | Target | None = option(
        None,
        check=written_weight(least=0),
        help="weight of the classifier's term if there are labels, per image, or a target of its "
        "cross-entropy; 1 if omitted",
    )
    lr: float = option(
        1e-3,
        check=number(above=0),
        help="learning rate; parts with their own rate keep its ratio to 1e-3",
    )
    lr_schedule: str = option(
        "constant",
        names=LR_SCHEDULES,
        help="course of the learning rate; cosine falls to 0, step by step",
    )
    clip_norm: float | None = option(
        None,
        check=number(above=0),
        help="largest norm of the gradient (per datum); not limited if omitted",
    )
    weight_decay: float = option(
        0.0,
        check=number(least=0),
        help="share of each weight that a step removes, in units of the learning rate (AdamW)",
    )
    patience: int | None = option(
        None,
        check=whole(least=1),
        help=(
            "stop after this number of epochs without a lower loss on held-out images (a tenth, "
            "unless others are given), with the best epoch's weights; epochs in which a "
            "schedule still changed the loss do not count"
        ),
    )
    seed: int = option(
        0,
        check=whole(least=0, most=NUM_SEEDS - 1),
        help=(
            "seed of the noise and of the order of the images; on the command line also of the "
            "first weights"
        ),
    )
    engine: Mode | Literal["auto"] = option(
        "auto",
        names=("auto", *get_args(Mode)),
        help=(
            "eager runs Pyro in each step, staged runs a graph, compiled compiles the graph "
            "first (seconds to a minute), auto chooses by the work ahead; all use the same "
            "noise, and differ by rounding"
        ),
    )
    precision: Precision = option(
        "float32",
        names=get_args(Precision),
        help=(
            "precision of matrix products in training, forwards and backwards: tf32 (only on "
            "CUDA) has 10 bits of mantissa; bf16 (float32 model, staged step) has 8; everything "
            "else is float32"
        ),
    )

    def __post_init__(self) -> None:
        check_fields(self)
