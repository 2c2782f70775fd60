"""A model/guide pair with its objective."""

from __future__ import annotations

import copy
import inspect
import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from math import prod
from typing import Any, ClassVar, Self

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae import arguments as check
from pyro_mivae.compat import name_module
from pyro_mivae.elbo import Objective
from pyro_mivae.errors import OptionError, nearest
from pyro_mivae.guides import AmortizedGuide
from pyro_mivae.likelihoods import LIKELIHOODS, Likelihood
from pyro_mivae.likelihoods.base import decoder_options
from pyro_mivae.memory import build_fitting
from pyro_mivae.models import GenerativeModel
from pyro_mivae.networks import build_networks, output_dim
from pyro_mivae.networks.conditional import conditional
from pyro_mivae.priors import attach_prior, prior_sites, site_size
from pyro_mivae.priors.base import given_shape_of
from pyro_mivae.schedules import Schedule, Target
from pyro_mivae.schedules import weight as weights
from pyro_mivae.variants import checks
from pyro_mivae.variants import options as declared
from pyro_mivae.variants.encoding import Coding

LEARNED = ("likelihood.scale_unconstrained", "likelihood.df_unconstrained")
_INSTANCES = itertools.count(1)


class Variant(Coding):
    """A model/guide pair with the objective of one paper.

    The module owns every parameter. It has a unique Pyro name, so variants in one process do not
    share parameters through Pyro's param store.

    Attributes:
        model: The generative model, called with data, and their condition if there is one.
        guide: The guide, called with the same arguments.
        data_shape: Shape of one datum.
        given_shape: Shape of the condition of one datum, or None.
        sites: Size of each site of the code, by name; for a category the number of categories.
        categories: Number of categories of each categorical site, by name.
        noise: Sites that the guide draws from their prior, independently of the data.

    Example:
        >>> isinstance(mi.VAE((1, 8, 8)), Variant)
        True
    """

    name: ClassVar[str]
    batch_norm: ClassVar[bool] = True  # of the networks that it builds
    noise: frozenset[str] = frozenset()
    unconditional: ClassVar[str] = ""  # the reason that it takes no condition
    groups: ClassVar[Mapping[str, Any]] = {}  # dataclasses of options, by keyword
    refused: ClassVar[frozenset[str]] = frozenset()  # options of its parents that it lacks
    given: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Stores the constructor's arguments for `save`."""
        variant: Self = super().__new__(cls)
        try:
            given = inspect.signature(cls).bind_partial(*args).arguments | kwargs
        except TypeError:  # __init__ says it better
            given = {}
        for keyword, group in cls.groups.items():
            given |= asdict(given[keyword]) if isinstance(given.get(keyword), group) else {}
        variant.__dict__["given"] = given
        return variant

    @declared.checked_options(**checks.PARTS)
    def __init__(
        self,
        data_shape: Sequence[int],
        make_prior: Callable[[], declared.Prior],
        make_guide: declared.GuideBuilder = AmortizedGuide,
        *,
        likelihood: declared.LikelihoodLike = "bernoulli",
        prior: declared.Prior | None = None,
        guide: str | nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        given_shape: Sequence[int] | None = None,
        **unknown: object,
    ) -> None:
        """Assembles and checks the pair."""
        for name in unknown:
            taken = [f.name for f in fields(self.options())] + list(declared.Parts.__annotations__)
            told = f"{type(self).__name__} has no argument {name!r}{nearest(name, taken)}"
            raise TypeError(f"{told}; it takes data_shape, {', '.join(dict.fromkeys(taken))}")
        super().__init__(f"{self.name}_{next(_INSTANCES)}")
        self.data_shape = tuple(data_shape)
        if isinstance(guide, str):
            make_guide, guide = partial(AmortizedGuide, family=guide), None
        if guide is not None and encoder is not None:
            raise OptionError(
                "encoder and guide are both given; give one, as a guide contains its own encoder"
            )
        prior = make_prior() if prior is None else prior
        self.given_shape = given_shape_of(prior) if given_shape is None else tuple(given_shape)
        checks.check_condition(self, prior)
        distributions, code_dim = prior_sites(prior)
        self.sites = {name: site_size(fn) for name, fn in distributions.items()}
        discrete = {name: fn for name, fn in distributions.items() if fn.has_enumerate_support}
        self.categories = {name: self.sites[name] for name in discrete}
        self.one_hot = {name: bool(fn.event_dim) for name, fn in discrete.items()}
        if encoder is not None:
            output_dim(encoder, self.data_shape)  # checks it
            encoder = conditional(encoder, self.data_shape, self.given_shape)
        likelihood = LIKELIHOODS[likelihood]() if isinstance(likelihood, str) else likelihood
        outputs = decoder_options(likelihood)
        code_dim += prod(self.given_shape or (0,))

        def build() -> tuple[nn.Module, nn.Module]:
            first, last = self.build_networks("auto", self.data_shape, code_dim, **outputs)
            if encoder is not None:
                first = encoder
            first = conditional(first, self.data_shape, self.given_shape)
            if guide is None:
                first = make_guide(self.data_shape, distributions, first)
            return first if guide is None else guide, last if decoder is None else decoder

        self.guide, decoder = build_fitting(build, checks.SMALLER)
        dims = len(self.data_shape)
        self.model = GenerativeModel(prior, decoder, likelihood, dims, self.given_shape)
        attach_prior(prior, self.guide, likelihood.interval)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), self.evaluating():
            example = None if self.given_shape is None else torch.zeros(2, *self.given_shape)
            args = self.blank(2, example)
            checks.check_guide(self.model, self.guide, args, distributions)
            checks.check_decoder(self.model, code_dim, args[0])

    @classmethod
    def options(cls) -> type:
        """Returns a dataclass of the options that a command or a file may set."""
        return declared.options_of(cls)

    @classmethod
    def build(cls, data_shape: Sequence[int], **given: Any) -> Self:
        """Builds the variant from plain values for `options`, and parts."""
        for keyword, group in cls.groups.items():
            names = [field.name for field in fields(group)]
            given[keyword] = group(**{name: given.pop(name) for name in names if name in given})
        return cls(data_shape, **given)

    @classmethod
    def build_networks(
        cls, kind: str, data_shape: Sequence[int], code_dim: int, **outputs: int
    ) -> tuple[nn.Module, nn.Module]:
        """Builds an encoder and a decoder of the variant, see `build_networks`."""
        return build_networks(kind, data_shape, code_dim, batch_norm=cls.batch_norm, **outputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Variant:
        """Copies the module, with a new Pyro name."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Sets a new Pyro name: with the old one, SVI would train the original's parameters."""
        super().__setstate__(state)
        name = f"{self.name}_{next(_INSTANCES)}"
        for prefix, module in self.named_modules():
            if isinstance(module, PyroModule):
                name_module(module, f"{name}.{prefix}" if prefix else name)

    @check.checked(num_steps=check.whole(least=0), label_weight=weights(least=0))
    def objective(
        self, num_steps: int | None = None, label_weight: float | Schedule | Target | None = None
    ) -> Objective:
        """Returns the variant's loss for ``pyro.infer.SVI``, with schedules at their start.

        Without ``num_steps``, the length of a training, warm-ups of a share of it are left out.
        With ``label_weight`` the loss takes labels, see `LabelledCategory`.
        """
        objective = self._loss(num_steps)
        if label_weight is not None:
            checks.take_labels(self, objective, label_weight)
        return objective.to(self.device).prepare(self)

    @abstractmethod
    def _loss(self, num_steps: int | None) -> Objective:
        """Builds the variant's loss."""

    def initialize(self, x: Tensor, labels: Tensor | None = None, given: Any = None) -> None:
        """Prepares the variant from the training data, and its prior if that has ``initialize``.

        Training from a script calls it once, before the first step; `fit` calls it itself. Labels
        (-1 for none) and the condition of the data are for a start of the categories.
        """
        prepare = getattr(self.prior, "initialize", None)
        if prepare is not None:
            prepare(self.check_data(x))

    @check.checked(param_name=check.text())
    def optim_args(self, param_name: str) -> dict[str, Any]:
        """Returns the optimiser's options of a parameter: ``pyro.optim.Adam(vae.optim_args)``.

        A number of the likelihood, such as its scale, may have to change far: ten times the rate.
        """
        return {"lr": 1e-2 if param_name.endswith(LEARNED) else 1e-3}

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
    def category(self) -> str | None:
        """Name of the first categorical site, or None."""
        return next(iter(self.categories), None)

    @property
    def num_categories(self) -> int | None:
        """Number of categories of the first categorical site, or None."""
        return next(iter(self.categories.values()), None)

    @property
    def code_site(self) -> str:
        """Name of the last site."""
        return list(self.sites)[-1]

    @property
    def code_dim(self) -> int:
        """Size of the last of several sites; 0 if there is only one site."""
        return self.sites[self.code_site] if len(self.sites) > 1 else 0

    @property
    def latent_dim(self) -> int:
        """Total size of the continuous sites."""
        return sum(size for name, size in self.sites.items() if name not in self.categories)


VARIANT = check.instance(Variant, example="mi.VAE((1, 28, 28))")  # of an argument
