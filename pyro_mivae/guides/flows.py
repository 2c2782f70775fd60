"""Flows of a site: noise, transformed by networks that read a context of the datum."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineTransform, ConditionalAffineCoupling, Permute
from pyro.nn import ConditionalDenseNN
from torch import Tensor, nn

from pyro_mivae.arguments import checked, size, whole
from pyro_mivae.compat import tree_map
from pyro_mivae.guides.families import Family
from pyro_mivae.networks.layers import location_and_scale
from pyro_mivae.priors.flows import FlowDistribution, import_zuko


class FlowFamily(Family):
    r"""Noise through layers, then scaled and shifted: :math:`z = \mu(x) + \sigma(x)\,T(u; x)`.

    :math:`u \sim N(0, I)`, and the layers of :math:`T` read a context that is linear in the
    features, as :math:`\mu` is. The last layer of each network starts at 0, so an untrained flow
    is the mean field. The networks' outputs are divided by the size, which keeps the first steps
    of training small. A draw and its density together take one pass of the networks.
    Neither the mean nor the KL divergence has a closed form: `encode` takes the mean of 100 draws,
    and the ELBO the density of the draw.

    Args:
        size: Size of the site.
        num_layers: Number of layers; every second one takes the coordinates in reverse order.
        hidden_dim: Width of each layer's network.
        context_dim: Size of the context.
    """

    @checked(
        size=size(), num_layers=whole(least=1, most=100), hidden_dim=size(), context_dim=size()
    )
    def __init__(
        self, size: int, num_layers: int = 2, hidden_dim: int = 64, context_dim: int = 32
    ) -> None:
        super().__init__(size)
        self.hidden_dim, self.context_dim = hidden_dim, context_dim
        self.num_params = 2 * size + context_dim
        orders = [torch.arange(size), torch.arange(size).flip(0)]
        self.layers = nn.ModuleList(self._layer(orders[i % 2]) for i in range(num_layers))
        for layer in self.layers:
            for last in list(layer.parameters())[-2:]:
                nn.init.zeros_(last)

    @abstractmethod
    def _layer(self, order: Tensor) -> nn.Module:
        """Builds a layer that takes the coordinates in an order."""

    @abstractmethod
    def _distribution(self, noise: Any, context: Tensor, affine: Any) -> Any:
        """Returns the distribution of noise after the layers and an affine transform."""

    def forward(self, params: Tensor) -> Any:
        loc, scale = location_and_scale(params[..., : 2 * self.size])
        noise = _Noise(dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)), 1)
        affine = _Affine(loc, scale, event_dim=1, cache_size=1)
        return self._distribution(noise, params[..., 2 * self.size :], affine)


class InverseAutoregressiveFlow(FlowFamily):
    r"""Inverse autoregressive flow, for curved posteriors.

    .. math:: y_i = m_i(u_{<i}, x) + s_i(u_{<i}, x)\,u_i

    The layers are zuko's, which ``pip install 'pyro-mivae[flows]'`` installs. The density of a
    value other than the last draw takes as many passes as there are coordinates. So terms and
    reports that score other values, such as a Barber-Agakov term on the site, are slow.

    References:
        Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow,
        section 4. https://arxiv.org/abs/1606.04934

    Example:
        >>> flow = InverseAutoregressiveFlow(3)
        >>> flow(torch.zeros(5, flow.num_params))().shape
        torch.Size([5, 3])
    """

    def _layer(self, order: Tensor) -> nn.Module:
        zuko = import_zuko("this family of a guide", "'affine-coupling'")
        univariate, shapes = self._univariate(zuko.transforms)
        layer = zuko.flows.MaskedAutoregressiveTransform(
            self.size,
            self.context_dim,
            order=order,
            univariate=univariate,
            shapes=shapes,
            hidden_features=(self.hidden_dim,),
        )
        layer.hyper = _Divided(layer.hyper, self.size)
        return layer

    def _univariate(self, transforms: Any) -> tuple[Any, list[tuple[int, ...]]]:
        """Returns the transform of one coordinate, and the shapes of its parameters."""
        return transforms.MonotonicAffineTransform, [(), ()]

    def _distribution(self, noise: Any, context: Tensor, affine: Any) -> Any:
        from zuko.distributions import NormalizingFlow
        from zuko.transforms import ComposedTransform

        layers = [layer(context) for layer in self.layers]
        # zuko's transforms lead from values to noise, so these layers are inverted ones.
        return _Autoregressive(NormalizingFlow(ComposedTransform(*layers, affine).inv, noise))


class SplineFlow(InverseAutoregressiveFlow):
    r"""Inverse autoregressive flow of monotonic splines, for skewed and peaked posteriors.

    A rational-quadratic spline of 8 bins on [-5, 5] in each coordinate, the identity outside. It
    can have several modes, also in one coordinate. Like `InverseAutoregressiveFlow` it needs zuko,
    and it takes as many passes.

    References:
        Durkan et al. (2019), Neural Spline Flows. https://arxiv.org/abs/1906.04032

    Example:
        >>> SplineFlow(3).num_params > 6  # locations, scales, and the context of the flow
        True
    """

    def _univariate(self, transforms: Any) -> tuple[Any, list[tuple[int, ...]]]:
        return transforms.MonotonicRQSTransform, [(8,), (8,), (7,)]


class CouplingFlow(FlowFamily):
    r"""Affine couplings, for curved posteriors and fast densities of any code.

    The density of any value takes one pass. The layers are Pyro's; nothing else has to be
    installed.

    References:
        Dinh et al. (2017), Density Estimation Using Real NVP. https://arxiv.org/abs/1605.08803

    Example:
        >>> flow = CouplingFlow(3)
        >>> flow(torch.zeros(5, flow.num_params))().shape
        torch.Size([5, 3])
    """

    def _layer(self, order: Tensor) -> nn.Module:
        kept = self.size // 2
        moved = self.size - kept
        network = ConditionalDenseNN(kept, self.context_dim, [self.hidden_dim], [moved, moved])
        return ConditionalAffineCoupling(kept, _Divided(network, self.size))

    def _distribution(self, noise: Any, context: Tensor, affine: Any) -> Any:
        flip = torch.arange(self.size - 1, -1, -1, device=context.device)
        layers: list[Any] = []
        couplings: Any = self.layers
        for layer in couplings:
            layers += [layer.condition(context), Permute(flip)]
        even = len(couplings) // 2 * 2  # the order of the coordinates is that of the noise
        return _Coupled(noise, [*layers[: len(couplings) + even], affine])


class _Divided(nn.Module):
    """A network whose outputs are divided by a number."""

    def __init__(self, network: nn.Module, by: int) -> None:
        super().__init__()
        self.network, self.by = network, by

    def forward(self, *inputs: Tensor, **context: Tensor) -> Any:
        return tree_map(lambda output: output / self.by, self.network(*inputs, **context))


class _Affine(AffineTransform):
    """Keeps the event shape, although location and scale have the batch shape too."""

    def forward_shape(self, shape: Any) -> Any:
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        return shape


class _Noise(dist.Independent):
    """Remembers the last draw."""

    drawn: Tensor

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(_Noise, _instance))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        self.drawn = super().rsample(sample_shape)
        return self.drawn


class _Remembering:
    """A flow that knows what each of its draws would be without the layers."""

    noise: Any
    last: Any  # the affine transform

    def __call__(self, sample_shape: Any = ()) -> Tensor:
        value: Tensor = super().__call__(sample_shape)  # type: ignore[misc]
        self.__dict__.setdefault("_draws", {})[value] = self.noise.drawn
        return value

    def without_layers(self, value: Tensor) -> tuple[Any, Tensor] | None:
        """Returns the Normal that is left without the layers, and its draw by the same noise."""
        noise = self.__dict__.get("_draws", {}).get(value)
        if noise is None:
            return None
        affine, shape = self.last, self.noise.batch_shape + self.noise.event_shape
        normal = dist.Normal(affine.loc, affine.scale).expand(shape).to_event(1)
        return normal, affine.loc + affine.scale * noise


class _Autoregressive(_Remembering, FlowDistribution):
    noise = property(lambda self: self.dist.base)
    last = property(lambda self: self.dist.transform.transforms[0].inv)


class _Coupled(_Remembering, dist.TransformedDistribution):
    """Scores values of any shape that broadcasts, as other distributions do."""

    noise = property(lambda self: self.base_dist)
    last = property(lambda self: self.transforms[-1])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(_Coupled, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        same = value.shape == shape  # the last draw itself, which the layers remember
        return super().log_prob(value if same else value.expand(shape))
