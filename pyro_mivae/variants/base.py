"""What all variants share: a model/guide pair, its objective, and ways to look into it."""

from __future__ import annotations

import copy
import inspect
import itertools
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyro_mivae.elbo import Objective
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError
from pyro_mivae.guides import MeanFieldGuide
from pyro_mivae.handlers import SubstituteMessenger, decode_means
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.networks import build_networks
from pyro_mivae.priors import prior_sites
from pyro_mivae.traces import TracePair, trace_program
from pyro_mivae.variants.means import posterior_means
from pyro_mivae.variants.parts import find_likelihood, is_bounded, site_size

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
        category: Name of the site that is a category, or None.
        batch_norm: Whether the networks that it builds may normalise by the batch.
        noise: Sites that the guide draws from their prior, whatever the data.
        code_site: The site whose size is the keyword ``code_dim``.
    """

    name: ClassVar[str]
    batch_norm: ClassVar[bool] = True
    noise: ClassVar[frozenset[str]] = frozenset()
    code_site: ClassVar[str] = "c"

    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        prior: Callable[[], Tensor],
        guide: nn.Module | None,
        likelihood: str | Likelihood,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
        build_guide: GuideBuilder | None = None,
    ) -> None:
        """Assembles the pair and checks that it fits.

        Args:
            data_shape: Shape of one datum.
            prior: Samples the code.
            guide: Takes the place of the default guide.
            likelihood: A likelihood or its name.
            encoder: Takes the place of the default guide's encoder.
            decoder: Takes the place of the default decoder.
            build_guide: From the sites and the encoder to the default guide; mean field if
                omitted.

        Raises:
            OptionError: If an encoder is given beside a guide, the guide is no PyroModule, or the
                likelihood is unknown.
            ShapeError: If the decoder does not take the codes to the data's shape.
            SiteError: If model and guide do not sample the same sites in the same shapes.
        """
        super().__init__(self._new_name())
        self.data_shape = tuple(int(n) for n in data_shape)
        if not self.data_shape or min(self.data_shape) < 1:
            raise ShapeError(f"data_shape {self.data_shape}: give the shape of one datum")
        if guide is not None and encoder is not None:
            raise OptionError("encoder and guide are both given; a guide brings its own encoder")
        if guide is not None and not isinstance(guide, PyroModule):
            raise OptionError(
                f"the guide {type(guide).__name__} is no pyro.nn.PyroModule, so that Pyro would "
                "not train it; derive it from PyroModule"
            )
        distributions, code_dim = prior_sites(prior)
        self.sites = {name: site_size(fn) for name, fn in distributions.items()}
        categories = [name for name, fn in distributions.items() if fn.has_enumerate_support]
        self.category = categories[0] if categories else None
        self._bounded = [n for n, fn in distributions.items() if is_bounded(fn)]
        self._one_hot = self.category is not None and bool(distributions[categories[0]].event_dim)
        networks = self.build_networks("auto", self.data_shape, code_dim)
        if guide is None:
            guide = (build_guide or self._mean_field)(self.sites, encoder or networks[0])
        self.model = GenerativeModel(
            prior, decoder or networks[1], find_likelihood(likelihood), len(self.data_shape)
        )
        self.guide = guide
        self._check_guide(distributions)
        self._check_decoder(code_dim)

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
        """Copies the module, with a Pyro name of its own: it would train the original's else."""
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        name = self._new_name()
        for prefix, module in copied.named_modules():
            if isinstance(module, PyroModule):
                module._pyro_name = f"{name}.{prefix}" if prefix else name
        return copied

    def objective(self, num_steps: int | None = None) -> Objective:
        """Returns the variant's loss for ``pyro.infer.SVI``, with schedules at their start.

        Args:
            num_steps: How many steps training will take. Warm-ups that are a share of the
                training need it; without it they are left out.

        Returns:
            The loss.
        """
        objective = self._loss(num_steps)
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

    def optim_args(self, param_name: str) -> dict[str, float]:
        """Returns the optimiser's options of a parameter: ``pyro.optim.Adam(vae.optim_args)``.

        Args:
            param_name: Name of the parameter in Pyro's param store.

        Returns:
            The learning rate.
        """
        return {"lr": 1e-3}

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
        return next(self.parameters()).dtype

    def check_data(self, x: Tensor) -> None:
        """Checks that data fit the variant.

        Args:
            x: Shape ``(n, *data_shape)``, with ``n`` at least 1.

        Raises:
            DataError: If there are none, or values are not finite or outside the support.
            ShapeError: If the shape is another.
        """
        if tuple(x.shape[1:]) != self.data_shape:
            raise ShapeError(
                f"data of shape {tuple(x.shape)} given, n times {self.data_shape} needed; reshape "
                "the data, or build the variant with their data_shape"
            )
        if not len(x):
            raise DataError("no data given; one datum or more is needed")
        self.likelihood.check(x)

    @torch.no_grad()
    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """Returns what the guide says of each datum.

        Args:
            x: Shape ``(batch, *data_shape)``.

        Returns:
            By site, the posterior mean, shape ``(batch, size)``; of a category the probabilities,
            shape ``(batch, num_categories)``. Where a guide has no mean in closed form (a flow, a
            site that depends on a drawn one) it is that of 100 draws, always the same ones: its
            error is a tenth of the posterior's deviation. Torch's generators stay as they are.
        """
        x = x.to(self.device)
        with self._evaluating():
            return posterior_means(lambda: self._code_traces(x), self.device)

    def reconstruct(self, x: Tensor, keep: Collection[str] | None = None) -> Tensor:
        """Decodes the posterior mean.

        Args:
            x: Shape ``(batch, *data_shape)``.
            keep: Sites that keep their posterior mean (a category: its most probable value);
                every other site is put at its prior mean given these. All if omitted.

        Returns:
            The likelihood's mean, shape ``(batch, *data_shape)``.

        Raises:
            SiteError: If ``keep`` names a site that is not in the code.
        """
        codes = self.encode(x)
        if keep is not None:
            self._check_names(keep)
            codes = {name: codes[name] for name in keep}
        return self.decode(codes, len(x))

    @torch.no_grad()
    def decode(self, codes: Mapping[str, Tensor], n: int) -> Tensor:
        """Decodes given sites, with every other site at its prior mean given these.

        Args:
            codes: Values by site, shape ``(n, size)``; probabilities of a category stand for its
                most probable value.
            n: Number of codes.

        Returns:
            The likelihood's mean, shape ``(n, *data_shape)``.

        Raises:
            SiteError: If a site is not in the code.
        """
        self._check_names(codes)
        values = {
            name: self._category_value(code.argmax(-1)) if name == self.category else code
            for name, code in codes.items()
        }
        with self._evaluating():
            decoded: Tensor = decode_means(self.model, values)(self._blank(n))
        return decoded

    @torch.no_grad()
    def sample(self, n: int, category: int | None = None) -> Tensor:
        """Decodes codes drawn from the prior.

        Args:
            n: How many.
            category: The category to draw them from; any if omitted.

        Returns:
            The likelihood's means, shape ``(n, *data_shape)``.

        Raises:
            OptionError: If there are no categories, or not this one, or ``n`` is under 1.
        """
        if n < 1:
            raise OptionError(f"n={n}: 1 or more is needed")
        if category is not None and self.num_categories is None:
            raise OptionError(f"category={category}: {type(self).__name__} has no categories")
        if category is not None and not 0 <= category < (self.num_categories or 0):
            raise OptionError(
                f"category={category}: allowed are 0 to {(self.num_categories or 0) - 1}"
            )

        def latent(name: str, fn: Any) -> Tensor | None:
            if name != self.category or category is None:
                return None
            return self._category_value(torch.full((n,), category, device=self.device))

        with self._evaluating():
            program = SubstituteMessenger(lambda fn: fn.mean, latent)(self.model)
            sampled: Tensor = program(self._blank(n))
        return sampled

    def _code_traces(self, x: Tensor) -> TracePair:
        return TracePair.run(code_program(self.model), self.guide, (x,), {}, max_plate_nesting=1)

    def _category_value(self, index: Tensor) -> Tensor:
        if not self._one_hot:
            return index
        return one_hot(index, self.num_categories or 0).to(self.dtype)

    def _blank(self, n: int) -> Tensor:
        return torch.zeros(n, *self.data_shape, device=self.device, dtype=self.dtype)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode, with a param store of its own."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with pyro.get_param_store().scope():
                yield
        finally:
            for module in training:
                module.training = True

    def _check_names(self, names: Collection[str]) -> None:
        unknown = sorted(set(names) - set(self.sites))
        if unknown:
            raise SiteError(f"sites {unknown} given; the sites of the code are {list(self.sites)}")

    def _check_guide(self, prior: Mapping[str, Any]) -> None:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), self._evaluating():
            guide = trace_program(self.guide, (self._blank(2),), {})
            for name, p in prior.items():
                q = guide.nodes[name]["fn"] if name in guide.nodes else p
                if q.event_shape != p.event_shape:
                    raise SiteError(
                        f"site {name!r} has shape {tuple(p.event_shape)} in the prior and "
                        f"{tuple(q.event_shape)} in the guide; build both with the same sizes, "
                        "and a category as OneHotCategorical in both"
                    )
            self._code_traces(self._blank(2))

    def _check_decoder(self, code_dim: int) -> None:
        leading = (2,) if self.num_categories is None else (self.num_categories, 2)
        codes = torch.zeros(*leading, code_dim, device=self.device, dtype=self.dtype)
        with torch.no_grad(), self._evaluating():
            try:
                decoded = self.model.decoder(codes)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ShapeError(
                    f"the decoder does not take codes of shape {tuple(codes.shape)} ({error}); "
                    "build it for codes of this size, with any leading dimensions"
                ) from error
        shape = tuple(decoded.shape[len(leading) :])
        if decoded.shape[: len(leading)] != leading or shape != self.data_shape:
            raise ShapeError(
                f"the decoder returns shape {tuple(decoded.shape)} for codes of shape "
                f"{tuple(codes.shape)}, data_shape is {self.data_shape}; let it keep leading "
                "dimensions and return one value per element of a datum"
            )

    def _require_sizes(self, **given: int | None) -> None:
        """Refuses a size, other than the default, that is given beside a prior of another."""
        for name, size in given.items():
            actual = self.sites.get(self.code_site) if name == "code_dim" else getattr(self, name)
            signatures = (inspect.signature(cls).parameters for cls in type(self).__mro__[:-1])
            defaults = {own[name].default for own in signatures if name in own}
            if size not in {actual, *defaults}:
                raise OptionError(
                    f"{name}={size} is given, and a prior whose {name} is {actual}; leave it out, "
                    "or build the prior with it"
                )

    def _mean_field(self, sites: Mapping[str, int], encoder: nn.Module) -> nn.Module:
        return MeanFieldGuide(self.data_shape, sites, encoder, bounded=self._bounded)
