"""A model/guide pair with its objective, and methods to encode, decode and sample."""

from __future__ import annotations

import copy
import inspect
import itertools
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from typing import Any, ClassVar, Self, get_args

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyro_mivae import arguments as check
from pyro_mivae.compat import name_module
from pyro_mivae.elbo import Objective
from pyro_mivae.errors import OptionError, SiteError, nearest
from pyro_mivae.guides import AmortizedGuide
from pyro_mivae.handlers import decode_means, push_forward
from pyro_mivae.likelihoods import LIKELIHOODS, Likelihood
from pyro_mivae.likelihoods.base import decoder_options
from pyro_mivae.memory import build_fitting
from pyro_mivae.models import GenerativeModel, dtype_of
from pyro_mivae.networks import build_networks, output_dim
from pyro_mivae.priors import attach_prior, prior_sites, site_size
from pyro_mivae.variants import checks
from pyro_mivae.variants import options as declared
from pyro_mivae.variants.encoding import ENCODED, Codes, Generated, What, encoded

LEARNED = ("likelihood.scale_unconstrained", "likelihood.df_unconstrained")
_INSTANCES = itertools.count(1)
_CATEGORY = check.either(check.whole(), check.text())


class Variant(PyroModule):
    """A model/guide pair with the objective of one paper.

    The module owns every parameter. It has a unique Pyro name, so variants in one process do not
    share parameters through Pyro's param store.

    Attributes:
        model: The generative model, called with data, as is the attribute ``guide``.
        data_shape: Shape of one datum.
        sites: Size of each site of the code, by name; for a category the number of categories.
        categories: Number of categories of each site that is one, by name.
        noise: Sites that the guide draws from their prior, independently of the data.

    Example:
        >>> isinstance(mi.VAE((1, 8, 8)), Variant)
        True
    """

    name: ClassVar[str]
    batch_norm: ClassVar[bool] = True  # of the networks that it builds
    noise: frozenset[str] = frozenset()
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
            raise OptionError("encoder and guide are both given; a guide contains its own encoder")
        prior = make_prior() if prior is None else prior
        distributions, code_dim = prior_sites(prior)
        self.sites = {name: site_size(fn) for name, fn in distributions.items()}
        discrete = {name: fn for name, fn in distributions.items() if fn.has_enumerate_support}
        self.categories = {name: self.sites[name] for name in discrete}
        self.one_hot = {name: bool(fn.event_dim) for name, fn in discrete.items()}
        if encoder is not None:
            output_dim(encoder, self.data_shape)  # checks it
        likelihood = LIKELIHOODS[likelihood]() if isinstance(likelihood, str) else likelihood
        outputs = decoder_options(likelihood)

        def build() -> tuple[nn.Module, nn.Module]:
            first, last = self.build_networks("auto", self.data_shape, code_dim, **outputs)
            first = first if encoder is None else encoder
            if guide is None:
                first = make_guide(self.data_shape, distributions, first)
            return first if guide is None else guide, last if decoder is None else decoder

        self.guide, decoder = build_fitting(build, checks.SMALLER)
        self.model = GenerativeModel(prior, decoder, likelihood, len(self.data_shape))
        attach_prior(prior, self.guide, likelihood.interval)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), self.evaluating():
            x = self.blank(2)
            checks.check_guide(self.model, self.guide, x, distributions)
            checks.check_decoder(self.model, code_dim, x)

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

    @check.checked(num_steps=check.whole(least=0), label_weight=check.number(least=0, most=1e30))
    def objective(
        self, num_steps: int | None = None, label_weight: float | None = None
    ) -> Objective:
        """Returns the variant's loss for ``pyro.infer.SVI``, with schedules at their start.

        Without ``num_steps``, the length of a training, warm-ups of a share of it are left out.
        With ``label_weight`` the loss takes labels, see `LabelledCategory`.
        """
        objective = self._loss(num_steps)
        if label_weight is not None:
            checks.take_labels(self, objective, label_weight)
        return objective.to(self.device).prepare(self.sites, self.categories)

    @abstractmethod
    def _loss(self, num_steps: int | None) -> Objective:
        """Builds the variant's loss."""

    def initialize(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Prepares the variant from the training data, and its prior if that has ``initialize``.

        Training from a script calls it once, before the first step; `fit` calls it itself. Labels
        (-1 for none) are for a start of the categories.
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
        """Name of the first site that is a category, or None."""
        return next(iter(self.categories), None)

    @property
    def num_categories(self) -> int | None:
        """Number of categories of the first site that is one, or None."""
        return next(iter(self.categories.values()), None)

    @property
    def code_site(self) -> str:
        """Name of the last site."""
        return list(self.sites)[-1]

    @property
    def code_dim(self) -> int:
        """Size of the last of several sites, 0 if there is one."""
        return self.sites[self.code_site] if len(self.sites) > 1 else 0

    @property
    def latent_dim(self) -> int:
        """Total size of the continuous sites."""
        return sum(size for name, size in self.sites.items() if name not in self.categories)

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

    @check.checked(**ENCODED)
    def encode(
        self, x: Any, what: What = "mean", num_draws: int | None = None, *, guide: Any = None
    ) -> Codes:
        """Returns mean, standard deviation or draws of the posterior of each site.

        If a guide has no closed-form mean (a flow, a site that depends on a drawn one), it is the
        mean of 100 draws with a fixed seed: its error is a tenth of the posterior's deviation.

        Args:
            x: Data as `check_data` takes them, shape ``(batch, *data_shape)``.
            what: ``"mean"``, ``"sd"`` or ``"draws"``.
            num_draws: Number of draws of each site, 1 if omitted; only for ``"draws"``.
            guide: A guide of the same sites in place of the variant's, such as a `RefinedGuide`.

        Returns:
            Tensors by site, shape ``(batch, size)``, of draws ``(num_draws, batch, size)``. Those
            of a category are of its one-hot vector: probabilities p, sqrt(p (1 - p)), draws.
        """
        return encoded(self, self.check_data(x), what, num_draws, guide)

    @check.checked(keep=check.either(check.several(check.text(), least=0), check.text()))
    def reconstruct(self, x: Any, keep: Collection[str] | None = None) -> Tensor:
        """Decodes the posterior mean.

        Args:
            x: Data as `check_data` takes them, shape ``(batch, *data_shape)``.
            keep: Sites that keep their posterior mean (a category its most probable value). Every
                other site gets its prior mean given these. All if omitted.

        Returns:
            The likelihood's mean, shape ``(batch, *data_shape)``.
        """
        keep = self.sites if keep is None else [keep] if isinstance(keep, str) else keep
        checks.check_names(self.sites, keep)
        codes = self.encode(x)
        return self.decode({name: codes[name] for name in keep}, len(x))

    @torch.no_grad()
    @check.checked(codes=check.named(check.numbers()), n=check.size())
    def decode(self, codes: Mapping[str, Any], n: int) -> Tensor:
        """Decodes values of sites, with every other site at its prior mean given these.

        Args:
            codes: Values by site, tensors or arrays of shape ``(n, size)``. For a category: its
                indices, integers of shape ``(n,)``, or probabilities, of which the largest counts.
            n: Number of codes.

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
            decoded: Tensor = decode_means(self.model, values)(self.blank(n))
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
    ) -> Tensor:
        """Decodes codes drawn from the prior.

        Args:
            n: Number of samples.
            category: The category of the samples, its number from 0 or its letter from A, as on
                the page of a run; any if omitted. With several sites that are categories, it is of
                the first; ``{"c1": 3, "c2": "A"}`` names them.
            what: ``"mean"`` for the likelihood's mean, ``"data"`` for data drawn from it.

        Returns:
            Shape ``(n, *data_shape)``.
        """
        chosen = checks.chosen_categories(type(self).__name__, self.categories, category)
        values = {name: self._value(name, torch.full((n,), k), n) for name, k in chosen.items()}
        program = push_forward(self.model, None if what == "mean" else lambda fn: fn.sample())
        with self.evaluating():
            sampled: Tensor = poutine.condition(program, values)(self.blank(n))
        return sampled

    def blank(self, n: int) -> Tensor:
        """Returns data of zeros."""
        return torch.zeros(n, *self.data_shape, device=self.device, dtype=self.dtype)

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
        code = one_hot(code, size) if category and self.one_hot[name] else code
        return code.to(self.dtype) if self.one_hot.get(name, True) else code

    def _require(self, **sizes: int | None) -> None:
        """Refuses a given size that differs from that of the given prior."""
        for name, given in sizes.items():
            actual = getattr(self, name) or 0
            defaults = [
                own[name][1].default for own in declared.own_options(type(self)) if name in own
            ]
            if given not in (actual, *defaults):
                raise OptionError(
                    f"{name}={given} is given, but the prior's {name} is {actual}; leave it out, "
                    "or build the prior with it"
                )

    def _need(self, found: object, needed: str) -> None:
        """Refuses a prior that lacks something."""
        if not found:
            told = f"the prior samples {list(self.sites)}; {type(self).__name__} needs {needed}"
            raise SiteError(told)


VARIANT = check.instance(Variant, example="mi.VAE((1, 28, 28))")  # of an argument
