"""InfoGAN: what its three players minimise, as one loss, in plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, one_hot, softplus

MIN_SCALE = 0.1


class InfoGAN(nn.Module):
    """The players' losses, each with the gradient of its own player's parameters alone.

    The trunk sees generated images twice: once to teach the discriminator and the recognition,
    and once, as a constant, to teach the generator what both make of them. Running statistics
    take one share of generated and of real images each; they take no part in training.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.generator, self.prior = vae.model.decoder, vae.prior
        self.readers = Readers(vae)
        self.weight_c, self.weight_u = vae.weights["c"], vae.weights["u"]

    def forward(self, x: Tensor) -> Tensor:
        """From images to the sum of the players' losses per image."""
        n = len(x)
        z = torch.randn(n, self.prior.noise_dim, dtype=x.dtype, device=x.device)
        c = torch.randint(self.prior.num_categories, (n,), device=x.device)
        u = 2 * torch.rand(n, self.prior.uniform_dim, dtype=x.dtype, device=x.device) - 1
        hot = one_hot(c, self.prior.num_categories).to(x.dtype)
        image = self.generator(torch.cat([z, hot, u], 1)).sigmoid()
        fake, surprise = self.read(self.readers, image.detach(), c, u)
        real = self.readers.judge(x)
        constants = {k: p.detach() for k, p in self.readers.named_parameters()}
        constants |= {k: b.clone() for k, b in self.readers.named_buffers()}
        seen, missed = self.read(
            lambda image: functional_call(self.readers, constants, (image,)), image, c, u
        )
        players = softplus(-real) + softplus(fake) + softplus(-seen)
        return players.mean() + surprise + missed - missed.detach()

    def read(self, readers: Any, image: Tensor, c: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Gives log-odds of being data, and the weighted -(log q + H) of the codes per image."""
        logits, of_c, loc, scale = readers(image)
        half = math.sqrt(0.5)
        log_mass = ((1 - loc) * half / scale).erf() - ((-1 - loc) * half / scale).erf()
        log_q = -0.5 * ((u - loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
        of_u = (log_q - (0.5 * log_mass).log() + math.log(2)).sum(1).mean()
        of_category = math.log(self.prior.num_categories) - cross_entropy(of_c, c)
        return logits, -self.weight_c * of_category - self.weight_u * of_u


class Readers(nn.Module):
    """The discriminator, and the recognition of codes, on one trunk."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.trunk, self.head = vae.guide.encoder, vae.discriminator.head
        self.hidden, self.of_c = vae.guide.hidden, vae.guide.heads["c"]
        self.of_u = vae.guide.heads["u"]

    def judge(self, image: Tensor) -> Tensor:
        """Log-odds of being data."""
        return self.head(self.trunk(image)).squeeze(1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-odds of being data, logits of the category, mean and scale of the uniform codes."""
        features = self.trunk(image)
        hidden = self.hidden(features)
        of_c = nn.functional.linear(hidden, self.of_c.weight, self.of_c.bias)
        loc, scale = self.of_u.linear(hidden).chunk(2, 1)
        scale = MIN_SCALE + softplus(scale)
        return self.head(features).squeeze(1), of_c, loc.tanh(), scale
