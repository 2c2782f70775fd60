"""Checks of the arguments of a variant, and of whether its parts fit each other."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae.arguments import Checker, instance, shape
from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.networks.checks import NETWORK
from pyro_mivae.priors.base import PRIOR
from pyro_mivae.traces import trace_program

if TYPE_CHECKING:
    from pyro_mivae.variants.base import Variant

PARTS: dict[str, Checker] = {
    "data_shape": shape(),
    "prior": PRIOR,
    "guide": instance(PyroModule, example="mi.MeanFieldGuide(...)"),
    "encoder": NETWORK,
    "decoder": NETWORK,
}
"""Checks of the arguments that variants have in common."""


def check_encoder(encoder: nn.Module, data_shape: tuple[int, ...]) -> None:
    """Checks that an encoder takes data and returns features of each datum."""
    training = encoder.training
    example = next(encoder.parameters(), torch.zeros(()))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features = encoder.eval()(example.new_zeros(2, *data_shape))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ShapeError(
            f"the encoder does not take data of shape (2, {', '.join(map(str, data_shape))}) "
            f"({error}); build it for data of this shape"
        ) from error
    finally:
        encoder.train(training)
    if not isinstance(features, torch.Tensor) or features.dim() != 2 or len(features) != 2:
        got = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features)
        raise ShapeError(
            f"the encoder returns {got} for two data; let it return features of each, shape "
            "(batch, features)"
        )


def check_guide(vae: Variant, prior: Mapping[str, Any]) -> None:
    """Checks that the guide samples the prior's sites in the prior's shapes."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), vae.evaluating():
        guide = trace_program(vae.guide, (vae.blank(2),), {})
        for name, p in prior.items():
            q = guide.nodes[name]["fn"] if name in guide.nodes else p
            if q.event_shape != p.event_shape:
                raise SiteError(
                    f"site {name!r} has shape {tuple(p.event_shape)} in the prior and "
                    f"{tuple(q.event_shape)} in the guide; build both with the same sizes, "
                    "and a category as OneHotCategorical in both"
                )
        vae.code_traces(vae.blank(2))


def check_decoder(vae: Variant, code_dim: int) -> None:
    """Checks that decoder and likelihood take codes to data."""
    leading = (2,) if vae.num_categories is None else (vae.num_categories, 2)
    codes = torch.zeros(*leading, code_dim, device=vae.device, dtype=vae.dtype)
    with torch.no_grad(), vae.evaluating():
        try:
            decoded = vae.model.decoder(codes)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ShapeError(
                f"the decoder does not take codes of shape {tuple(codes.shape)} ({error}); "
                "build it for codes of this size, with any leading dimensions"
            ) from error
        shape = tuple(decoded.shape[len(leading) :])
        if decoded.shape[: len(leading)] != leading or shape != vae.data_shape:
            raise ShapeError(
                f"the decoder returns shape {tuple(decoded.shape)} for codes of shape "
                f"{tuple(codes.shape)}, data_shape is {vae.data_shape}; let it keep leading "
                "dimensions and return one value per element of a datum"
            )
        scored = vae.likelihood(decoded)
        if tuple(scored.batch_shape) != tuple(decoded.shape):
            raise ShapeError(
                f"the likelihood {type(vae.likelihood).__name__} makes a distribution of batch "
                f"shape {tuple(scored.batch_shape)} of a decoder's output of shape "
                f"{tuple(decoded.shape)}; let it keep that shape, without to_event"
            )


def require_sizes(vae: Variant, **given: int | None) -> None:
    """Refuses a size, other than the default, that is given beside a prior of another."""
    for name, size in given.items():
        actual = vae.sites.get(vae.code_site) if name == "code_dim" else getattr(vae, name)
        signatures = (inspect.signature(cls).parameters for cls in type(vae).__mro__[:-1])
        defaults = {own[name].default for own in signatures if name in own}
        if size not in {actual, *defaults}:
            raise OptionError(
                f"{name}={size} is given, and a prior whose {name} is {actual}; leave it out, "
                "or build the prior with it"
            )


def check_weights(vae: Variant, weights: Mapping[str, Tensor] | None = None) -> None:
    """Checks that a variant's weights are finite."""
    wrong = broken_weights(vae, weights)
    if wrong:
        raise OptionError(
            f"{len(wrong)} of the tensors of {type(vae).__name__} hold weights that are NaN or "
            f"infinite ({wrong[0]}, ...): its training broke down; train it anew with a "
            "lower learning rate"
        )


def broken_weights(module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> list[str]:
    """Names the parameters and running statistics of a module that are not finite."""
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
