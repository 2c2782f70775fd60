"""Variants with a category that is summed out: the losses, per datum, in plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    log_softmax,
    softplus,
)

from pyro_mivae.networks.layers import MIN_SCALE


class CatVAE(nn.Module):
    """The loss of a VAE of K Gaussians, decoded for every category in one batch of K B rows."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        guide = vae.guide
        self.encoder, self.category = guide.encoder, guide.heads[0].linear
        (self.code,) = guide.heads[1].maps
        self.decoder = vae.model.decoder
        self.register_buffer("means", vae.prior.means)

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        z, fixed, log_q = self.encode(x)
        return self.elbo_loss(self.decoder(z), x, fixed, log_q)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gives z of every category, the KL of each, and the log-probabilities of categories."""
        features = self.encoder(x)
        log_q = log_softmax(self.category(features), 1)  # (B, K)
        codes = self.code(features).unflatten(1, (len(self.means), -1)).transpose(0, 1)
        loc, raw = codes.chunk(2, 2)  # (K, B, d)
        scale = softplus(raw) + MIN_SCALE
        z = loc + scale * torch.randn(scale.shape, dtype=x.dtype, device=x.device)
        squares = (loc - self.means[:, None]).square() + scale.square() - 1
        return z, (0.5 * squares - scale.log()).sum(2), log_q

    def elbo_loss(self, logits: Tensor, x: Tensor, rates: Tensor, log_q: Tensor) -> Tensor:
        """Averages over the categories: what each costs, and the KL of the category itself."""
        errors = binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        costs = errors.flatten(2).sum(2) + rates  # (K, B)
        return (log_q.exp() * (costs.T + log_q)).sum() / len(x) + math.log(len(self.means))


class InfoCatVAE(CatVAE):
    """Adds that the category is to be read off what it generates."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.weight = vae.mi_weight

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        z, rates, log_q = self.encode(x)
        c = torch.randint(len(self.means), (len(x),), device=x.device)
        prior = self.means[c] + torch.randn_like(z[0])
        logits = self.decoder(torch.cat([z, prior[None]]))  # (K + 1, B, ...)
        loss = self.elbo_loss(logits[:-1], x, rates, log_q)
        recognised = self.category(self.encoder(logits[-1].sigmoid()))
        information = math.log(len(self.means)) - cross_entropy(recognised, c)
        return loss - self.weight * information
