"""Options of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pyro_mivae.arguments import number, whole
from pyro_mivae.engine import Mode, Precision
from pyro_mivae.options import check_fields, option

NUM_SEEDS = 2**32
LR_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training, which `fit`, run folders and the command line share.

    See `fit` for what each of them means.
    """

    epochs: int = option(
        check=whole(least=1), help="passes over the images, by default the data set's"
    )
    batch_size: int = option(128, check=whole(least=1), help="images per step")
    lr: float = option(1e-3, check=number(above=0), help="learning rate")
    lr_schedule: str = option("constant", names=LR_SCHEDULES, help="of the learning rate")
    clip_norm: float | None = option(
        None, check=number(above=0), help="largest norm of the gradient"
    )
    patience: int | None = option(
        None,
        check=whole(least=1),
        help="stop once the loss on a held-out tenth has not fallen for so many epochs",
    )
    seed: int = option(
        0, check=whole(least=0, most=NUM_SEEDS - 1), help="of weights, noise and order"
    )
    engine: Mode | Literal["auto"] = option(
        "auto",
        names=("auto", *get_args(Mode)),
        help="how steps are taken; auto goes by the work ahead",
    )
    precision: Precision = option(
        "float32",
        names=get_args(Precision),
        help="of matrix products while training, forwards and backwards",
    )

    def __post_init__(self) -> None:
        check_fields(self)
