"""Posteriors refined datum by datum, from an amortised guide's: afterwards, or in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_mivae.arguments import checked, function, number, whole
from pyro_mivae.compat import Adam, enumeration_kept, version_of
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.posterior.densities import repeat
from pyro_mivae.posterior.preserved_state import (
    device_of,
    evaluation_mode,
    preserved_state,
    seeded,
)
from pyro_mivae.traces import Program

JUDGED = 32  # draws by which a refined posterior is compared with the one it started from
ONCE = (
    "the draws of a site have no second derivative, which the steps need: those of Gamma, Beta, "
    "Dirichlet, Student's t and PowerSpherical have none; train the guide without steps, and "
    "refine it to evaluate, by mi.RefinedGuide(model, guide)"
)
GIVEN = {
    "model": function("model(x)"),
    "guide": function("guide(x)"),
    "learning_rate": number(above=0, most=1e3),
}
Parameters = Mapping[str, Tensor]


class RefinedGuide:
    r"""A guide whose posterior is refined for each datum, by gradient steps on the ELBO.

    .. math:: \lambda(x) = \arg\max_\lambda
        E_{q_\lambda}[\log p(x, code) - \log q_\lambda(code)], \quad
        \text{started from the guide's } \lambda

    The parameters :math:`\lambda` of a datum's posterior move by Adam, with a rate that falls to
    0. All networks are fixed and in evaluation mode. Categories are summed out, and their logits
    move too. A flow keeps its layers; what they read of the datum moves. A datum keeps its old
    parameters if the ELBO of the new ones, by 32 draws, is not higher. The gain in ELBO is the
    amortisation gap, or the part of it that the steps found.

    It is a Pyro guide of the same sites, for `information`, `annealed_log_likelihood`,
    `bidirectional_monte_carlo`, `Variant.encode` and Pyro's ELBOs. A datum is refined once, when
    it first comes, and again after a change of the weights of model or guide. The result depends
    on the seed and, by the noise of the draws, on the data that came with it.

    Args:
        model: The model, called as ``model(x)``, or with data and their condition, with one plate
            over the data.
        guide: The guide: an `AmortizedGuide`, or any other with ``local_parameters(x)``, which
            returns tensors of shape ``(batch, ...)`` by name, and ``sample_from(parameters)``,
            which samples the sites given these.
        num_steps: Gradient steps on each datum's parameters.
        learning_rate: Rate of the first step.
        num_draws: Draws of each datum's code per step.
        batch_size: Decoded codes at once.
        seed: Seed of the draws. Torch's generators, Pyro's parameter store and the modules' mode
            are restored.

    Raises:
        OptionError: If the guide has no such methods, or a number is out of range.
        SiteError: When it is called, if a site of the guide is neither reparametrised nor
            enumerated.

    References:
        Cremer, Li & Duvenaud (2018), Inference Suboptimality in Variational Autoencoders.
        https://arxiv.org/abs/1801.03558
        Kim et al. (2018), Semi-Amortized Variational Autoencoders. https://arxiv.org/abs/1802.02550

    Example:
        >>> vae, x = mi.VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8)
        >>> refined = mi.RefinedGuide(vae.model, vae.guide, num_steps=20)
        >>> before, after = (mi.information(vae.model, g, x) for g in (vae.guide, refined))
        >>> before["elbo"] < after["elbo"]
        True
    """

    @checked(
        **GIVEN,
        num_steps=whole(least=1, most=10**6),
        num_draws=whole(least=1, most=10**6),
        batch_size=whole(least=1),
        seed=whole(least=0),
    )
    def __init__(
        self,
        model: Program,
        guide: Any,
        *,
        num_steps: int = 100,
        learning_rate: float = 0.05,
        num_draws: int = 8,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        check_refinable(guide)
        self.model, self.guide = model, guide
        self.num_steps, self.learning_rate = num_steps, learning_rate
        self.num_draws, self.data_at_once = num_draws, max(1, batch_size // num_draws)
        self.seed = seed
        self._state: list[tuple[int, int]] = []  # of the weights to which the table belongs
        self._rows: dict[bytes, int] = {}  # of each datum in the table
        self._table: dict[str, Tensor] = {}

    def __call__(self, *args: Tensor) -> None:
        """Samples the sites, given data of shape ``(batch, ...)`` and their condition."""
        self.guide.sample_from(self.local_parameters(*args))

    def local_parameters(self, *args: Tensor) -> dict[str, Tensor]:
        """Returns the refined parameters of each datum's posterior.

        Args:
            *args: Data, shape ``(batch, ...)``, and their condition if the pair takes one.

        Returns:
            Tensors by name, without a gradient, shape ``(batch, ...)``.
        """
        state = [
            (id(weight), version_of(weight))
            for module in (self.model, self.guide)
            if isinstance(module, nn.Module)
            for weight in (*module.parameters(), *module.buffers())
        ]
        if state != self._state:
            self._state, self._rows, self._table = state, {}, {}
        each = zip(*map(_bytes_of, args), strict=True)
        keys = [b"".join(part.tobytes() for part in parts) for parts in each]
        new = {key: i for i, key in enumerate(keys) if key not in self._rows}
        if new:
            self._add(list(new), [part[list(new.values())] for part in args])
        rows = torch.tensor([self._rows[key] for key in keys], device=args[0].device)
        return {name: values[rows] for name, values in self._table.items()}

    def _add(self, keys: list[bytes], args: Sequence[Tensor]) -> None:
        """Refines data that are not in the table."""
        device = device_of(args[0], self.model)
        with run_apart(), preserved_state(self.seed, self.model, self.guide, device=device):
            batches = zip(*(part.split(self.data_at_once) for part in args), strict=True)
            found = [self._refine(batch) for batch in batches]
        for name in found[0]:
            old = [self._table[name]] if self._rows else []
            self._table[name] = torch.cat([*old, *(parameters[name] for parameters in found)])
        self._rows |= {key: len(self._rows) + i for i, key in enumerate(keys)}

    def _refine(self, args: Sequence[Tensor]) -> dict[str, Tensor]:
        begun = self.guide.local_parameters(*args)
        start = {name: value.detach() for name, value in begun.items()}
        leaves = {name: value.clone().requires_grad_() for name, value in start.items()}
        optimiser = Adam(leaves.values(), self.learning_rate)
        falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, self.num_steps)
        for _ in range(self.num_steps):
            with torch.enable_grad():
                loss = self._loss(leaves, args, self.num_draws)
            gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            for leaf, gradient in zip(leaves.values(), gradients, strict=True):
                leaf.grad = gradient
            optimiser.step()
            falling.step()
        refined = {name: leaf.detach() for name, leaf in leaves.items()}
        rises = self._elbo_of(refined, args) > self._elbo_of(start, args)  # False for NaN
        return {
            name: torch.where(rises.reshape(-1, *[1] * (value.dim() - 1)), value, start[name])
            for name, value in refined.items()
        }

    def _loss(self, parameters: Parameters, args: Sequence[Tensor], count: int) -> Tensor:
        """The negative ELBO, averaged over draws and summed over data."""
        repeated = {name: repeat(value, count) for name, value in parameters.items()}
        copies = [repeat(part, count) for part in args]
        return negative_elbo(self.model, self.guide, repeated, *copies) / count

    def _elbo_of(self, parameters: Parameters, args: Sequence[Tensor]) -> Tensor:
        """Each datum's ELBO: the derivative of their sum by the scale of the datum's sites."""
        device = args[0].device
        scale = torch.ones(JUDGED * len(args[0]), device=device, requires_grad=True)
        with seeded(self.seed + 1, device), torch.enable_grad(), _Scaled(scale):
            loss = self._loss(parameters, args, JUDGED)
        (each,) = torch.autograd.grad(loss, scale)
        return -each.unflatten(0, (JUDGED, -1)).sum(0)


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
        SiteError: When it is called, if the draws of a site have no second derivative.

    References:
        Kim et al. (2018), Semi-Amortized Variational Autoencoders. https://arxiv.org/abs/1802.02550

    Example:
        >>> import pyro
        >>> vae, x = mi.VAE((1, 8, 8), latent_dim=2), torch.rand(20, 1, 8, 8)
        >>> guide = mi.SemiAmortizedGuide(vae.model, vae.guide, num_steps=2)
        >>> adam = pyro.optim.Adam({"lr": 1e-3})
        >>> svi = pyro.infer.SVI(vae.model, guide, adam, loss=vae.objective())
        >>> svi.step(x) > 0
        True
    """

    @checked(**GIVEN, num_steps=whole(least=1, most=10**4))
    def __init__(
        self, model: Program, guide: Any, *, num_steps: int = 5, learning_rate: float = 0.01
    ) -> None:
        super().__init__()
        check_refinable(guide)
        self.guide = guide
        self.num_steps, self.learning_rate = num_steps, learning_rate
        self._read = (model,)  # in a tuple: it is no submodule
        self._probed = False

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
                    loss, list(parameters.values()), create_graph=learned, materialize_grads=True
                )
                if learned and not self._probed:
                    check_twice(slopes, list(parameters.values()))
                    self._probed = True
                parameters = {
                    name: value - self.learning_rate * slope
                    for (name, value), slope in zip(parameters.items(), slopes, strict=True)
                }
        return parameters if learned else {n: p.detach() for n, p in parameters.items()}

    def sample_from(self, parameters: dict[str, Tensor]) -> None:
        """Samples the sites, given parameters of each datum."""
        self.guide.sample_from(parameters)


