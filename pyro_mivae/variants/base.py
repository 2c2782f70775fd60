"""What all variants share: a model/guide pair, its objective, and ways to look into it."""

from __future__ import annotations

import copy
import inspect
import itertools
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae.arguments import (
    checked,
    either,
    instance,
    named,
    numbers,
    several,
    size,
    text,
    whole,
)
from pyro_mivae.compat import name_module
from pyro_mivae.elbo import Objective
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError
from pyro_mivae.guides import MeanFieldGuide
from pyro_mivae.handlers import SubstituteMessenger, decode_means
from pyro_mivae.inputs import as_tensor
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.memory import build_fitting
from pyro_mivae.models import GenerativeModel, code_program, dtype_of
from pyro_mivae.networks import build_networks
from pyro_mivae.priors import prior_sites
from pyro_mivae.traces import TracePair
from pyro_mivae.variants.checks import (
    PARTS,
    check_decoder,
    check_encoder,
    check_guide,
    check_weights,
)
from pyro_mivae.variants.means import posterior_means
from pyro_mivae.variants.parts import (
    category_value,
    code_value,
    find_likelihood,
    is_bounded,
    site_size,
)

SMALLER = (
    "give a smaller latent_dim, fewer categories, or narrower networks of your own as encoder and "
    "decoder"
)
SCALE = "likelihood.scale_unconstrained"
_INSTANCES = itertools.count(1)

GuideBuilder = Callable[[Mapping[str, int], nn.Module], nn.Module]


