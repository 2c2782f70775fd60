"""Distributions of single sites, from features by linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyro_mivae.arguments import checked, size
from pyro_mivae.guides.families import Family
from pyro_mivae.networks.layers import location_and_scale


class StackedLinear(nn.Linear):
    """Linear layers on the same features, computed as one product."""

    def __init__(self, in_features: int, *sizes: int) -> None:
        self.sizes = sizes
        super().__init__(in_features, sum(sizes))

    def reset_parameters(self) -> None:
        """Draws the parameters like those of separate layers, one after the other."""
        bound = 1 / math.sqrt(max(self.in_features, 1))
        parts = zip(self.weight.split(self.sizes), self.bias.split(self.sizes), strict=True)
        for weight, bias in parts:
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)


class NormalHead(nn.Module):
    """Mean and standard deviation of a Normal: linear in the features, then a softplus."""

    @checked(in_features=size(), size=size())
    def __init__(self, in_features: int, size: int) -> None:
        super().__init__()
        self.linear = StackedLinear(in_features, size, size)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation, two tensors of shape ``(..., size)``."""
        return location_and_scale(self.linear(features))


class CategoryHead(nn.Module):
    """A category given the features; its logits are linear in them."""

    def __init__(self, in_features: int, size: int, is_one_hot: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, size)
        self.is_one_hot = is_one_hot

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns the logits, shape ``(batch, size)``, under an empty name."""
        return {"": self.linear(features)}

    def given(self, outputs: Mapping[str, Tensor]) -> Any:
        """Returns the distribution of the category, as an index or a one-hot vector."""
        fn = dist.OneHotCategorical if self.is_one_hot else dist.Categorical
        return fn(logits=outputs[""])

    def as_one_hot(self, value: Tensor) -> Tensor:
        """Returns a value of the site as a one-hot vector; a relaxed value stays as it is."""
        if self.is_one_hot:
            return value
        return one_hot(value.long(), self.linear.out_features).to(self.linear.weight.dtype)


class SiteHead(nn.Module):
    """A continuous site given the features, and the categories drawn before it.

    The parameters of its family are linear in the features, with a map for each value of a
    category; the maps of several categories are added.
    """

    def __init__(self, in_features: int, family: Family, categories: Mapping[str, int]) -> None:
        super().__init__()
        self.family = family
        self.categories = dict(categories)
        width = family.num_params
        if categories:
            maps = [StackedLinear(in_features, size * width) for size in categories.values()]
        else:
            rest = width - family.size
            maps = [StackedLinear(in_features, family.size, *[rest] * (rest > 0))]
        self.maps = nn.ModuleList(maps)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Returns the family's parameters for every value of each category, by its name.

        Shape ``(batch, size * num_params)``; without a category ``(batch, num_params)``, under an
        empty name.
        """
        names = self.categories or [""]
        return {name: linear(features) for name, linear in zip(names, self.maps, strict=True)}

    def given(self, outputs: Mapping[str, Tensor], categories: Mapping[str, Tensor]) -> Any:
        """Returns the distribution, given one-hot values of the categories by site."""
        if not self.categories:
            return self.family(outputs[""])
        terms: Sequence[Tensor] = [
            torch.einsum(
                "...bk,bkp->...bp", categories[name], outputs[name].unflatten(-1, (size, -1))
            )
            for name, size in self.categories.items()
        ]
        return self.family(sum(terms[1:], terms[0]))