def check_refinable(guide: Any) -> None:
    """Refuses a guide whose parameters per datum are not known."""
    if not all(hasattr(guide, name) for name in ("local_parameters", "sample_from")):
        raise OptionError(
            f"guide={type(guide).__name__} does not separate the parameters of each datum's "
            "posterior from its networks; give an mi.AmortizedGuide, or write the methods "
            "local_parameters(x), which returns tensors with a row for each datum, by name, "
            "and sample_from(parameters), which samples the sites given these"
        )


def check_twice(slopes: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Refuses slopes that have no gradient."""
    total = torch.stack([slope.sum() for slope in slopes]).sum()
    try:
        torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    except NotImplementedError as error:
        raise SiteError(ONCE) from error
    seen, ahead = set(), [total.grad_fn]
    while ahead:  # a function that is differentiable once leads to an error, which ends the graph
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [following for following, _ in node.next_functions]
            if node.name() == "torch::autograd::Error":
                raise SiteError(ONCE)


def negative_elbo(model: Program, guide: Any, parameters: Parameters, *args: Tensor) -> Tensor:
    """Estimates the negative ELBO for given parameters, summed over the data."""
    elbo = MutualInformationELBO(max_plate_nesting=1)
    return elbo.differentiable_loss(model, lambda *_: guide.sample_from(parameters), *args)


@contextmanager
def run_apart() -> Iterator[None]:
    """Hides runs of model and guide from the handlers around them."""
    with poutine.block(), enumeration_kept(), pyro.validation_enabled(False):
        yield


class _Scaled(Messenger):
    """Scales every site by the same tensor."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def _pyro_sample(self, msg: Any) -> None:
        msg["scale"] = self.scale


def _bytes_of(x: Tensor) -> Any:
    """The rows of data as bytes, a NumPy array of shape ``(n, bytes)``."""
    return x.detach().cpu().reshape(len(x), -1).contiguous().view(torch.uint8).numpy()