class Variant(PyroModule):
    """A model/guide pair with the objective of one paper.

    The module owns every parameter. Its Pyro name is its own, so that several can be trained in
    one process without sharing parameters through Pyro's param store.

    Attributes:
        model: The generative model, called with data.
        guide: The guide, called with data.
        data_shape: Shape of one datum.
        sites: Size of each site of the code, by name; of a category, how many there are.
        category: Name of the site that is a category, or None; the first one of several.
        one_hot: Whether its values are one-hot, of each category.
        batch_norm: Whether the networks that it builds may normalise by the batch.
        given: The arguments that it was built with, by name.
        noise: Sites that the guide draws from their prior, whatever the data.
        code_site: The site whose size is the keyword ``code_dim``.
    """

    name: ClassVar[str]
    batch_norm: ClassVar[bool] = True
    noise: ClassVar[frozenset[str]] = frozenset()
    code_site: ClassVar[str] = "c"
    given: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps what the variant is built with, for `save`."""
        variant: Self = super().__new__(cls)
        try:
            given = inspect.signature(cls).bind_partial(*args, **kwargs).arguments
        except TypeError:  # __init__ says it better
            given = {}
        variant.__dict__["given"] = given
        return variant

    @checked(**PARTS)
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        prior: Callable[[], Tensor],
        likelihood: str | Likelihood,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        build_guide: GuideBuilder | None = None,
    ) -> None:
        """Assembles the pair and checks that it fits."""
        super().__init__(self._new_name())
        self.data_shape = tuple(data_shape)
        if guide is not None and encoder is not None:
            raise OptionError("encoder and guide are both given; a guide brings its own encoder")
        distributions, code_dim = prior_sites(prior)
        self.sites = {name: site_size(fn) for name, fn in distributions.items()}
        categories = [name for name, fn in distributions.items() if fn.has_enumerate_support]
        self.category = categories[0] if categories else None
        self._bounded = [n for n, fn in distributions.items() if is_bounded(fn)]
        self.one_hot = {name: bool(distributions[name].event_dim) for name in categories}
        if encoder is not None:
            check_encoder(encoder, self.data_shape)

        def build() -> tuple[nn.Module, nn.Module]:
            first, last = self.build_networks("auto", self.data_shape, code_dim)
            if guide is None:
                first = first if encoder is None else encoder
                first = (build_guide or self._mean_field)(self.sites, first)
            return first if guide is None else guide, last if decoder is None else decoder

        self.guide, decoder = build_fitting(build, SMALLER)
        self.model = GenerativeModel(
            prior, decoder, find_likelihood(likelihood), len(self.data_shape)
        )
        check_guide(self, distributions)
        check_decoder(self, code_dim)

    @classmethod
    def build_networks(
        cls, kind: str, data_shape: Sequence[int], code_dim: int
    ) -> tuple[nn.Module, nn.Module]:
        """Builds an encoder and a decoder of one of the variant's presets.

        Args:
            kind: Its name, or ``"auto"``.
            data_shape: Shape of one datum.
            code_dim: Size of the code.

        Returns:
            The encoder, from ``(batch, *data_shape)`` to features, and the decoder, from
            ``(..., code_dim)`` to ``(..., *data_shape)``.
        """
        return build_networks(kind, data_shape, code_dim, batch_norm=cls.batch_norm)

    @classmethod
    def _new_name(cls) -> str:
        return f"{cls.name}_{next(_INSTANCES)}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Variant:
        """Copies the module, with a Pyro name of its own."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes a new name: with the original's, SVI would train the original's parameters."""
        super().__setstate__(state)
        name = self._new_name()
        for prefix, module in self.named_modules():
            if isinstance(module, PyroModule):
                name_module(module, f"{name}.{prefix}" if prefix else name)

    @checked(num_steps=whole(least=0))
    def objective(self, num_steps: int | None = None) -> Objective:
        """Returns the variant's loss for ``pyro.infer.SVI``, with schedules at their start.

        Args:
            num_steps: How many steps training will take. Warm-ups that are a share of the
                training need it; without it they are left out.

        Returns:
            The loss, on the device of the variant.
        """
        objective = self._loss(num_steps).to(self.device)
        objective.latent = tuple(self.sites)
        along_a_plate = objective.vectorize_particles and objective.num_particles > 1
        objective.max_plate_nesting = 1 + along_a_plate
        return objective

    @abstractmethod
    def _loss(self, num_steps: int | None) -> Objective:
        """Builds the variant's loss."""

    def initialize(self, x: Tensor) -> None:
        """Prepares parameters from the data before training, where the variant has use for it.

        Args:
            x: Training data, shape ``(n, *data_shape)``.
        """

    @checked(param_name=text())
    def optim_args(self, param_name: str) -> dict[str, float]:
        """Returns the optimiser's options of a parameter: ``pyro.optim.Adam(vae.optim_args)``.

        A likelihood's scale, one number that has a long way to go, has ten times the others' rate.

        Args:
            param_name: Name of the parameter in Pyro's param store.

        Returns:
            The learning rate.
        """
        return {"lr": 1e-2 if param_name.endswith(SCALE) else 1e-3}

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood of the data given the code."""
        likelihood: Likelihood = self.model.likelihood
        return likelihood

    @property
    def prior(self) -> Any:
        """The prior of the code."""
        return self.model.prior

    @property
    def num_categories(self) -> int | None:
        """How many categories there are, or None where the code has none."""
        return None if self.category is None else self.sites[self.category]

    @property
    def latent_dim(self) -> int:
        """Size of all continuous sites together."""
        return sum(size for name, size in self.sites.items() if name != self.category)

    @property
    def device(self) -> torch.device:
        """Where the parameters are (the CPU if there are none)."""
        return next(self.parameters(), torch.zeros(())).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return dtype_of(self) or torch.get_default_dtype()

    def check_data(self, x: Any) -> Tensor:
        """Returns data as the variant takes them; everything that takes data begins with it.

        Args:
            x: A tensor or a NumPy array of any dtype, shape ``(n, *data_shape)``, with ``n`` at
                least 1. Numbers count as they are: bytes from 0 to 255 are not scaled, and a
                likelihood of values in [0, 1] refuses them.

        Returns:
            The data in the weights' dtype, on their own device; see
            `GenerativeModel.check_data`.

        Raises:
            DataError: If there are none, or values are not finite or outside the support.
            ShapeError: If the shape is another.
        """
        x = as_tensor(x)
        if tuple(x.shape[1:]) != self.data_shape:
            raise ShapeError(
                f"data of shape {tuple(x.shape)} given, n times {self.data_shape} needed; reshape "
                "the data, or build the variant with their data_shape"
            )
        if not len(x):
            raise DataError("no data given; one datum or more is needed")
        return self.model.check_data(x)

    @torch.no_grad()
    def encode(self, x: Any) -> dict[str, Tensor]:
        """Returns what the guide says of each datum.

        Args:
            x: Data as `check_data` takes them, shape ``(batch, *data_shape)``.

        Returns:
            By site, the posterior mean, shape ``(batch, size)``; of a category the probabilities,
            shape ``(batch, num_categories)``. Where a guide has no mean in closed form (a flow, a
            site that depends on a drawn one) it is that of 100 draws, always the same ones: its
            error is a tenth of the posterior's deviation. Torch's generators stay as they are.

        Raises:
            OptionError: If weights are not finite.
        """
        x = self.check_data(x).to(self.device)
        with self.evaluating():
            return posterior_means(lambda: self.code_traces(x), self.device)

    @checked(keep=either(several(text(), least=0), text()))
    def reconstruct(self, x: Any, keep: Collection[str] | None = None) -> Tensor:
        """Decodes the posterior mean.

        Args:
            x: Data as `check_data` takes them, shape ``(batch, *data_shape)``.
            keep: Sites that keep their posterior mean (a category: its most probable value);
                every other site is put at its prior mean given these. All if omitted.

        Returns:
            The likelihood's mean, shape ``(batch, *data_shape)``.

        Raises:
            SiteError: If ``keep`` names a site that is not in the code.
        """
        keep = [keep] if isinstance(keep, str) else keep
        if keep is not None:
            self._check_names(keep)
        codes = self.encode(x)
        if keep is not None:
            codes = {name: codes[name] for name in keep}
        return self.decode(codes, len(x))

    @torch.no_grad()
    @checked(codes=named(numbers()), n=size())
    def decode(self, codes: Mapping[str, Any], n: int) -> Tensor:
        """Decodes given sites, with every other site at its prior mean given these.

        Args:
            codes: Values by site, tensors or arrays of shape ``(n, size)``; of a category, its
                numbers, integers of shape ``(n,)``, or probabilities, which stand for the most
                probable one.
            n: Number of codes.

        Returns:
            The likelihood's mean, shape ``(n, *data_shape)``.

        Raises:
            OptionError: If there is no category of a number, or weights are not finite.
            DataError: If values are not finite, or neither tensors nor arrays.
            ShapeError: If values have another shape.
            SiteError: If a site is not in the code.
        """
        self._check_names(codes)
        values = {name: code_value(self, name, code, n) for name, code in codes.items()}
        with self.evaluating():
            decoded: Tensor = decode_means(self.model, values)(self.blank(n))
        return decoded

    @torch.no_grad()
    @checked(n=size(), category=whole())
    def sample(self, n: int, category: int | None = None) -> Tensor:
        """Decodes codes drawn from the prior.

        Args:
            n: How many.
            category: The category to draw them from; any if omitted.

        Returns:
            The likelihood's means, shape ``(n, *data_shape)``.

        Raises:
            OptionError: If there are no categories, or not this one, or ``n`` is under 1; or if
                weights are not finite.
        """
        if category is not None and self.num_categories is None:
            raise OptionError(f"category={category}: {type(self).__name__} has no categories")
        chosen = None
        if self.category is not None and category is not None:
            chosen = category_value(self, self.category, torch.full((n,), category))

        def latent(name: str, fn: Any) -> Tensor | None:
            return chosen if name == self.category else None

        with self.evaluating():
            program = SubstituteMessenger(lambda fn: fn.mean, latent)(self.model)
            sampled: Tensor = program(self.blank(n))
        return sampled

    def code_traces(self, x: Tensor) -> TracePair:
        """Traces prior and guide on data, with the decoder left out."""
        return TracePair.run(code_program(self.model), self.guide, (x,), {}, max_plate_nesting=1)

    def blank(self, n: int) -> Tensor:
        """Returns data that are 0."""
        return torch.zeros(n, *self.data_shape, device=self.device, dtype=self.dtype)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, with a param store of its own; refuses weights that are not finite."""
        check_weights(self)
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with pyro.get_param_store().scope():
                yield
        finally:
            for module in training:
                module.training = True

    def _check_names(self, names: Collection[str]) -> None:
        unknown = sorted(map(str, set(names) - set(self.sites)))
        if unknown:
            raise SiteError(f"sites {unknown} given; the sites of the code are {list(self.sites)}")

    def _mean_field(self, sites: Mapping[str, int], encoder: nn.Module) -> nn.Module:
        if self.one_hot:
            raise SiteError(
                f"the prior samples the categories {list(self.one_hot)}, and the default guide "
                "has no category; give a guide that samples them, such as mi.MixtureGuide(...) "
                "or one of your own"
            )
        return MeanFieldGuide(self.data_shape, sites, encoder, bounded=self._bounded)


VARIANT = instance(Variant, example="mi.VAE((1, 28, 28))")
"""A check of an argument: a variant."""
