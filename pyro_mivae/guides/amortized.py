"""Guides of any prior: categories, and continuous sites given the data and the categories."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.constraints import sphere
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, OneHotCategorical, constraints

from pyro_mivae.arguments import (
    Given,
    checked,
    checker,
    instance,
    named,
    several,
    shape,
    shown,
    size,
    text,
)
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.guides.families import Family, OnSphere, PointMass, ProbitMeanField
from pyro_mivae.guides.heads import CategoryHead, SiteHead
from pyro_mivae.guides.named import FAMILIES
from pyro_mivae.networks import build_networks, output_dim
from pyro_mivae.networks.layers import NETWORK
from pyro_mivae.priors import base_of, site_size

UNSCORED = (dist.Delta, dist.VonMises, dist.SineBivariateVonMises)  # their support says otherwise


@checker
def _family(given: Given) -> Any:
    """A name, or a class or function that builds a family."""
    value = given.value
    known = value in FAMILIES if isinstance(value, str) else callable(value)
    if not known or isinstance(value, nn.Module):
        raise given.refused(
            f"{', '.join(FAMILIES)}, and classes and functions that build a Family of a size, "
            "such as mi.guides.LowRank"
        )
    return value


class AmortizedGuide(PyroModule):
    r"""The sites of any prior given the data, by one encoder and linear layers.

    .. math:: q(code \mid x) = \prod_k q(c_k \mid x) \prod_s q(z_s \mid x, c)

    Categories (one-hot or by index) are annotated for enumeration. A continuous site is given the
    categories that come before it in the prior. The parameters of its distribution are linear in
    the encoder's features, with a map for each category; the maps of several categories are added.
    A category enters linearly, so a relaxed one-hot vector works too. Continuous sites are
    independent of each other given the categories.

    Args:
        data_shape: Shape of one datum.
        sites: The prior's distribution at each site, as `prior_sites` gives them.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted. With a
            `ConditionalEncoder` the guide is called with data and condition.
        family: Distribution of real sites: a name of `FAMILIES`, or a class or function that
            builds a `Family` of a size. A site on the unit interval is a `ProbitNormal` in each
            coordinate, one on the unit sphere a `PowerSpherical`.
        deterministic: Continuous sites that are a function of the data (a Delta).

    Raises:
        SiteError: If a site has another support, or is a category of another form.
        OptionError: If a deterministic site is not a continuous site of the prior, or no site
            takes the family.

    References:
        Pineau & Lelarge (2018), InfoCatVAE, section 2.1. https://arxiv.org/abs/1806.08240

    Example:
        >>> sites, _ = mi.priors.prior_sites(mi.StandardNormalPrior(latent_dim=3))
        >>> guide = AmortizedGuide((1, 8, 8), sites, family="full-covariance")
        >>> guide.distributions(torch.rand(5, 1, 8, 8))["z"].covariance_matrix.shape
        torch.Size([5, 3, 3])
    """

    @checked(
        data_shape=shape(),
        sites=named(instance(Distribution, example="Normal(0, 1)"), least=1),
        encoder=NETWORK,
        family=_family(),
        deterministic=several(text(), least=0),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        sites: Mapping[str, Any],
        encoder: nn.Module | None = None,
        *,
        family: str | Callable[[int], Family] = "mean-field",
        deterministic: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.encoder = build_networks("auto", data_shape, 1)[0] if encoder is None else encoder
        features = output_dim(self.encoder, data_shape)
        continuous = [name for name, fn in sites.items() if not fn.has_enumerate_support]
        if not set(deterministic) <= set(continuous):
            raise OptionError(
                f"deterministic={list(deterministic)}; allowed are continuous sites of the "
                f"prior, {continuous}"
            )
        make = FAMILIES[family] if isinstance(family, str) else family
        self.names = list(sites)
        heads: list[nn.Module] = []
        categories: dict[str, int] = {}
        used = family == "mean-field"
        for name, fn in sites.items():
            if fn.has_enumerate_support:
                heads.append(_category(name, fn, features))
                categories[name] = site_size(fn)
            else:
                own = PointMass if name in deterministic else _on_support(name, fn, make)
                built = own(site_size(fn))
                if not isinstance(built, Family):
                    raise OptionError(f"family builds {shown(built)}; let it build a Family")
                heads.append(SiteHead(features, built, categories))
                used |= own is make
        if not used:
            raise OptionError(
                f"family={shown(family)}: no site of the prior takes it, as none is on the real "
                f"line; the sites are {list(sites)}: leave the family out"
            )
        self.heads = nn.ModuleList(heads)

    def _features(self, x: Tensor, given: Tensor | None) -> Tensor:
        conditions = () if given is None else (given,)
        if conditions and not hasattr(self.encoder, "given_shape"):
            raise ShapeError(
                f"a condition is given, but the guide's encoder {type(self.encoder).__name__} "
                "takes none; wrap it as mi.networks.ConditionalEncoder(encoder, data_shape, "
                "given_shape)"
            )
        return self.encoder(x, *conditions)

    def forward(self, x: Tensor, given: Tensor | None = None) -> None:
        """Samples the sites, given data ``(batch, *data_shape)`` and their condition."""
        features = self._features(x, given)
        heads = self.heads  # Pyro registers all their parameters each time that they are read
        self._sample(heads, self._outputs(heads, features))

    def local_parameters(self, x: Tensor, given: Tensor | None = None) -> dict[str, Tensor]:
        """Returns the parameters of each datum's posterior: the outputs of the linear layers.

        Args:
            x: Data, shape ``(batch, *data_shape)``.
            given: Their condition, if the encoder is a `ConditionalEncoder`.

        Returns:
            Real numbers by site, or ``site|category`` for one given a category, each of shape
            ``(batch, ...)``; `sample_from` takes them, also changed.
        """
        features = self._features(x, given)  # (batch, features)
        return self._outputs(self.heads, features)

    def _outputs(self, heads: Iterable[nn.Module], features: Tensor) -> dict[str, Tensor]:
        return {
            f"{name}|{category}" if category else name: output
            for name, head in zip(self.names, heads, strict=True)
            for category, output in head(features).items()
        }

    def sample_from(self, parameters: Mapping[str, Tensor]) -> None:
        """Samples the sites, given parameters of each datum as `local_parameters` returns them."""
        self._sample(self.heads, parameters)

    def _sample(self, heads: Iterable[nn.Module], parameters: Mapping[str, Tensor]) -> None:
        categories: dict[str, Tensor] = {}
        with pyro.plate("data", len(next(iter(parameters.values())))):
            for name, head in zip(self.names, heads, strict=True):
                if isinstance(head, CategoryHead):
                    fn = head.given({"": parameters[name]})
                    value = pyro.sample(name, fn, infer={"enumerate": "parallel"})
                    categories[name] = head.as_one_hot(value)
                elif isinstance(head, SiteHead):
                    own = {c: parameters[f"{name}|{c}"] for c in head.categories}
                    pyro.sample(name, head.given(own or {"": parameters[name]}, categories))

    def distributions(self, x: Tensor, given: Tensor | None = None) -> dict[str, Any]:
        """Returns the distribution of each site given data, without a sample.

        A VampPrior needs this: its components are the guide's distributions for pseudo-inputs.

        Args:
            x: Data, shape ``(batch, *data_shape)``.
            given: Their condition, if the encoder is a `ConditionalEncoder`.

        Returns:
            Pyro distributions by site, batch shape ``(batch,)``. For a site that depends on
            categories it is a function: from their one-hot values by site, which broadcast
            against ``(batch, K)``, to the distribution.
        """
        features = self._features(x, given)
        found: dict[str, Any] = {}
        for name, head in zip(self.names, self.heads, strict=True):
            if isinstance(head, CategoryHead):
                found[name] = head.given(head(features))
            elif isinstance(head, SiteHead):
                of_values = partial(head.given, head(features))
                found[name] = of_values if head.categories else of_values({})
        return found


class MeanFieldGuide(AmortizedGuide):
    r"""Independent sites given the data: :math:`q(code \mid x) = \prod_s q(s \mid x)`.

    Args:
        data_shape: Shape of one datum.
        sites: Size of each site, by name.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.
        deterministic: Sites that are a function of the data (a Delta) instead of a Normal.
        bounded: Other sites, on the unit interval: a `ProbitNormal` instead of a Normal.

    Example:
        >>> guide = MeanFieldGuide((1, 8, 8), {"z": 3, "c": 1}, bounded=["c"])
        >>> code = pyro.poutine.trace(guide).get_trace(torch.rand(5, 1, 8, 8)).nodes["c"]["value"]
        >>> code.shape, bool(((code > 0) & (code < 1)).all())
        (torch.Size([5, 1]), True)
    """

    @checked(
        data_shape=shape(),
        sites=named(size(), least=1),
        encoder=NETWORK,
        deterministic=several(text(), least=0),
        bounded=several(text(), least=0),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        sites: Mapping[str, int],
        encoder: nn.Module | None = None,
        deterministic: Collection[str] = (),
        bounded: Collection[str] = (),
    ) -> None:
        both = set(deterministic) & set(bounded)
        if both or not {*deterministic, *bounded} <= set(sites):
            raise OptionError(
                f"sites {list(sites)}, deterministic {list(deterministic)}, bounded "
                f"{list(bounded)}: only existing sites can be deterministic or bounded, and "
                "not both"
            )
        zero, one = torch.zeros(()), torch.ones(())
        elements = {n: (ProbitNormal if n in bounded else dist.Normal)(zero, one) for n in sites}
        fns = {name: elements[name].expand([size]).to_event(1) for name, size in sites.items()}
        super().__init__(data_shape, fns, encoder, deterministic=deterministic)


class MixtureGuide(AmortizedGuide):
    r"""A category given the data, and a Normal given both: :math:`q(c \mid x)\,q(z \mid x, c)`.

    Args:
        data_shape: Shape of one datum.
        num_categories: Number of categories.
        latent_dim: Size of ``z``.
        encoder: From ``(batch, *data_shape)`` to features; a preset if omitted.

    Example:
        >>> vae = mi.VAE((1, 8, 8), prior=mi.MixturePrior(), guide=MixtureGuide((1, 8, 8)))
        >>> vae.encode(torch.rand(4, 1, 8, 8))["c"].shape
        torch.Size([4, 10])
    """

    @checked(data_shape=shape(), num_categories=size(), latent_dim=size(), encoder=NETWORK)
    def __init__(
        self,
        data_shape: Sequence[int],
        num_categories: int = 10,
        latent_dim: int = 20,
        encoder: nn.Module | None = None,
    ) -> None:
        c = dist.OneHotCategorical(logits=torch.zeros(num_categories))
        z = dist.Normal(torch.zeros(()), torch.ones(())).expand([latent_dim]).to_event(1)
        super().__init__(data_shape, {"c": c, "z": z}, encoder)


def _category(name: str, fn: Any, in_features: int) -> CategoryHead:
    if not isinstance(fn, Categorical | OneHotCategorical):
        raise _refused(name, fn)
    return CategoryHead(in_features, site_size(fn), isinstance(fn, OneHotCategorical))


def _on_support(name: str, fn: Any, make: Callable[[int], Family]) -> Callable[[int], Family]:
    """Returns the builder of a site's family, by the support in the prior."""
    if isinstance(base_of(fn), UNSCORED):
        raise SiteError(
            f"site {name!r} is {type(base_of(fn)).__name__} in the prior, which has no density on "
            "the real line: for an angle take mi.SphericalPrior(2) or its site, for a constant no "
            "site"
        )
    try:
        support = fn.support
    except NotImplementedError:  # some flows on the real line do not know theirs
        return make
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if isinstance(support, type(constraints.real)):
        return make
    if support is sphere:
        return OnSphere
    if isinstance(support, type(constraints.unit_interval)):
        ends = torch.as_tensor(support.lower_bound), torch.as_tensor(support.upper_bound)
        if bool((ends[0] == 0).all() and (ends[1] == 1).all()):
            return ProbitMeanField
    raise _refused(name, fn)


def _refused(name: str, fn: Any) -> SiteError:
    return SiteError(
        f"site {name!r} is {type(base_of(fn)).__name__} of shape {tuple(fn.event_shape)} in the "
        "prior; a guide of the library takes sites on the real line, the unit interval or the "
        "unit sphere, and one category per site, as Categorical or OneHotCategorical: draw one of "
        "these and transform it in the prior, or give a guide of your own"
    )
