"""Variants with Gaussian codes: the losses, per datum, in plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from pyro_mivae.networks.layers import MIN_SCALE


class Head(nn.Module):
    """Mean and standard deviation of a site, by the linear map of a variant's guide."""

    def __init__(self, vae: Any, site: int = 0) -> None:
        super().__init__()
        (self.linear,) = vae.guide.heads[site].maps

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """From features to both."""
        loc, raw = self.linear(features).chunk(2, 1)
        return loc, softplus(raw) + MIN_SCALE


def draw(loc: Tensor, scale: Tensor) -> Tensor:
    """Draws from a Normal, with the gradient of both parameters."""
    return loc + scale * torch.randn_like(loc)


def divergence(loc: Tensor, scale: Tensor) -> Tensor:
    """KL divergence from N(0, I), summed over all elements."""
    return (0.5 * (loc.square() + scale.square() - 1) - scale.log()).sum()


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    """Reconstruction error of a Bernoulli likelihood, summed over all elements."""
    return binary_cross_entropy_with_logits(logits, x, reduction="sum")


class VAE(nn.Module):
    """The loss of a VAE."""

    beta = 1.0

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = vae.guide.encoder, vae.model.decoder
        self.head = Head(vae)

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        loc, scale = self.head(self.encoder(x))
        error = cross_entropy(self.decoder(draw(loc, scale)), x)
        return (error + self.beta * divergence(loc, scale)) / len(x)


class BetaVAE(VAE):
    """The loss of a VAE whose KL divergence has a weight."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.beta = vae.beta


class InfomaxVAE(nn.Module):
    """The loss of a VAE with a second code whose KL divergence is left out."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = vae.guide.encoder, vae.model.decoder
        self.head_z, self.head_c = Head(vae), Head(vae, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        features = self.encoder(x)
        loc, scale = self.head_z(features)
        z, c = draw(loc, scale), draw(*self.head_c(features))
        error = cross_entropy(self.decoder(torch.cat([z, c], 1)), x)
        return (error + divergence(loc, scale)) / len(x)


class MMDVAE(VAE):
    """The loss of an autoencoder whose codes are drawn to the prior by their discrepancy."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.beta = 1 - vae.mi_weight
        self.weight = vae.mi_weight + vae.marginal_weight - 1

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        loc, scale = self.head(self.encoder(x))
        z = draw(loc, scale)
        loss = cross_entropy(self.decoder(z), x) / len(x)
        if self.beta:
            loss = loss + self.beta * divergence(loc, scale) / len(x)
        return loss + self.weight * discrepancy(z, torch.randn_like(z))


def discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """Squared maximum mean discrepancy with the kernel exp(-|a - b|^2 / 2d)."""
    n, dim = a.shape
    halves_a, halves_b = 0.5 * a.square().sum(1), 0.5 * b.square().sum(1)

    def total(x: Tensor, y: Tensor, halves_x: Tensor, halves_y: Tensor) -> Tensor:
        return ((x @ y.T - halves_x[:, None] - halves_y) / dim).exp().sum()

    within = total(a, a, halves_a, halves_a) + total(b, b, halves_b, halves_b) - 2 * n
    return within / (n * (n - 1)) - 2 * total(a, b, halves_a, halves_b) / n**2


class VMIVAE(InfomaxVAE):
    """The loss of a VAE whose code c is to be read off what it generates."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.weight = vae.mi_weight

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        features = self.encoder(x)
        (loc_z, scale_z), (loc_c, scale_c) = self.head_z(features), self.head_c(features)
        posterior = torch.cat([draw(loc_z, scale_z), draw(loc_c, scale_c)], 1)
        prior_z, prior_c = torch.randn_like(loc_z), torch.randn_like(loc_c)
        prior = torch.cat([prior_z, prior_c], 1)
        decoded, generated = self.decoder(torch.cat([posterior, prior])).chunk(2)
        loss = cross_entropy(decoded, x) + divergence(loc_z, scale_z) + divergence(loc_c, scale_c)
        loc, scale = self.head_c(self.encoder(generated.sigmoid()))
        # -log q(c | x') - H(c), where log 2 pi cancels
        surprise = 0.5 * (((prior_c - loc) / scale).square() - 1) + scale.log()
        return (loss + self.weight * surprise.sum()) / len(x)


class CriticInfomaxVAE(VAE):
    """The loss of a VAE with a critic's NWJ bound, which the encoder and the critic maximise."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.beta, self.weight = vae.beta, vae.term.weight.constant
        self.data_layer, self.latent_layer = vae.critic.data_layer, vae.critic.latent_layer
        self.score = vae.critic.head

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        n = len(x)
        loc, scale = self.head(self.encoder(x))
        z = draw(loc, scale)
        loss = (cross_entropy(self.decoder(z), x) + self.beta * divergence(loc, scale)) / n
        order = torch.randperm(n, device=x.device)
        partner = torch.empty_like(order).scatter_(0, order, order.roll(1))
        # The critic's gradient is that of the bound, the encoder's that times the weight.
        seen = z if self.weight == 1 else z.detach() + self.weight * (z - z.detach())
        of_data, of_code = self.data_layer(x), self.latent_layer(seen)
        pairs = torch.cat([of_data + of_code, of_data + of_code[partner]])
        joint, apart = self.score(pairs).squeeze(1).chunk(2)
        bound = joint.mean() - apart.exp().mean() / math.e
        return loss - bound + (1 - self.weight) * bound.detach()
