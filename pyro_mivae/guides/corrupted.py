"""A guide for denoising."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_mivae.arguments import checked, function
from pyro_mivae.networks.layers import NETWORK


class CorruptedGuide(PyroModule):
    """Gives a guide corrupted data in training, and the original data in evaluation.

    The model still scores the original data: a denoising autoencoder.

    Args:
        guide: The guide.
        corrupt: From data of shape ``(batch, *data_shape)`` to corrupted data of that shape.

    References:
        Im et al. (2017), Denoising Criterion for Variational Auto-encoding Framework.
        https://arxiv.org/abs/1511.06406

    Example:
        >>> guide = mi.VAE((1, 8, 8), latent_dim=2).guide
        >>> noisy = CorruptedGuide(guide, lambda x: x * (torch.rand_like(x) > 0.3))
        >>> vae = mi.VAE((1, 8, 8), latent_dim=2, guide=noisy)
        >>> vae.encode(torch.rand(4, 1, 8, 8))["z"].shape
        torch.Size([4, 2])
    """

    @checked(guide=NETWORK, corrupt=function("corrupt(x)"))
    def __init__(self, guide: nn.Module, corrupt: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.guide = guide
        self.corrupt = corrupt

    def forward(self, x: Tensor, *given: Tensor) -> Any:
        """Runs the guide on data of shape ``(batch, *data_shape)``, and on their condition."""
        return self.guide(self.corrupt(x) if self.training else x, *given)
