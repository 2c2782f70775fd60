"""Methods of a variant that encode, decode and sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor
from torch.nn.functional import one_hot as as_one_hot

from pyro_mivae import arguments as check
from pyro_mivae.errors import OptionError
from pyro_mivae.handlers import decode_means, push_forward
from pyro_mivae.inputs import as_condition
from pyro_mivae.models import code_program, dtype_of
from pyro_mivae.sites import MEAN_DRAWS, fixed_seed
from pyro_mivae.traces import Program, TracePair, is_deterministic, trace_program
from pyro_mivae.variants import checks

What = Literal["mean", "sd", "draws"]
Generated = Literal["mean", "data"]
Codes = dict[str, Tensor]
_CATEGORY = check.either(check.whole(), check.text())


class Coding(PyroModule):
    """Methods of a variant that encode, decode and sample, and what they need."""

    model: Any
    guide: Any
    data_shape: tuple[int, ...]
    given_shape: tuple[int, ...] | None
    sites: dict[str, int]
    categories: dict[str, int]
    one_hot: dict[str, bool]

    @property
    def device(self) -> torch.device:
        """Device of the parameters (the CPU if there are none)."""
        return next(self.parameters(), torch.zeros(())).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return dtype_of(self) or torch.get_default_dtype()

    def check_data(self, x: Any) -> Tensor:
        """Returns data in the dtype of the weights; the device does not change.

        Every method that takes data calls it first.

        Args:
            x: A tensor or NumPy array of any dtype, shape ``(n, *data_shape)``, ``n`` at least 1,
                or a ``Dataset`` or ``DataLoader`` of torch, which is read once, in its order, into
                memory. Bytes from 0 to 255 are not rescaled: likelihoods on [0, 1] refuse them.

        Raises:
            DataError: If there are none, or values are not finite or outside the support.
            ShapeError: If the shape is another.
        """
        return self.model.check_data(checks.shaped(x, self.data_shape))

    def arguments(self, x: Any, given: Any = None) -> tuple[Tensor, ...]:
        """Returns the arguments of model and guide: data, and their condition if there is one.

        Args:
            x: Data, as `check_data` takes them.
            given: Their condition: numbers of shape ``(n, *given_shape)``; or labels, integers of
                shape ``(n,)`` or one for all data, which become one-hot vectors.

        Raises:
            DataError: As `check_data`; if conditions are not finite, or a label is out of range.
            OptionError: If the condition is missing, or the variant has none.
            ShapeError: If data or conditions have another shape.
        """
        x = self.check_data(x)
        return (x, *self._condition(given, len(x), x.device))

    def _condition(self, given: Any, n: int, device: Any) -> list[Tensor]:
        values = as_condition(given, self.given_shape, n)
        return [] if values is None else [values.to(device, self.dtype)]

    @check.checked(
        what=check.choice(*get_args(What)),
        num_draws=check.whole(least=1),
        guide=check.function("guide(x)"),
    )
    def encode(
        self,
        x: Any,
        what: What = "mean",
        num_draws: int | None = None,
        *,
        guide: Any = None,
        given: Any = None,
    ) -> Codes:
        """Returns mean, standard deviation or draws of the posterior of each site.

        If a guide has no closed-form mean (a flow, a site that depends on a drawn one), it is the
        mean of 100 draws with a fixed seed: its error is a tenth of the posterior's deviation.

        Args:
            x: Data as `check_data` takes them, shape ``(batch, *data_shape)``.
            what: ``"mean"``, ``"sd"`` or ``"draws"``.
            num_draws: Number of draws of each site, 1 if omitted; only for ``"draws"``.
            guide: A guide of the same sites in place of the variant's, such as a `RefinedGuide`.
            given: Their condition, see `arguments`.

        Returns:
            Tensors by site, shape ``(batch, size)``, for draws ``(num_draws, batch, size)``. For a
            category they are those of its one-hot vector: probabilities p, sqrt(p (1 - p)), draws.
        """
        return encoded(self, self.arguments(x, given), what, num_draws, guide)

    @check.checked(keep=check.either(check.several(check.text(), least=0), check.text()))
    def reconstruct(
        self, x: Any, keep: Collection[str] | None = None, *, given: Any = None
    ) -> Tensor:
        """Decodes the posterior mean.

        Args:
            x: Data as `check_data` takes them, shape ``(batch, *data_shape)``.
            keep: Sites that keep their posterior mean (a category its most probable value). Every
                other site gets its prior mean given these. All if omitted.
            given: Their condition, see `arguments`.

        Returns:
            The likelihood's mean, shape ``(batch, *data_shape)``.
        """
        keep = self.sites if keep is None else [keep] if isinstance(keep, str) else keep
        checks.check_names(self.sites, keep)
        codes = self.encode(x, given=given)
        return self.decode({name: codes[name] for name in keep}, len(x), given=given)

    @torch.no_grad()
    @check.checked(codes=check.named(check.numbers()), n=check.size())
    def decode(self, codes: Mapping[str, Any], n: int, *, given: Any = None) -> Tensor:
        """Decodes values of sites, with every other site at its prior mean given these.

        Args:
            codes: Values by site, tensors or arrays of shape ``(n, size)``. For a category: its
                indices, integers of shape ``(n,)``, or probabilities, of which the largest counts.
            n: Number of codes.
            given: Their condition, see `arguments`.

        Returns:
            The likelihood's mean, shape ``(n, *data_shape)``.

        Raises:
            OptionError: If a category does not exist.
            ShapeError: If values have another shape.
            SiteError: If a site is not in the code.
        """
        checks.check_names(self.sites, codes)
        values = {name: self._value(name, code, n) for name, code in codes.items()}
        with self.evaluating():
            decoded: Tensor = decode_means(self.model, values)(*self.blank(n, given))
        return decoded

    @torch.no_grad()
    @check.checked(
        n=check.size(),
        category=check.either(_CATEGORY, check.named(_CATEGORY)),
        what=check.choice(*get_args(Generated)),
    )
    def sample(
        self,
        n: int,
        category: int | str | Mapping[str, int | str] | None = None,
        what: Generated = "mean",
        *,
        given: Any = None,
    ) -> Tensor:
        """Decodes codes drawn from the prior.

        Args:
            n: Number of samples.
            category: The category of the samples, its number from 0 or its letter from A, as on
                the page of a run; any if omitted. With several categorical sites, it is of the
                first; ``{"c1": 3, "c2": "A"}`` names them.
            what: ``"mean"`` for the likelihood's mean, ``"data"`` for data drawn from it.
            given: The condition of each sample, see `arguments`.

        Returns:
            Shape ``(n, *data_shape)``.
        """
        chosen = checks.chosen_categories(type(self).__name__, self.categories, category)
        values = {name: self._value(name, torch.full((n,), k), n) for name, k in chosen.items()}
        program = push_forward(self.model, None if what == "mean" else lambda fn: fn.sample())
        with self.evaluating():
            sampled: Tensor = poutine.condition(program, values)(*self.blank(n, given))
        return sampled

    def blank(self, n: int, given: Any = None) -> tuple[Tensor, ...]:
        """Returns arguments of model and guide with data of zeros; see `arguments`."""
        x = torch.zeros(n, *self.data_shape, device=self.device, dtype=self.dtype)
        return (x, *self._condition(given, n, x.device))

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, with a separate param store; refuses weights that are not finite."""
        checks.check_weights(self)
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with pyro.get_param_store().scope():
                yield
        finally:
            for module in training:
                module.training = True

    def _value(self, name: str, code: Tensor, n: int) -> Tensor:
        """Returns given values of a site in the form that the model takes."""
        category, size = name in self.one_hot, self.sites[name]
        code = checks.given_code(name, code.to(self.device), n, size, category)
        code = as_one_hot(code, size) if category and self.one_hot[name] else code
        return code.to(self.dtype) if self.one_hot.get(name, True) else code


