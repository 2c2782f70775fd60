"""Batch normalisation that trains on a batch of one, too."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm


class _TrainsOnOne(_BatchNorm):
    """Normalises by the running statistics where there is one value per feature."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises features."""
        if self.training and input.numel() == input.shape[1]:
            return batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class BatchNorm1d(_TrainsOnOne, nn.BatchNorm1d):
    """Normalises features of shape ``(batch, features)``."""


class BatchNorm2d(_TrainsOnOne, nn.BatchNorm2d):
    """Normalises maps of shape ``(batch, features, height, width)``."""
