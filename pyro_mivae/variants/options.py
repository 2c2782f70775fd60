"""Options of the variants: type, check and help of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_args, get_type_hints

from torch import Tensor, nn

from pyro_mivae import arguments as check
from pyro_mivae.likelihoods import LIKELIHOODS, Likelihood
from pyro_mivae.networks import CRITICS, Critic
from pyro_mivae.options import option
from pyro_mivae.schedules import Schedule, Target
from pyro_mivae.schedules import weight as weight_or_target
from pyro_mivae.terms import CriticBound, Generation
from pyro_mivae.terms.critic import CriticBoundName
from pyro_mivae.terms.in_batch import Kernel
from pyro_mivae.variants.warm_start import CategoryStart

Categorical = Literal[
    "auto", "enumerate", "sample", "soft", "gumbel", "straight-through", "score-function"
]
Prior = Callable[..., Tensor]
GuideBuilder = Callable[[Sequence[int], Mapping[str, Any], nn.Module], nn.Module]
"""Makes a guide from the shape of one datum, the prior's distributions by site, and an encoder."""
Constructor = TypeVar("Constructor", bound=Callable[..., None])


class Networks(TypedDict, total=False):
    """Parts of any variant, by keyword; a given part replaces the default."""

    prior: Prior | None
    guide: str | nn.Module | None
    encoder: nn.Module | None
    decoder: nn.Module | None
    given_shape: Sequence[int] | None


class Parts(Networks, total=False):
    """Parts of a variant that has an ELBO."""

    likelihood: str | Likelihood


class SizedParts(Parts, total=False):
    """Arguments of `VAE`."""

    latent_dim: int


class CategoryParts(Parts, total=False):
    """Arguments of `CatVAE`."""

    num_categories: int
    latent_dim: int | None
    radius: float
    categorical: Categorical
    num_decodes: int | None
    temperature: float | Schedule | None
    warm_start: int | CategoryStart | None


def _name_or(instance: check.Checker, names: Any, help: str) -> Any:
    return option(check=_either(names, instance), names=tuple(names), help=help)


@check.checker
def _either(given: check.Given, names: Any, instance: check.Checker) -> Any:
    """A name, or an instance; the refusal is about the kind that is given."""
    wanted = check.choice(*names) if isinstance(given.value, str) else instance
    return wanted(given.name, given.value)


@check.checker
def _fixed(given: check.Given, *, most: float) -> float:
    """Numbers of InfoVAE, which make two weights together."""
    if isinstance(given.value, Target) or callable(given.value):
        raise given.refused(
            "numbers, as two weights are made of it; hold a divergence or a term by "
            "fit(objective=mi.MutualInformationELBO([mi.MaximumMeanDiscrepancy('z', weight=...)], "
            "{'z': mi.Target(...)}))"
        )
    return check.number(least=-check.LARGEST_WEIGHT, most=most)(given.name, given.value)


_COUNT, _WEIGHT = check.size(least=0), weight_or_target(least=0)
_LIKELIHOOD = check.instance(Likelihood, example="mi.GaussianLikelihood(0.1)")
_CRITIC = check.instance(Critic, CriticBound, example="mi.build_critic(...)")
_START = check.instance(CategoryStart, example="mi.CategoryStart(900)")
_OF_TERM = "weight of the information term, per image"

