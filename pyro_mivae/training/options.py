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
    """Options of a training, which `fit`, run folders and the command line share."""

    epochs: int = option(
        check=whole(least=1),
        help="passes over the images; on the command line the data set's by default",
    )
    batch_size: int = option(
        128,
        check=whole(least=1),
        help="images per step; the last batch may be smaller, or join the one before it where the "
        "objective compares the images of a batch and it has fewer than 64",
    )
    lr: float = option(
        1e-3,
        check=number(above=0),
        help="learning rate; parts with a rate of their own keep it in proportion to 1e-3",
    )
    lr_schedule: str = option(
        "constant",
        names=LR_SCHEDULES,
        help="of the learning rate; cosine falls to 0, step by step",
    )
    clip_norm: float | None = option(
        None,
        check=number(above=0),
        help="largest norm of the gradient (per datum); not limited if omitted",
    )
    weight_decay: float = option(
        0.0,
        check=number(least=0),
        help="share of each weight that a step takes away, in units of the learning rate (AdamW)",
    )
    patience: int | None = option(
        None,
        check=whole(least=1),
        help="stop once the loss on held-out images (a tenth, unless others are given) has not "
        "fallen for so many epochs, with the best epoch's weights; epochs in which a schedule "
        "still changed the loss do not count",
    )
    seed: int = option(
        0,
        check=whole(least=0, most=NUM_SEEDS - 1),
        help="of the noise and the order of the images; on the command line of the first weights "
        "too",
    )
    engine: Mode | Literal["auto"] = option(
        "auto",
        names=("auto", *get_args(Mode)),
        help="how steps are taken: eager runs Pyro in each, staged runs the graph, compiled "
        "compiles it first, which takes seconds to a minute; auto goes by the work ahead; all see "
        "the same noise, and differ by rounding",
    )
    precision: Precision = option(
        "float32",
        names=get_args(Precision),
        help="of matrix products while training, forwards and backwards: tf32, on CUDA alone, has "
        "10 bits of mantissa; bf16, of a float32 model whose step is staged, has 8; all else is "
        "float32",
    )

    def __post_init__(self) -> None:
        check_fields(self)
