"""Noise of a whole batch, of which each rank takes its own rows."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_mivae.ranks import current_shares, own_rows

aten = torch.ops.aten


class NoiseOfRows(TorchDispatchMode):
    """Draws random tensors for the whole batch, in the dimension that is as long as the rows."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, shares = kwargs or {}, current_shares()
        if torch.Tag.nondeterministic_seeded not in func.tags or shares is None:
            return func(*args, **kwargs)
        if func is aten.randperm.default:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name == "bernoulli":
            return (self.drawn(args[0], "uniform_", shares) < args[0]).to(args[0])
        if name == "multinomial":
            race = self.drawn(args[0], "exponential_", shares)
            return (args[0] / race).argmax(-1, keepdim=True)
        if name == "normal":
            mean, sd = args[:2]
            return mean + sd * self.drawn(mean + 0 * sd, "normal_", shares)
        if name in ("normal_", "uniform_", "exponential_"):
            return args[0].copy_(self.drawn(args[0], name, shares, *args[1:]))
        if name in ("rand", "randn", "rand_like", "randn_like"):
            how = {k: v for k, v in kwargs.items() if k in ("dtype", "device")}
            like = name.endswith("_like")
            target = torch.empty_like(args[0]) if like else torch.empty(args[0], **how)
            return self.drawn(target, "uniform_" if "n" not in name[3:5] else "normal_", shares)
        raise NotImplementedError(f"{name} of a rank's rows")

    def drawn(self, like: Tensor, kind: str, shares: Any, *args: Any) -> Tensor:
        """Draws values of the whole batch, and returns those of the rank's rows."""
        own = shares.sizes[shares.rank]
        shape = list(like.shape)
        dims = [dim for dim, length in enumerate(shape) if length == own]
        whole = [shares.count if dims and dim == dims[0] else n for dim, n in enumerate(shape)]
        values = getattr(torch.empty(whole, dtype=like.dtype), kind)(*args)
        if not dims:
            return values
        return own_rows(values.movedim(dims[0], 0), shares).movedim(0, dims[0])
