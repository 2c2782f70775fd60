"""Checks of a variant's arguments, and of its parts against each other."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae.arguments import Checker, choice, either, instance, integers, shape
from pyro_mivae.elbo import MutualInformationELBO, Objective
from pyro_mivae.errors import DataError, OptionError, PyroMivaeError, ShapeError, SiteError
from pyro_mivae.guides import FAMILIES
from pyro_mivae.inputs import as_tensor
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.networks.layers import NETWORK, Decoder, output_shape
from pyro_mivae.priors import PRIOR
from pyro_mivae.priors.base import given_shape_of
from pyro_mivae.sites import check_event
from pyro_mivae.tables import number_of
from pyro_mivae.terms import InformationTerm, LabelledCategory
from pyro_mivae.terms.labelled import check_labels
from pyro_mivae.traces import TracePair, trace_program
from pyro_mivae.variants.options import own_options

SMALLER = (
    "give a smaller latent_dim, fewer categories, or narrower networks of your own as encoder and "
    "decoder"
)
CONTINUOUS = (
    "continuous sites alone, as its term needs the gradient of the draws: use CatVAE or InfoCatVAE"
)
Term = TypeVar("Term", bound=InformationTerm)
PARTS: dict[str, Checker] = {
    "data_shape": shape(),
    "prior": PRIOR,
    "guide": either(
        instance(PyroModule, example=f"mi.MeanFieldGuide(...), or one of {', '.join(FAMILIES)}"),
        choice(*FAMILIES),
    ),
    "encoder": NETWORK,
    "decoder": NETWORK,
    "given_shape": shape(),
}
"""Checks of the parts of all variants."""


def split(latent_dim: int, code_dim: int, *, code: str = "c", least: int = 1) -> int:
    """Returns the size of ``z``: ``latent_dim`` without the other site."""
    if not least <= code_dim < latent_dim:
        raise OptionError(
            f"code_dim={code_dim} of latent_dim={latent_dim}: {code} needs {least} or more "
            "coordinates and must leave z 1 or more"
        )
    return latent_dim - code_dim


def check_treatment(categorical: str, num_decodes: Any, temperature: Any, most: int) -> None:
    """Refuses options that do not apply to a treatment of a category, and too many decodes."""
    for option, given, owners in (
        ("temperature", temperature, ("gumbel", "straight-through")),
        ("num_decodes", num_decodes, ("sample",)),
    ):
        if given is not None and categorical not in owners:
            raise OptionError(
                f"{option}={given} is given with categorical={categorical!r}; leave it out, or "
                f"give categorical={' or '.join(map(repr, owners))}"
            )
    if num_decodes is not None and num_decodes > most:
        raise OptionError(
            f"num_decodes={num_decodes}: allowed are whole numbers from 2 (the most probable "
            f"category, and a draw of the others) to {most}, the number of categories, or of "
            "configurations of several"
        )


def check_names(sites: Collection[str], names: Collection[str]) -> None:
    """Refuses names of sites that the code does not have."""
    unknown = sorted(map(str, set(names) - set(sites)))
    if unknown:
        raise SiteError(f"sites {unknown} given; allowed are the sites of the code, {list(sites)}")


def chosen_categories(
    owner: str, categories: Mapping[str, int], category: int | str | Mapping[str, int | str] | None
) -> dict[str, int]:
    """Returns the numbers of given categories by site; one alone is of the first site."""
    first = next(iter(categories), "")
    named = category if isinstance(category, Mapping) else {first: category}
    chosen = {
        name: _number(index) if isinstance(index, str) else index
        for name, index in named.items()
        if index is not None
    }
    if not chosen.keys() <= categories.keys():
        found = "no categories; leave category out"
        if categories:
            found = f"the categories {list(categories)}; give these"
        raise OptionError(f"category={category}: {owner} has {found}")
    return chosen


def _number(letters: str) -> int:
    if not (letters.isascii() and letters.isalpha()):
        raise OptionError(f"category={letters!r}: allowed are numbers from 0, or letters from A")
    return number_of(letters)


def given_code(name: str, code: Tensor, n: int, size: int, category: bool) -> Tensor:
    """Returns values of a site; for a category its indices, given as such or as probabilities."""
    if category and code.shape == (n, size):
        return code.argmax(-1)
    if category and code.shape == (n,) and not code.is_floating_point():
        wrong = code[(code < 0) | (code >= size)]
        if len(wrong):
            raise OptionError(
                f"category={int(wrong[0])}: allowed are 0 to {size - 1}, the categories of "
                f"{name!r}"
            )
        return code.long()
    if category or code.shape[:1] != (n,) or code.numel() != n * size:
        numbers = f", or its numbers, integers of shape ({n},)" if category else ""
        raise ShapeError(
            f"codes[{name!r}] has dtype {code.dtype} and shape {tuple(code.shape)}; give values "
            f"of shape ({n}, {size}){numbers}"
        )
    return code


def shaped(x: Any, data_shape: tuple[int, ...]) -> Tensor:
    """Returns data of a shape as a tensor."""
    x = as_tensor(x)
    if tuple(x.shape[1:]) != data_shape:
        remedy = "reshape the data, or build the variant with the shape of one datum"
        if x.dim() > 2 and tuple(x.movedim(-1, 1).shape[1:]) == data_shape:
            remedy = "channels come first: give x.movedim(-1, 1), or numpy.moveaxis(x, -1, 1)"
        elif tuple(x.shape) == data_shape:
            remedy += f", {tuple(x.shape[1:])}; a single datum is x[None]"
        needed = ", ".join(["n", *map(str, data_shape)])
        raise ShapeError(f"data of shape {tuple(x.shape)} given, ({needed}) needed; {remedy}")
    if not len(x):
        raise DataError("0 data given; give one or more")
    return x


def take_labels(vae: Any, objective: Objective, weight: Any) -> None:
    """Makes an objective take labels of the variant's category, see `LabelledCategory`.

    Without a weight, one of its terms stays as it is; a new one has the weight 1.
    """
    if vae.category is None or not isinstance(objective, MutualInformationELBO):
        lacks = "no ELBO" if vae.category else "no category"
        raise OptionError(
            f"labels are given, but {type(vae).__name__} has {lacks}, which they need; leave "
            "labels out, or train CatVAE or InfoCatVAE"
        )
    there = any(isinstance(term, LabelledCategory) for term in objective.terms)
    if weight is not None or not there:
        weight = 1.0 if weight is None else weight
        objective.add(LabelledCategory(vae.category, weight=weight))


def given_labels(vae: Any, labels: Any, x: Tensor) -> Tensor | None:
    """Returns labels of data, -1 for none, as integers on their device; None if not given."""
    if labels is None:
        return None
    labels = integers()("labels", labels).long().to(x.device)
    if tuple(labels.shape) != (len(x),):
        raise ShapeError(
            f"labels of shape {tuple(labels.shape)} given for {len(x)} data; give one integer for "
            "each, -1 for no label"
        )
    check_labels(labels, vae.num_categories)
    if not bool((labels >= 0).any()):
        raise DataError("labels hold none, as all are -1; leave labels out")
    return labels


def check_guide(
    model: GenerativeModel, guide: Any, args: tuple[Tensor, ...], prior: Mapping[str, Any]
) -> None:
    """Checks that a guide samples the prior's sites in the prior's shapes."""
    told = "data and their condition, (x, given)" if len(args) > 1 else "data alone, (x)"
    try:
        inspect.signature(guide.forward).bind(*args)
    except TypeError as error:
        raise OptionError(
            f"the guide {type(guide).__name__} is called with {told} ({error}); let its forward "
            "take these"
        ) from None
    nodes = trace_program(guide, args, {}).nodes
    for name, p in prior.items():
        check_event(name, nodes[name]["fn"] if name in nodes else p, p)
    try:
        TracePair.run(code_program(model), guide, args, {}, max_plate_nesting=1)
    except PyroMivaeError:
        raise
    except ValueError as error:
        told = " ".join(str(error).partition("Try one")[0].split())
        raise SiteError(
            f'the guide fails ({told}); let it open pyro.plate("data", len(x)) around its sites, '
            "and end the distribution of a vector by .to_event(1)"
        ) from error
    except RuntimeError as error:
        shapes = {name: tuple(nodes[name]["value"].shape) for name in prior if name in nodes}
        raise SiteError(
            f"the prior fails on the guide's values ({str(error).partition(chr(10))[0]}). "
            f"{list(shapes)} have the shapes {list(shapes.values())}, and a category that is "
            "summed out has a batch dimension of its own on the left: broadcast values before "
            "they are concatenated, as pyro_mivae.priors.join does"
        ) from error


def check_decoder(model: GenerativeModel, code_dim: int, x: Tensor) -> None:
    """Checks that decoder and likelihood take codes to data, and how the decoder is called.

    A decoder that does not treat leading dimensions as it does a batch gets them flattened.
    """
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(2, 3, code_dim, generator=generator).to(x)
    flat, likelihood = codes.flatten(0, 1), model.likelihood
    try:
        decoded = model.decoder(flat)
    except Exception as error:  # a network of a user's own may raise anything
        raise ShapeError(
            f"the decoder does not take codes of shape {tuple(flat.shape)} ({error}); "
            "build it for codes of this size"
        ) from error
    outputs, data_shape = likelihood.num_outputs, tuple(x.shape[1:])
    if tuple(decoded.shape) != (len(flat), *output_shape(data_shape, outputs)):
        each, last = ("one value", "") if outputs == 1 else (f"{outputs} values", ", the last")
        raise ShapeError(
            f"the decoder returns shape {tuple(decoded.shape)} for codes of shape "
            f"{tuple(flat.shape)}, data_shape is {data_shape}; let it return {each} per element "
            f"of a datum, as {type(likelihood).__name__} takes them: shape "
            f"{('batch', *output_shape(data_shape, outputs))}{last and last + ' dimension'}"
        )
    model._flattens = not isinstance(model.decoder, Decoder) and not all(
        _keeps_leading(model.decoder, leading) for leading in (codes, codes.transpose(0, 1))
    )
    try:
        scored = tuple(likelihood(decoded).batch_shape)
    except Exception as error:  # a user's own may raise anything
        told = str(error).partition("\n")[0]
        raise OptionError(
            f"the likelihood {type(likelihood).__name__} fails on a decoder's output of shape "
            f"{tuple(decoded.shape)} ({type(error).__name__}: {told}); let its forward make a "
            "distribution of any real numbers of this shape"
        ) from error
    if scored != (len(flat), *data_shape):
        raise ShapeError(
            f"the likelihood {type(likelihood).__name__} makes a distribution of batch "
            f"shape {scored} of a decoder's output of shape "
            f"{tuple(decoded.shape)}; let it have shape {(len(flat), *data_shape)}, without "
            "to_event"
        )


def check_condition(vae: Any, prior: Any) -> None:
    """Refuses a condition if the variant or its prior compares data of different conditions."""
    read = given_shape_of(prior)
    if read not in (None, vae.given_shape):
        raise OptionError(
            f"given_shape={vae.given_shape}: the prior {type(prior).__name__} reads conditions of "
            f"shape {read}; give both the same shape, or leave given_shape out"
        )
    if vae.given_shape is None:
        return
    if vae.unconditional:
        raise OptionError(
            f"given_shape={vae.given_shape}: {type(vae).__name__} takes no condition, because "
            f"{vae.unconditional}; use a variant whose terms are about one datum, such as VAE"
        )
    if hasattr(prior, "attach"):
        raise OptionError(
            f"given_shape={vae.given_shape}: {type(prior).__name__} reads the guide at inputs of "
            "its own, which have no condition; use another prior"
        )


def check_sizes(vae: Any, **options: float | None) -> None:
    """Refuses options of the variant's own prior that are not those of the given prior."""
    if vae.given.get("prior") is None:
        return
    for name, given in options.items():
        defaults = [own[name][1].default for own in own_options(type(vae)) if name in own]
        if given not in (getattr(vae, name, 0), *defaults):
            actual = f"the prior's {name} is {getattr(vae, name)}" if hasattr(vae, name) else ""
            raise OptionError(
                f"{name}={given} is given, but {actual or 'the prior has its own'}; leave it out, "
                "or build the prior with it"
            )