LatentDim = Annotated[int, option(check=check.size(), help="size of the continuous code")]
CodeDim = Annotated[int, option(check=_COUNT, help="size of site c, or of InfoGAN's site u")]
NumCategories = Annotated[
    int, option(check=_COUNT, help="number of categories", flag="--categories")
]
LikelihoodLike = Annotated[
    str | Likelihood,
    _name_or(_LIKELIHOOD, LIKELIHOODS, "likelihood of the data, or FILE.py:NAME of your own"),
]
Beta = Annotated[
    float | Schedule | Target, option(check=_WEIGHT, help="weight of the KL divergence")
]
MIWeight = Annotated[float | Schedule | Target, option(check=_WEIGHT, help=_OF_TERM)]
SignedMIWeight = Annotated[float, option(check=_fixed(most=1), help=_OF_TERM)]
MarginalWeight = Annotated[
    float,
    option(
        check=_fixed(most=check.LARGEST_WEIGHT), help="weight that keeps q(z) close to the prior"
    ),
]
ContinuousWeight = Annotated[
    float | Schedule | Target,
    option(check=_WEIGHT, help=("weight of the information in InfoGAN's uniform codes")),
]
KernelName = Annotated[Kernel, option(names=get_args(Kernel), help="kernel of the discrepancy")]
Deterministic = Annotated[bool, option(check=check.flag(), help="make c a function of the image")]
Saturating = Annotated[
    bool, option(check=check.flag(), help="the generator of InfoGAN minimises V itself")
]
Sites = Annotated[
    str | Collection[str],
    option(
        check=check.either(check.several(check.text(), least=0), check.text()),
        help="site that the information term is about, or all",
    ),
]
Generated = Annotated[
    Generation, option(names=get_args(Generation), help="generated data that this term reads")
]
Bound = Annotated[
    CriticBoundName, option(names=get_args(CriticBoundName), help="the critic's bound")
]
CriticLike = Annotated[str | Critic | CriticBound, _name_or(_CRITIC, CRITICS, "the critic")]
CriticLR = Annotated[
    float,
    option(
        check=check.number(above=0),
        help=("learning rate of the critic, if that of the model is 1e-3"),
    ),
]
Radius = Annotated[
    float, option(check=check.number(least=0), help="distance of the categories from the origin")
]
CategoricalName = Annotated[
    Categorical, option(names=get_args(Categorical), help="treatment of categories")
]
NumDecodes = Annotated[
    int,
    option(check=check.size(least=2), help="number of categories that sample decodes per image"),
]
Temperature = Annotated[
    float | Schedule,
    option(check=check.number_or_schedule(above=0), help="temperature of the relaxed category"),
]
WarmStart = Annotated[
    int | CategoryStart,
    option(check=check.either(check.whole(least=0), _START), help="steps of each start"),
]


def takes_target(hint: Any) -> bool:
    """True for the type of an option that may be a `Target`."""
    return hint is Target or any(map(takes_target, get_args(hint)))


def copied(declared: Field[Any], default: Any = MISSING) -> Any:
    """Copies the field of an option, for another dataclass."""
    default = declared.default if default is MISSING else default
    return field(default=default, metadata=declared.metadata)


def checked_options(**checks: check.Checker) -> Callable[[Constructor], Constructor]:
    """Makes a constructor check its options, and its arguments by further checks.

    It stores type and field of each option as ``own_options``.
    """

    def decorate(constructor: Constructor) -> Constructor:
        parameters = inspect.signature(constructor).parameters
        own = {
            name: (hint, copied(declared, parameters[name].default))
            for name, hint in get_type_hints(constructor, include_extras=True).items()
            for part in (hint, *get_args(hint))  # also of an optional type
            for declared in getattr(part, "__metadata__", ())
        }
        of_own = {name: declared.metadata["check"] for name, (_, declared) in own.items()}
        decorated = check.checked(**checks, **of_own)(constructor)
        vars(decorated)["own_options"] = own
        return decorated

    return decorate


def own_options(variant: type) -> list[dict[str, Any]]:
    """Returns type and field of the options of all constructors, the class's own first."""
    constructors = [vars(parent).get("__init__") for parent in variant.__mro__]
    return [getattr(constructor, "own_options", {}) for constructor in constructors]


@cache
def options_of(variant: Any) -> type:
    """Returns a dataclass of the options of a variant that a command or a file may set."""
    found: dict[str, Any] = {}
    groups = variant.groups.values()
    of_groups = [
        {f.name: (get_type_hints(group)[f.name], copied(f)) for f in fields(group)}
        for group in groups
    ]
    for own in (*own_options(variant), *of_groups):
        found |= {name: option for name, option in own.items() if name not in found}
    kept = [(name, *option) for name, option in found.items() if name not in variant.refused]
    return make_dataclass(f"{variant.__name__}Options", kept)
