"""Steps that several processes take together: torch's data parallelism around a step's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.engine.steps import Engine, Taken
from pyro_mivae.errors import SiteError
from pyro_mivae.ranks import Shares, dividing, summed


class JointStep:
    """Takes steps whose gradient is that of the whole batch, in every process alike.

    Each process evaluates its rows by the engine, plain, staged or compiled. Torch's
    ``DistributedDataParallel`` is around a module whose forward is that loss: it starts with the
    first process's weights, and takes the mean of the gradients.
    """

    def __init__(self, vae: nn.Module, engine: Engine, example: Sequence[Tensor]) -> None:
        program = engine.program
        with preserved([*program.buffers, *example], example[0].device):
            program(*example)
        # No term may train a parameter, such as a head of the guide.
        unused = any(parameter.grad is None for parameter in program.parameters)
        module = _StepLoss(vae, engine)
        self._parallel = DistributedDataParallel(module, find_unused_parameters=unused)

    def take(self, batch: Sequence[Tensor], shares: Shares, **how: Any) -> Taken:
        """Takes a step on the process's rows; gradients and ledger are of the whole batch."""
        with dividing(shares), _WholeBatchNorm():
            loss, entries, values = self._parallel(*batch, **how)
            loss.backward()
        return entries, values


class _StepLoss(nn.Module):
    """The loss of a step, whose gradient the engine has taken already."""

    def __init__(self, vae: nn.Module, engine: Engine) -> None:
        super().__init__()
        self.vae, self._engine = vae, engine

    def forward(self, *batch: Tensor, **how: Any) -> tuple[Tensor, Any, Tensor]:
        entries, values = self._engine.take(*batch, **how)
        trained = [p for p in self.vae.parameters() if p.requires_grad and p.grad is not None]
        gradients = [p.grad for p in trained]
        for parameter in trained:
            parameter.grad = None
        loss = values[entries.index("loss")]
        return _Known.apply(loss, gradients, *trained), entries, values


class _Known(torch.autograd.Function):
    """A number with known gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return None, None, *(gradient * known for known in ctx.gradients)


class _WholeBatchNorm(TorchFunctionMode):
    """Makes batch norm normalise by the whole batch; torch's SyncBatchNorm is for GPUs alone."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        norm = _batch_norm if func is nn.functional.batch_norm else func
        return norm(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Computes ``torch.nn.functional.batch_norm`` with the statistics of the whole batch."""
    if not training:
        return nn.functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
    dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
    # One exchange: the squares about a common point near the mean lose little of the variance.
    near = x.new_zeros(x.shape[1]) if running_mean is None else running_mean.clone()
    moved, rows = x - near.view(shape), x.new_tensor([x.numel() / x.shape[1]])
    sums = summed(torch.cat([rows, moved.sum(dims), moved.square().sum(dims)]))
    count, mean, squares = sums.split([1, len(near), len(near)])
    count = count.detach()
    mean = mean / count
    variance = squares / count - mean.square()
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(near + mean.detach(), momentum)
        running_var.lerp_(variance.detach() * (count / (count - 1)), momentum)
    normed = (moved - mean.view(shape)) * (variance.clamp(min=0) + eps).rsqrt().view(shape)
    if weight is not None:
        normed = normed * weight.view(shape)
    return normed if bias is None else normed + bias.view(shape)


def check_divisible(vae: Any, batch: Sequence[Tensor], processes: int) -> None:
    """Refuses sites of a pair that each process would draw and count for itself."""
    x, *others = batch
    for program in (vae.model, vae.guide):
        nodes = poutine.trace(program).get_trace(x, *others).nodes
        for name, site in nodes.items():
            if site["type"] != "sample" or poutine.util.site_is_subsample(site):
                continue
            frames = site["cond_indep_stack"]
            if not any(frame.size == len(x) for frame in frames):
                raise SiteError(
                    f"the site {name!r} is not drawn for each of {len(x)} data, so {processes} "
                    "processes would each draw and count it; draw it in the plate over the data, "
                    "or train in one process"
                )
            cut = [frame.name for frame in frames if frame.full_size not in (None, frame.size)]
            if cut:
                raise SiteError(
                    f"the plate {cut[0]!r} of {name!r} sub-samples the data, so {processes} "
                    "processes would draw the same data; let it hold the mini-batch alone, "
                    "pyro.plate(name, len(x))"
                )
