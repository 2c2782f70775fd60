"""Semi-amortised guide: an amortised one, refined by steps through which it is trained.

Kim et al. (2018), Semi-Amortized Variational Autoencoders, https://arxiv.org/abs/1802.02550
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_mivae.arguments import checked, function, number, whole
from pyro_mivae.evidence.refined import check_refinable, negative_elbo, run_apart
from pyro_mivae.posterior.preserved_state import evaluation_mode
from pyro_mivae.traces import Program


class SemiAmortizedGuide(PyroModule):
    r"""Steps on each datum's posterior, as a part of the guide that is trained.

    .. math:: \lambda_{k+1} = \lambda_k + \eta\,\nabla_\lambda
        E_{q_\lambda}[\log p(x, code) - \log q_\lambda(code)], \quad
        \lambda_0 \text{ from the amortised guide}

    The loss is that of the last :math:`\lambda`. Its gradient goes through all steps, exactly, to
    the amortised guide and to the model. In the steps all networks are in evaluation mode.

    Train it with ``pyro.infer.SVI``, a step of which costs as much as several of the amortised
    guide. Its draws differ from run to run; to evaluate, refine it:
    ``mi.RefinedGuide(vae.model, guide)``.

    Args:
        model: The model, called as ``model(x)``, with one plate over the data.
        guide: The amortised guide, as `RefinedGuide` takes it; a module.
        num_steps: Steps on each datum's parameters.
        learning_rate: :math:`\eta`.

    Raises:
        OptionError: If the guide cannot be refined, or a number is out of range.

    Example:
        >>> import pyro
        >>> vae, x = mi.VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8)
        >>> guide = mi.SemiAmortizedGuide(vae.model, vae.guide, num_steps=2)
        >>> adam = pyro.optim.Adam({"lr": 1e-3})
        >>> svi = pyro.infer.SVI(vae.model, guide, adam, loss=vae.objective())
        >>> svi.step(x) > 0
        True
    """

    @checked(
        model=function("model(x)"),
        guide=function("guide(x)"),
        num_steps=whole(least=1, most=10**4),
        learning_rate=number(above=0, most=1e3),
    )
    def __init__(
        self, model: Program, guide: Any, *, num_steps: int = 5, learning_rate: float = 0.01
    ) -> None:
        super().__init__()
        check_refinable(guide)
        self.guide = guide
        self.num_steps, self.learning_rate = num_steps, learning_rate
        self._read = (model,)  # in a tuple: it is no submodule

    def forward(self, *args: Tensor) -> None:
        """Samples the sites, given data of shape ``(batch, ...)`` and their condition."""
        self.sample_from(self.local_parameters(*args))

    def local_parameters(self, *args: Tensor) -> dict[str, Tensor]:
        """Returns the parameters of each datum's posterior after the steps, see `RefinedGuide`."""
        learned = torch.is_grad_enabled()
        parameters: dict[str, Tensor] = self.guide.local_parameters(*args)
        (model,) = self._read
        with run_apart(), evaluation_mode(model, self.guide), torch.enable_grad():
            for _ in range(self.num_steps):
                if not learned:
                    parameters = {n: p.detach().requires_grad_() for n, p in parameters.items()}
                loss = negative_elbo(model, self.guide, parameters, *args)
                slopes = torch.autograd.grad(
                    loss,
                    list(parameters.values()),
                    create_graph=learned,
                    materialize_grads=True,
                )
                parameters = {
                    name: value - self.learning_rate * slope
                    for (name, value), slope in zip(parameters.items(), slopes, strict=True)
                }
        return parameters if learned else {n: p.detach() for n, p in parameters.items()}

    def sample_from(self, parameters: dict[str, Tensor]) -> None:
        """Samples the sites, given parameters of each datum."""
        self.guide.sample_from(parameters)
