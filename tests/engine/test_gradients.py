"""Gradients of a staged step may be changed in place, and read from end to end."""

import torch
from torch import nn

from pyro_mivae.engine.steps import Engine
from pyro_mivae.engine.tracing import TrainStep


class Odd(nn.Module):
    """Parameters whose plain gradients are spread from one number, or laid out otherwise."""

    def __init__(self):
        super().__init__()
        self.spread = nn.Parameter(torch.rand(4, 3))
        self.first, self.second = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3))
        self.turned = nn.Parameter(torch.rand(5, 3).t())
        self.register_buffer("given", torch.rand(3))
        self.linear = nn.Parameter(torch.rand(3))

    def forward(self, x):
        loss = self.spread.sum() + (x[:3] * (self.first + self.second)).sum()
        loss = loss + (x @ self.turned).square().sum() + self.linear @ self.given
        return loss, {"loss": loss.detach()}


def step(means):
    torch.manual_seed(0)
    module = Odd()
    program = TrainStep.of_modules(module, module)
    optimiser = torch.optim.Adam(program.parameters, lr=0.1, fused=True)
    x = torch.rand(6, 3)
    for _ in range(2):
        Engine(program, means).step(x)(x)
        for parameter in program.parameters:
            assert parameter.grad.stride() == parameter.stride()
        torch.nn.utils.clip_grad_norm_(program.parameters, 0.5, foreach=True)
        optimiser.step()
    return module


def test_clipped_and_fused_they_train_as_eager_ones_do():
    eager, staged = step("eager"), step("staged")
    for a, b in zip(eager.state_dict().values(), staged.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