def need(vae: Any, found: object, needed: str) -> None:
    """Refuses a prior that lacks something."""
    if not found:
        raise SiteError(
            f"the prior samples {list(vae.sites)}; {type(vae).__name__} needs {needed}: give "
            "another prior, or another variant"
        )


def check_store(vae: nn.Module) -> None:
    """Checks that every parameter in Pyro's store is one of the variant's own."""
    owned = set(vae.parameters())
    store = pyro.get_param_store().named_parameters()
    stray = [name for name, parameter in store if parameter not in owned]
    if stray:
        raise SiteError(
            f"parameters {stray} live in Pyro's param store alone, where fit does not train "
            "them; make them attributes (PyroParam) of the prior, guide or network"
        )


def check_networks(vae: nn.Module, networks: Mapping[str, nn.Module]) -> None:
    """Checks that an objective's networks are parts of the variant."""
    owned = set(vae.parameters())
    for name, network in networks.items():
        if not owned.issuperset(network.parameters()):
            raise OptionError(
                f"the network {name!r} of the objective is no part of the {type(vae).__name__}, "
                "so fit does not train or save it; make it one: vae.critic = critic"
            )


def _keeps_leading(decoder: nn.Module, codes: Tensor) -> bool:
    """True if codes with two leading dimensions are decoded as their rows are."""
    rows = decoder(codes.flatten(0, 1))
    try:
        decoded = decoder(codes)
    except Exception:  # also an assertion on the number of dimensions
        return False
    shape = (*codes.shape[:2], *rows.shape[1:])
    return decoded.shape == shape and torch.allclose(decoded.flatten(0, 1), rows, atol=1e-5)


def check_weights(vae: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
    """Checks that a variant's weights are finite."""
    wrong = broken_weights(vae, weights)
    if wrong:
        raise OptionError(
            f"{len(wrong)} of the tensors of {type(vae).__name__} hold weights that are NaN or "
            f"infinite ({wrong[0]}, ...): its training broke down; train it again with a lower "
            "learning rate"
        )


def broken_weights(module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> list[str]:
    """Lists parameters and running statistics of a module that are not finite."""
    own = {name for name, _ in module.named_parameters()}
    watched = {
        name: value
        for name, value in (module.state_dict() if weights is None else weights).items()
        if name in own or name.endswith(("running_mean", "running_var"))
    }
    finite = [value.sum().isfinite() for value in watched.values()]  # 50 times as fast
    if not finite or torch.stack(finite).all():  # one wait for the device
        return []
    return [name for name, value in watched.items() if not value.isfinite().all()]


def restarted(term: Term) -> Term:
    """Copies a term, with its schedule reset; networks and functions are shared."""
    kept = (*term.networks.values(), term.weight.schedule, getattr(term, "function", None))
    return copy.deepcopy(term, {id(part): part for part in kept})
