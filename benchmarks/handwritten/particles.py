"""A VAE whose reconstruction is averaged over several draws of the code, ours and by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import pyro_mivae as mi
from benchmarks.handwritten.gaussian import VAE, cross_entropy, divergence


class ParticleVAE(mi.VAE):
    """The VAE with an objective of several particles."""

    name = "vae of particles"

    def __init__(self, data_shape: tuple[int, ...], num_particles: int, in_one_pass: bool) -> None:
        super().__init__(data_shape)
        self.num_particles, self.in_one_pass = num_particles, in_one_pass

    def objective(self, num_steps: int | None = None) -> mi.MutualInformationELBO:
        """Returns the ELBO of several particles."""
        return mi.MutualInformationELBO(
            num_particles=self.num_particles,
            vectorize_particles=self.in_one_pass,
            max_plate_nesting=1,
        )


class ParticleLoss(VAE):
    """Its loss: the images are encoded once, and all draws are decoded in one batch."""

    def __init__(self, vae: Any) -> None:
        super().__init__(vae)
        self.num_particles = vae.num_particles

    def forward(self, x: Tensor) -> Tensor:
        """From images to the loss per image."""
        loc, scale = self.head(self.encoder(x))
        noise = torch.randn(self.num_particles, *loc.shape, dtype=x.dtype, device=x.device)
        logits = self.decoder(loc + scale * noise)
        error = cross_entropy(logits, x.expand_as(logits)) / self.num_particles
        return (error + divergence(loc, scale)) / len(x)