@torch.no_grad()
def encoded(
    vae: Any,
    args: Sequence[Tensor],
    what: What = "mean",
    num_draws: int | None = None,
    guide: Program | None = None,
) -> Codes:
    """Encodes data, with their condition, unchecked: means of counts are not whole numbers."""
    if num_draws is not None and what != "draws":
        raise OptionError(
            f"num_draws={num_draws} with what={what!r}; leave it out, or give what='draws'"
        )
    args, guide = [p.to(vae.device) for p in args], vae.guide if guide is None else guide
    with vae.evaluating():
        if what == "draws":
            draws = [drawn_codes(vae, args, guide) for _ in range(num_draws or 1)]
            return {site: torch.stack([draw[site] for draw in draws]) for site in draws[0]}
        prior = code_program(vae.model)
        means, variances = _posterior_moments(
            lambda: TracePair.run(prior, guide, tuple(args), {}, max_plate_nesting=1),
            args[0].device,
            spread=what == "sd",
        )
    return {site: value.sqrt() for site, value in variances.items()} if what == "sd" else means


def drawn_codes(vae: Any, args: Sequence[Tensor], guide: Program) -> Codes:
    """Returns one draw of the guide for each datum; a category is one-hot."""
    nodes = trace_program(guide, args, {}).nodes
    values = {site: nodes[site]["value"] for site in vae.sites}
    for site, value in values.items():
        if site in vae.one_hot and value.dim() == 1:
            values[site] = as_one_hot(value.long(), vae.sites[site]).to(vae.dtype)
    return values


def _posterior_moments(
    run: Callable[[], TracePair], device: torch.device, *, spread: bool
) -> tuple[Codes, Codes]:
    """Returns mean and, if asked for, variance of every site over several runs of the guide."""
    with fixed_seed(device):
        traces = run()
        runs = [_moments(traces, spread)]
        fixed = [name for name in traces.latent if is_deterministic(traces.guide.nodes[name])]
        noisy = [name not in (*traces.enumerated, *fixed) for name in traces.latent]
        if traces.auxiliary or any(noisy[:-1]):  # a site comes after a drawn one
            runs.append(_moments(run(), spread))
            first, second = (means for means, _ in runs)
            if any(not torch.allclose(first[n], second[n], equal_nan=True) for n in first):
                runs += [_moments(run(), spread) for _ in range(MEAN_DRAWS - 2)]
                means = {name: torch.stack([m[name] for m, _ in runs]) for name in first}
                within = {name: torch.stack([v[name] for _, v in runs]) for name in runs[0][1]}
                variances = {
                    name: value.mean(0) + means[name].var(0, correction=0)
                    for name, value in within.items()
                }
                return {name: value.mean(0) for name, value in means.items()}, variances
    return runs[0]


def _moments(traces: TracePair, spread: bool) -> tuple[Codes, Codes]:
    means = {name: traces.marginal_mean(name) for name in traces.latent}
    if not spread:
        return means, {}
    return means, {name: traces.marginal_variance(name, means[name]) for name in traces.latent}
