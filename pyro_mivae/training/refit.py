"""`refit_prior`: another prior for a trained variant."""

from __future__ import annotations

import copy
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, number, whole
from pyro_mivae.compat import Adam
from pyro_mivae.engine.comparison import is_due
from pyro_mivae.engine.steps import Engine
from pyro_mivae.engine.tracing import TrainStep
from pyro_mivae.errors import OptionError, SiteError, TrainingError
from pyro_mivae.models import code_program
from pyro_mivae.priors import PRIOR, attach_prior, prior_sites, site_size
from pyro_mivae.sites import sum_of
from pyro_mivae.traces import TracePair
from pyro_mivae.training.arguments import cuda_devices
from pyro_mivae.variants import VARIANT, Variant
from pyro_mivae.variants.checks import check_condition


@checked(
    vae=VARIANT,
    prior=PRIOR,
    epochs=whole(least=1),
    batch_size=whole(least=1),
    lr=number(above=0),
    seed=whole(least=0),
)
def refit_prior(
    vae: Variant,
    x: Any,
    prior: Any,
    *,
    given: Any = None,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> Variant:
    r"""Fits a prior to the codes of a trained variant.

    It maximises :math:`E_x E_{q(code \mid x)} \log p(code)` over the prior's parameters: the prior
    approaches the aggregate posterior. Guide and decoder stay as they are, so the distortion stays
    the same, and the rate falls by what the prior gains. :math:`\log q` does not depend on the
    prior, so closed forms of the KL divergence serve the same purpose with less noise.

    Args:
        vae: The variant, on its device; it does not change.
        x: Training data, as `Variant.check_data` takes them.
        prior: A prior with parameters and the sites of the variant's own, in the same sizes. It
            becomes part of the result.
        given: The condition of the data, see `fit`. A prior that reads it approaches the aggregate
            posterior of each condition; any other prior, that of all data.
        epochs: Passes over the data.
        batch_size: Data per step.
        lr: Learning rate of Adam.
        seed: Seed of the order of the data and of the codes that are drawn.

    Returns:
        A copy of the variant with the new prior, in evaluation mode.

    Raises:
        OptionError: If the prior has nothing to learn, or reads another condition.
        SiteError: If its sites are others than those of the variant.
        TrainingError: If the rate is not finite.

    References:
        Dai & Wipf (2019), Diagnosing and Enhancing VAE Models, section 3: a second stage.
        https://arxiv.org/abs/1903.05789

    Example:
        >>> x = torch.rand(64, 1, 4, 4)
        >>> vae = mi.VAE((1, 4, 4), latent_dim=2)
        >>> refit = refit_prior(vae, x, mi.FlowPrior(latent_dim=2, hidden_dims=[8]), epochs=1)
        >>> type(refit.prior).__name__, type(vae.prior).__name__
        ('FlowPrior', 'StandardNormalPrior')
    """
    x, *others = vae.arguments(x, given)
    if not isinstance(prior, nn.Module) or not any(p.requires_grad for p in prior.parameters()):
        raise OptionError(
            f"prior={type(prior).__name__} has no parameters to fit; give one that has, such as "
            "mi.FlowPrior(...) or mi.MixturePrior(..., learn=['means', 'weights', 'scales'])"
        )
    with (
        torch.random.fork_rng(devices=cuda_devices(vae.device)),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
    ):
        torch.manual_seed(seed)
        fitted = _with_prior(vae, prior)
        prepare = getattr(prior, "initialize", None)
        if callable(prepare):
            prepare(x)
        _fit(fitted.eval(), [x, *others], epochs, batch_size, lr)
    return fitted


def _with_prior(vae: Variant, prior: Any) -> Variant:
    """Returns a copy with another prior of the same sites."""
    check_condition(vae, prior)
    sizes = {name: site_size(fn) for name, fn in prior_sites(prior)[0].items()}
    if sizes != vae.sites:
        raise SiteError(
            f"the prior samples sites of sizes {sizes}, and the variant {vae.sites}; build the "
            "prior with these sizes"
        )
    copied = copy.deepcopy(vae)
    prior.to(vae.device, vae.dtype)
    model = copied.model
    parts = {"prior": prior, "decoder": model.decoder, "likelihood": model.likelihood}
    for name, part in parts.items():  # in the order of a variant that is built with the prior
        delattr(model, name)
        setattr(model, name, part)
    copied.given["prior"] = prior
    attach_prior(prior, copied.guide, copied.likelihood.interval)
    return copied


def _fit(vae: Variant, args: list[Tensor], epochs: int, batch_size: int, lr: float) -> None:
    prior = vae.prior.train()
    frozen = [p for p in vae.parameters() if p.requires_grad]
    trained = [p for p in prior.parameters() if p.requires_grad]
    vae.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_()
    program = code_program(vae.model)

    def loss(*batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        pair = TracePair.run(program, vae.guide, batch, {}, max_plate_nesting=1)
        costs = [pair.rate(name) for name in pair.latent]
        costs += [-pair.log_likelihood(name).sum() for name in pair.observed]  # factors
        value = sum_of(costs) / len(batch[0])
        return value, {"loss": value.detach()}

    order = torch.Generator().manual_seed(torch.initial_seed())
    count, device = len(args[0]), args[0].device
    steps = epochs * -(-count // batch_size)
    engine = Engine(TrainStep.of_modules(loss, vae), "auto", num_steps=steps)
    optimiser, number = Adam(trained, lr), 0
    try:
        for _ in range(epochs):
            for index in torch.randperm(count, generator=order).split(batch_size):
                batch = [part[index.to(device)].to(vae.device) for part in args]
                _, values = engine.take(*batch, number=number, compare=is_due(number))
                optimiser.step()
                number += 1
    finally:
        for parameter in frozen:
            parameter.requires_grad_()
        prior.eval()
    if not bool(values.isfinite().all()):
        raise TrainingError(f"the rate is not finite; try a lower learning rate than lr={lr}")
