"""Models and losses whose steps are the same in one process and in several."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import pyro_mivae as mi
from pyro_mivae.elbo import SampledCategoricalELBO
from pyro_mivae.ranks import Ranks
from pyro_mivae.terms import Penalty, ScoreBound
from pyro_mivae.training import TrainingOptions
from pyro_mivae.training.trainer import Trainer

from .noise import NoiseOfRows

SHAPE, COUNT, BATCH = (1, 4, 3), 21, 11
CODE = {"latent_dim": 3}
CATEGORY = {"latent_dim": 8, "num_categories": 4}
Case = Callable[[], tuple[Any, Any, dict[str, Any]]]
"""Makes a variant, an objective in place of its own or None, and options of a training."""


def plain(objective: Callable[[], Any] | None = None, **options: Any) -> Case:
    return lambda: (mi.VAE(SHAPE, **CODE), objective and objective(), options)


def grouped(term: Callable[[], Any], **options: Any) -> Case:
    def make() -> tuple[Any, Any, dict[str, Any]]:
        return mi.CatVAE(SHAPE, **CATEGORY), mi.MutualInformationELBO([term()]), options

    return make


def criticised(bound: Any, **how: Any) -> Case:
    def make() -> tuple[Any, Any, dict[str, Any]]:
        vae = mi.VAE(SHAPE, **CODE)
        vae.critic = mi.build_critic("separable", SHAPE, code_dim=3)
        chosen = bound
        if bound == "baseline":
            vae.baseline = nn.Linear(3, 1)
            chosen = ScoreBound("tuba", baseline=vae.baseline)
        term = mi.CriticBound("z", critic=vae.critic, bound=chosen, weight=0.7, **how)
        return vae, mi.MutualInformationELBO([term]), {}

    return make


def squared(particle: Any) -> Tensor:
    return particle.traces.guide.nodes["z"]["value"].square().sum()


def regularization(joint: Tensor, marginal: Tensor) -> Tensor:
    return joint.square().mean() + marginal.square().mean()


def sampled() -> tuple[Any, Any, dict[str, Any]]:
    return mi.CatVAE(SHAPE, **CATEGORY), SampledCategoricalELBO(exact=1, draws=1), {}


def score_function() -> tuple[Any, Any, dict[str, Any]]:
    return mi.CatVAE(SHAPE, **CATEGORY), SampledCategoricalELBO(exact=0, draws=1), {}


def labelled() -> tuple[Any, Any, dict[str, Any]]:
    return mi.CatVAE(SHAPE, **CATEGORY), None, {"labels": torch.arange(COUNT) % 7 % 5 - 1}


def conditional() -> tuple[Any, Any, dict[str, Any]]:
    vae = mi.VAE(SHAPE, **CODE, given_shape=(2,))
    return vae, None, {"given": torch.linspace(-1, 1, 2 * COUNT).reshape(COUNT, 2)}


def pseudo_inputs() -> tuple[Any, Any, dict[str, Any]]:
    return mi.VAE(SHAPE, **CODE, prior=mi.VampPrior(SHAPE, 3, num_components=2)), None, {}


def idle() -> tuple[Any, Any, dict[str, Any]]:
    vae = mi.VAE(SHAPE, **CODE)
    vae.idle = nn.Linear(3, 3)  # which no term trains
    return vae, None, {}


def read(generated: str) -> Callable[[], Any]:
    return lambda: mi.MutualInformationELBO([mi.BarberAgakov("z", generated=generated)])


BOUNDS = ("nwj", "baseline", "donsker-varadhan", "mine", "infonce", "interpolated")
CASES: dict[str, Case] = {
    **{
        name: lambda make=make, own=CATEGORY if name in ("cat", "infocat") else CODE: (
            make(SHAPE, **own),
            None,
            {},
        )
        for name, make in mi.VARIANTS.items()
        if name != "infogan"
    },
    "idle head": idle,
    "infogan": lambda: (mi.InfoGAN(SHAPE), None, {}),
    **{f"critic {bound}": criticised(bound) for bound in (*BOUNDS, "jensen-shannon", "smile")},
    "critic all pairs": criticised("nwj", pairs="all"),
    "critic seeded": criticised("nwj", seed=3),
    "critic regularised": criticised("nwj", regularization=regularization),
    **{
        f"read from {generated}": plain(read(generated))
        for generated in ("mean", "straight-through", "relaxed", "score-function")
    },
    "mmd rbf": plain(
        lambda: mi.MutualInformationELBO([mi.MaximumMeanDiscrepancy("z", weight=3.0)])
    ),
    "mmd imq": plain(
        lambda: mi.MutualInformationELBO([mi.MaximumMeanDiscrepancy("z", kernel="imq")])
    ),
    "penalty": plain(lambda: mi.MutualInformationELBO([Penalty("z", function=squared)])),
    "particles": plain(
        lambda: mi.MutualInformationELBO(
            [mi.MaximumMeanDiscrepancy("z")], num_particles=2, vectorize_particles=True
        )
    ),
    "target": plain(lambda: mi.MutualInformationELBO(kl_weights={"z": mi.Target(3.0)})),
    "warm-up": plain(
        lambda: mi.MutualInformationELBO(kl_weights={"z": mi.linear_warmup(3)}), clip_norm=0.5
    ),
    "regularised information": grouped(lambda: mi.RegularizedInformation("c")),
    "invariant information": grouped(
        lambda: mi.InvariantInformation("c", transform=lambda x: x.flip(-1))
    ),
    "information target": grouped(
        lambda: mi.BarberAgakov("c", generated="mean", weight=mi.Target(1.0))
    ),
    "sampled": sampled,
    "score function": score_function,
    "labels": labelled,
    "condition": conditional,
    "pseudo-inputs": pseudo_inputs,
}


STAGED = (
    "infocat",
    "infogan",
    "critic mine",
    "read from score-function",
    "mmd rbf",
    "target",
    "regularised information",
    "score function",
)
RUNS = [*((name, "eager") for name in CASES), *((name, "staged") for name in STAGED)]


def steps_of(name: str, ranks: Ranks, engine: str) -> dict[str, Tensor]:
    """Takes two steps of a case, or four staged ones, of which the graph takes the last.

    Returns:
        Ledgers, gradients and the final state, by name.
    """
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    vae, objective, options = CASES[name]()
    data = {"x": torch.rand(COUNT if engine == "eager" else BATCH, *SHAPE)}
    data |= {key: options.pop(key) for key in ("given", "labels") if key in options}
    how = TrainingOptions(epochs=4, batch_size=BATCH, engine=engine, **options)
    trainer = Trainer(vae, data, [], how, torch.device("cpu"), objective, ranks)
    # Adam divides a gradient of 0 by its own rounding.
    trainer.optimiser = torch.optim.SGD(vae.parameters(), lr=1e-2)
    vae.train()
    found: dict[str, Tensor] = {}
    torch.manual_seed(1)
    for _ in range(1 if engine == "eager" else 4):
        order = trainer.batches.order(torch.Generator().manual_seed(3))
        for index in order.split(trainer.batches.rows):
            rows, shares = trainer.batches.own(index)
            with NoiseOfRows():
                entries, values = trainer._step(*trainer.batches.take(rows), shares=shares)
            step = trainer.step
            found |= {f"{step} {key}": value for key, value in zip(entries, values.unbind())}
            for key, parameter in vae.named_parameters():
                if parameter.grad is not None:
                    found[f"{step} gradient {key}"] = parameter.grad.clone()
    found |= {f"objective {key}": value for key, value in trainer.objective.state_dict().items()}
    assert trainer.engine.mode == engine  # the graphs agree with the program
    return found | {f"final {key}": value for key, value in vae.state_dict().items()}
