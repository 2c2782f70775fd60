"""Variants with other parts than their own: the losses, per datum, in plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import batch_norm, binary_cross_entropy_with_logits, softplus

from benchmarks.handwritten.gaussian import VAE, cross_entropy, draw
from pyro_mivae.networks.layers import MIN_SCALE

KINDS, SHADES, STYLE = 10, 2, 20
LOG_SLOPE = math.log(1e-3)  # of zuko's smallest scale


def log_density_of_draw(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log-density of a Normal by coordinate, but for a constant, without the score."""
    loc, scale = loc.detach(), scale.detach()
    return -0.5 * ((z - loc) / scale).square() - scale.log()


class FlowVAE(VAE):
    """The loss of a VAE with an inverse autoregressive flow as its guide, of zuko's networks."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        family = vae.guide.heads[0].family
        self.size, self.networks = family.size, nn.ModuleList(f.hyper for f in family.layers)

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        loc, raw, context = self.head.linear(self.encoder(x)).split(
            [self.size, self.size, self.head.linear.out_features - 2 * self.size], 1
        )
        noise = torch.randn_like(loc)
        z, volume = noise, torch.zeros_like(loc)
        for network in self.networks:
            shift, raw_slope = network(torch.cat([z, context], 1)).unflatten(1, (-1, 2)).unbind(2)
            slope = raw_slope / (1 + (raw_slope / LOG_SLOPE).abs())
            z, volume = z * slope.exp() + shift, volume + slope
        scale = softplus(raw) + MIN_SCALE
        log_q = log_density_of_draw(loc + scale * noise, loc, scale) - volume
        z = loc + scale * z
        rate = log_q + 0.5 * z.square()
        return (cross_entropy(self.decoder(z), x) + rate.sum()) / len(x)


class FullCovarianceVAE(VAE):
    """The loss of a VAE whose guide is a Normal with any covariance."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        size = vae.guide.heads[0].family.size
        self.register_buffer("below", torch.tril_indices(size, size, -1))
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        params = self.head.linear(self.encoder(x))
        loc, raw = params[:, : 2 * self.size].chunk(2, 1)
        scale = softplus(raw) + MIN_SCALE
        factor = torch.diag_embed(scale)
        rows = torch.arange(len(x), device=x.device)[:, None]
        entries = params[:, 2 * self.size :] * (scale / self.size)[:, self.below[0]]
        factor = factor.index_put((rows, *self.below[:, None]), entries)
        noise = torch.randn_like(loc)
        z = loc + (factor @ noise[:, :, None])[:, :, 0]
        rate = 0.5 * (factor.square().sum() + loc.square().sum() - loc.numel()) - scale.log().sum()
        return (cross_entropy(self.decoder(z), x) + rate) / len(x)


class VampVAE(VAE):
    """The loss of a VAE whose prior is a mixture of the posteriors of learned pseudo-inputs."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.prior = vae.prior

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        loc, scale = self.head(self.encoder(x))
        z = draw(loc, scale)
        centres, spreads = self.head(self.in_evaluation(self.prior.pseudo_inputs.clamp(0, 1)))
        middle = centres.detach().double().mean(0)
        place, centres, spreads = z.double() - middle, centres.double() - middle, spreads.double()
        precision = spreads.square().reciprocal()
        constant = (0.5 * precision * centres.square() + spreads.log()).sum(1)
        squares = 0.5 * place.square() @ precision.T - place @ (precision * centres).T
        each = (-squares - constant).to(z.dtype)  # (batch, components)
        log_p = each.logsumexp(1) - math.log(len(centres))
        log_q = log_density_of_draw(z, loc, scale).sum(1)
        return (cross_entropy(self.decoder(z), x) + (log_q - log_p).sum()) / len(x)

    def in_evaluation(self, x: Tensor) -> Tensor:
        """The encoder of an MLP, with the running statistics of batch norm."""
        x = x.flatten(1)
        for layer in self.encoder.layers:
            if isinstance(layer, nn.BatchNorm1d):
                mean, variance = layer.running_mean, layer.running_var
                x = batch_norm(x, mean, variance, layer.weight, layer.bias, eps=layer.eps)
            else:
                x = layer(x)
        return x


class TwoCategories(PyroModule):
    """Two categories, and a style whose mean is the sum of one vector for each."""

    def __init__(self) -> None:
        super().__init__()
        self.of_kind = nn.Parameter(torch.randn(KINDS, STYLE))
        self.of_shade = nn.Parameter(torch.randn(SHADES, STYLE))

    def forward(self) -> Tensor:
        """Samples the sites, returns the style."""
        zeros = self.of_kind.new_zeros(KINDS)
        kind = pyro.sample("kind", dist.OneHotCategorical(logits=zeros))
        shade = pyro.sample("shade", dist.OneHotCategorical(logits=zeros[:SHADES]))
        mean = kind @ self.of_kind + shade @ self.of_shade
        style: Tensor = pyro.sample("style", dist.Normal(mean, torch.ones_like(mean)).to_event(1))
        return style


class TwoCategoriesVAE(nn.Module):
    """The loss of a VAE of two categories, decoded for all pairs of them in one batch."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        kind, shade, style = vae.guide.heads
        self.encoder, self.decoder = vae.guide.encoder, vae.model.decoder
        self.kind, self.shade = kind.linear, shade.linear
        self.of_kind, self.of_shade = style.maps
        self.prior = vae.prior

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        features = self.encoder(x)
        log_kind, log_shade = (
            self.kind(features).log_softmax(1),
            self.shade(features).log_softmax(1),
        )
        of_kind = self.of_kind(features).unflatten(1, (KINDS, -1)).transpose(0, 1)
        of_shade = self.of_shade(features).unflatten(1, (SHADES, -1)).transpose(0, 1)
        loc, raw = (of_kind + of_shade[:, None]).chunk(2, 3)  # (SHADES, KINDS, batch, STYLE)
        scale = softplus(raw) + MIN_SCALE
        z = loc + scale * torch.randn(scale.shape, dtype=x.dtype, device=x.device)
        means = (self.prior.of_kind + self.prior.of_shade[:, None])[:, :, None]
        rates = (0.5 * ((loc - means).square() + scale.square() - 1) - scale.log()).sum(3)
        logits = self.decoder(z)
        errors = binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        costs = errors.flatten(3).sum(3) + rates  # (SHADES, KINDS, batch)
        joint = log_kind.T + log_shade.T[:, None]
        total = (joint.exp() * (costs + joint)).sum() / len(x)
        return total + math.log(KINDS * SHADES)
