"""Checks of the arguments of a variant, and of whether its parts fit each other."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.traces import trace_program

if TYPE_CHECKING:
    from pyro_mivae.variants.base import Variant

WHOLE = frozenset(
    "latent_dim code_dim num_categories decodes warm_start num_particles permutation_seed".split()
)
NUMBERS = frozenset(
    "beta mi_weight marginal_weight continuous_weight start_weight warmup radius temperature "
    "critic_lr regularization_strength critic_regularization_strength".split()
)
EXAMPLES = {
    "prior": "mi.MixturePrior(...)",
    "guide": "mi.MeanFieldGuide(...)",
    "encoder": "torch.nn.Sequential(...)",
    "decoder": "torch.nn.Sequential(...)",
}


def check_arguments(given: Mapping[str, Any]) -> None:
    """Checks the types of a variant's arguments, by their common names.

    Args:
        given: The arguments by name.

    Raises:
        OptionError: If a size is no whole number, a weight no number or schedule, or a part no
            instance.
        ShapeError: If ``data_shape`` is no shape.
    """
    if "data_shape" in given:
        check_shape(given["data_shape"])
    for name in (WHOLE | NUMBERS) & given.keys():
        value = given[name]
        if name in WHOLE and value is not None:
            whole_number(name, value)
        elif name in NUMBERS and value is not None and not callable(value):
            if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
                raise OptionError(f"{name}={value!r}: a number is needed")
    for name in EXAMPLES.keys() & given.keys():
        _check_part(name, given[name])


def check_shape(data_shape: Any) -> tuple[int, ...]:
    """Returns the shape of one datum as a tuple.

    Args:
        data_shape: One or more whole numbers from 1 up.

    Raises:
        ShapeError: If it is something else.
    """
    try:
        shape = tuple(operator.index(n) for n in data_shape)
    except TypeError:
        hint = f", ({data_shape},) for a vector" if isinstance(data_shape, int) else ""
        raise ShapeError(
            f"data_shape={data_shape!r}: give the shape of one datum as whole numbers{hint}, such "
            "as (1, 28, 28) for an image"
        ) from None
    if not shape or min(shape) < 1:
        raise ShapeError(f"data_shape {shape}: give the shape of one datum, 1 or more each")
    return shape


def whole_number(name: str, value: Any) -> int:
    """Returns a whole number as an ``int``.

    Args:
        name: Its name, for the message.
        value: The number, of Python's or of NumPy's.

    Raises:
        OptionError: If it is none.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise OptionError(f"{name}={value!r}: a whole number is needed") from None


def _check_part(name: str, part: Any) -> None:
    if isinstance(part, str):
        raise OptionError(
            f"{name}={part!r} is a name, as the command line takes it; give an instance, such as "
            f"{EXAMPLES[name]}"
        )
    if inspect.isclass(part):
        raise OptionError(
            f"{name}={part.__name__} is a class; give an instance, {part.__name__}(...)"
        )
    if name in ("encoder", "decoder") and part is not None and not isinstance(part, nn.Module):
        raise OptionError(
            f"{name} is a {type(part).__name__}; give a torch.nn.Module, whose parameters can be "
            "trained"
        )
    if part is not None and not callable(part):
        raise OptionError(
            f"{name} is a {type(part).__name__}; give an instance, such as {EXAMPLES[name]}"
        )


def check_encoder(encoder: nn.Module, data_shape: tuple[int, ...]) -> None:
    """Checks that an encoder takes data and returns features of each datum.

    Args:
        encoder: From ``(batch, *data_shape)`` to ``(batch, features)``.
        data_shape: Shape of one datum.

    Raises:
        ShapeError: If it does not.
    """
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
    """Checks that the guide samples the prior's sites in the prior's shapes.

    Args:
        vae: The variant.
        prior: The distributions of the prior's sites.

    Raises:
        SiteError: If it does not.
    """
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
    """Checks that decoder and likelihood take codes to data.

    Args:
        vae: The variant.
        code_dim: Size of the code.

    Raises:
        ShapeError: If they do not.
    """
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
    """Refuses a size, other than the default, that is given beside a prior of another.

    Args:
        vae: The variant.
        **given: Sizes by keyword.

    Raises:
        OptionError: If one differs.
    """
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
    """Checks that a variant's weights are finite.

    Args:
        vae: The variant.
        weights: A ``state_dict`` for it; its own if omitted.

    Raises:
        OptionError: If some are not.
    """
    wrong = broken_weights(vae, weights)
    if wrong:
        raise OptionError(
            f"{len(wrong)} of the tensors of {type(vae).__name__} hold weights that are NaN or "
            f"infinite ({wrong[0]}, ...): its training broke down; train it anew with a "
            "lower learning rate"
        )


def broken_weights(module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> list[str]:
    """Names the parameters and running statistics of a module that are not finite.

    Args:
        module: The module; other buffers may hold infinities on purpose, as masks do.
        weights: A ``state_dict`` for it; its own if omitted.
    """
    own = {name for name, _ in module.named_parameters()}
    return [
        name
        for name, value in (module.state_dict() if weights is None else weights).items()
        if (name in own or name.endswith(("running_mean", "running_var")))
        if not value.sum().isfinite() and not value.isfinite().all()  # a sum is 50 times as fast
    ]
