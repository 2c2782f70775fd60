"""A model/guide pair with its objective, and methods to encode, decode and sample."""

from __future__ import annotations

import copy
import inspect
import itertools
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any, ClassVar, Self

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyro_mivae import arguments as check
from pyro_mivae.compat import name_module
from pyro_mivae.elbo import Objective
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError, nearest
from pyro_mivae.guides import mean_field_guide
from pyro_mivae.handlers import decode_means, push_forward
from pyro_mivae.inputs import as_tensor
from pyro_mivae.likelihoods import LIKELIHOODS, Likelihood
from pyro_mivae.memory import build_fitting
from pyro_mivae.models import GenerativeModel, code_program, dtype_of
from pyro_mivae.networks import build_networks, output_dim
from pyro_mivae.priors import prior_sites, site_size
from pyro_mivae.traces import MEAN_DRAWS, MEAN_SEED, TracePair, is_deterministic
from pyro_mivae.variants import checks
from pyro_mivae.variants import options as declared

SCALE = "likelihood.scale_unconstrained"
_INSTANCES = itertools.count(1)


class Variant(PyroModule):
    """A model/guide pair with the objective of one paper.

    The module owns every parameter. It has a unique Pyro name, so variants in one process do not
    share parameters through Pyro's param store.

    Attributes:
        model: The generative model, called with data.
        guide: The guide, called with data.
        data_shape: Shape of one datum.
        sites: Size of each site of the code, by name; for a category the number of categories.
        category: Name of the first site that is a category, or None.
        noise: Sites that the guide draws from their prior, independently of the data.
    """

    name: ClassVar[str]
    batch_norm: ClassVar[bool] = True  # of the networks that it builds
    noise: ClassVar[frozenset[str]] = frozenset()
    code_site: ClassVar[str] = "c"  # its size is the keyword code_dim
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
        make_guide: declared.GuideBuilder = mean_field_guide,
        *,
        likelihood: declared.LikelihoodLike = "bernoulli",
        prior: declared.Prior | None = None,
        guide: nn.Module | None = None,
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
        if guide is not None and encoder is not None:
            raise OptionError("encoder and guide are both given; a guide contains its own encoder")
        prior = make_prior() if prior is None else prior
        distributions, code_dim = prior_sites(prior)
        self.sites = {name: site_size(fn) for name, fn in distributions.items()}
        categories = [name for name, fn in distributions.items() if fn.has_enumerate_support]
        self.category = categories[0] if categories else None
        self.one_hot = {name: bool(distributions[name].event_dim) for name in categories}
        if encoder is not None:
            output_dim(encoder, self.data_shape)  # checks it

        def build() -> tuple[nn.Module, nn.Module]:
            first, last = self.build_networks("auto", self.data_shape, code_dim)
            first = first if encoder is None else encoder
            if guide is None:
                first = make_guide(self.data_shape, distributions, first)
            return first if guide is None else guide, last if decoder is None else decoder

        self.guide, decoder = build_fitting(build, checks.SMALLER)
        if isinstance(likelihood, str):
            likelihood = LIKELIHOODS[likelihood]()
        self.model = GenerativeModel(prior, decoder, likelihood, len(self.data_shape))
        leading = (2,) if self.num_categories is None else (self.num_categories, 2)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), self.evaluating():
            x = self.blank(2)
            checks.check_guide(self.model, self.guide, x, distributions)
            checks.check_decoder(self.model, x.new_zeros(*leading, code_dim), self.data_shape)

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
        cls, kind: str, data_shape: Sequence[int], code_dim: int
    ) -> tuple[nn.Module, nn.Module]:
        """Builds an encoder and a decoder of the variant, see `build_networks`."""
        return build_networks(kind, data_shape, code_dim, batch_norm=cls.batch_norm)

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

    @check.checked(num_steps=check.whole(least=0))
    def objective(self, num_steps: int | None = None) -> Objective:
        """Returns the variant's loss for ``pyro.infer.SVI``, with schedules at their start.

        Without ``num_steps``, the length of a training, warm-ups of a share of it are left out.
        """
        return self.adopt(self._loss(num_steps))

    def adopt(self, objective: Objective) -> Objective:
        """Moves an objective to the variant's device, and sets its sites and plates."""
        objective.to(self.device)
        objective.latent = tuple(self.sites)
        in_a_plate = objective.vectorize_particles and objective.num_particles > 1
        objective.max_plate_nesting = 1 + in_a_plate
        return objective

    @abstractmethod
    def _loss(self, num_steps: int | None) -> Objective:
        """Builds the variant's loss."""

    def initialize(self, x: Tensor) -> None:
        """Prepares parameters from the training data, if the variant needs that."""

    @check.checked(param_name=check.text())
    def optim_args(self, param_name: str) -> dict[str, Any]:
        """Returns the optimiser's options of a parameter: ``pyro.optim.Adam(vae.optim_args)``.

        A likelihood's scale is one number that may have to change far: it has ten times the rate.
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
        """Number of categories, or None."""
        return None if self.category is None else self.sites[self.category]

    @property
    def latent_dim(self) -> int:
        """Total size of the continuous sites."""
        return sum(size for name, size in self.sites.items() if name != self.category)

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
            x: A tensor or NumPy array of any dtype, shape ``(n, *data_shape)``, ``n`` at least 1.
                Bytes from 0 to 255 are not rescaled; a likelihood on [0, 1] refuses them.

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
        """Returns the posterior mean of each site.

        If a guide has no closed-form mean (a flow, a site that depends on a drawn one), it is the
        mean of 100 draws with a fixed seed: its error is a tenth of the posterior's deviation.

        Args:
            x: Data as `check_data` takes them, shape ``(batch, *data_shape)``.

        Returns:
            Tensors by site, shape ``(batch, size)``; probabilities of a category.
        """
        x, prior = self.check_data(x).to(self.device), code_program(self.model)
        with self.evaluating():
            return _posterior_means(
                lambda: TracePair.run(prior, self.guide, (x,), {}, max_plate_nesting=1), x.device
            )

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
        self._check_names(keep)
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
        self._check_names(codes)
        values = {name: self._value(name, code, n) for name, code in codes.items()}
        with self.evaluating():
            decoded: Tensor = decode_means(self.model, values)(self.blank(n))
        return decoded

    @torch.no_grad()
    @check.checked(n=check.size(), category=check.whole())
    def sample(self, n: int, category: int | None = None) -> Tensor:
        """Decodes codes drawn from the prior.

        Args:
            n: Number of samples.
            category: The category of the samples; any if omitted.

        Returns:
            The likelihood's means, shape ``(n, *data_shape)``.
        """
        if category is not None and self.num_categories is None:
            raise OptionError(f"category={category}: {type(self).__name__} has no categories")
        chosen = {} if category is None else {str(self.category): torch.full((n,), category)}
        chosen = {name: self._value(name, code, n) for name, code in chosen.items()}
        with self.evaluating():
            sampled: Tensor = poutine.condition(push_forward(self.model), chosen)(self.blank(n))
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
            code_dim = self.sites.get(self.code_site)
            actual = (code_dim if name == "code_dim" else getattr(self, name)) or 0
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
            raise SiteError(
                f"the prior samples {list(self.sites)}; {type(self).__name__} needs {needed}"
            )

    def _check_names(self, names: Collection[str]) -> None:
        unknown = sorted(map(str, set(names) - set(self.sites)))
        if unknown:
            raise SiteError(f"sites {unknown} given; the sites of the code are {list(self.sites)}")


def _posterior_means(run: Callable[[], TracePair], device: torch.device) -> dict[str, Tensor]:
    """Returns the mean of every site over several runs of the guide."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(MEAN_SEED)
        traces = run()
        runs = [_means(traces)]
        fixed = [name for name in traces.latent if is_deterministic(traces.guide.nodes[name])]
        noisy = [name not in (*traces.enumerated, *fixed) for name in traces.latent]
        if traces.auxiliary or any(noisy[:-1]):  # a site comes after a drawn one
            runs.append(_means(run()))
            if any(not torch.allclose(runs[0][n], runs[1][n], equal_nan=True) for n in runs[0]):
                runs += [_means(run()) for _ in range(MEAN_DRAWS - 2)]
                return {name: torch.stack([m[name] for m in runs]).mean(0) for name in runs[0]}
    return runs[0]


def _means(traces: TracePair) -> dict[str, Tensor]:
    return {name: traces.marginal_mean(name) for name in traces.latent}


VARIANT = check.instance(Variant, example="mi.VAE((1, 28, 28))")
"""A check of an argument: a variant."""
