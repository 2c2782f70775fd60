"""The pretended device refuses what CUDA refuses, and counts what waits for it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

SAME_DEVICE = "expected all tensors to be on the same device"


@pytest.fixture
def a(pretended):
    return torch.arange(6.0, device="cuda").view(2, 3)


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (lambda a: a + torch.ones(3), SAME_DEVICE),
        (lambda a: a @ torch.ones(3, 1), SAME_DEVICE),
        (lambda a: torch.ones(2, 3) * a.sum(), SAME_DEVICE),
        (lambda a: torch.ones(3)[a.argmax(1)], "indices of a tensor on the CPU"),
        (lambda a: a.normal_(generator=torch.Generator()), "expected a 'cuda' generator"),
        (lambda a: torch.rand(2, device="cuda", generator=torch.Generator()), "'cuda' generator"),
        (lambda a: a.numpy(), "numpy of a tensor on the device"),
        (lambda a: np.asarray(a), "__array__ of a tensor on the device"),
        (lambda a: a.to("cuda:1"), "invalid device ordinal"),
    ],
)
def test_refused(a, operation, told):
    with pytest.raises(RuntimeError, match=told):
        operation(a)


def test_a_fused_optimiser_refuses_counts_of_the_cpu(pretended):
    parameter = nn.Parameter(torch.ones(2, device="cuda"))
    parameter.grad = torch.ones_like(parameter)
    optimiser = torch.optim.Adam([parameter], fused=True)
    optimiser.step()
    optimiser.state[parameter]["step"] = torch.tensor(1.0)
    with pytest.raises(RuntimeError, match=SAME_DEVICE):
        optimiser.step()


@pytest.mark.parametrize(
    "operation",
    [
        lambda a: a.sum().item(),
        lambda a: bool(a[0, 0] > 0),
        lambda a: a.tolist(),
        lambda a: a.cpu(),
        lambda a: torch.ones(2).to("cuda"),
        lambda a: a.copy_(torch.ones(2, 3)),
        lambda a: torch.tensor(1.0, device="cuda"),
        lambda a: a[torch.tensor([0])],
        lambda a: a[a > 2],
        lambda a: a.nonzero(),
        lambda a: torch.equal(a, a),
        lambda a: torch.cuda.synchronize(),
    ],
)
def test_waits(pretended, a, operation):
    operation(a)
    assert pretended.waits.total() >= 1


@pytest.mark.parametrize(
    "operation",
    [
        lambda a: a + torch.tensor(1.0),
        lambda a: 2 * a.sum(),
        lambda a: a.to("cuda"),
        lambda a: torch.ones(2).to("cuda", non_blocking=True),
        lambda a: a.copy_(torch.ones(2, 3), non_blocking=True),
        lambda a: torch.full((2,), 1.0, device="cuda"),
        lambda a: a[a.argmax(0) % 2],
        lambda a: nn.functional.one_hot(a.argmax(1), 3),
        lambda a: torch.randn(2, device="cuda"),
    ],
)
def test_neither(pretended, a, operation):
    result = operation(a)
    assert result.device.type == "cuda"
    assert result.is_cuda
    assert not pretended.waits


def test_places_of_results(a):
    assert a.cpu().device.type == "cpu"
    for made in (a.view(6), a.new_zeros(2), torch.zeros_like(a), copy.deepcopy(a), a.double()):
        assert made.device.type == "cuda"
    for made in (a.new_zeros(2, device="cpu"), torch.ones(2), torch.tensor([1.0])):
        assert made.device.type == "cpu"


def test_gradients_are_where_the_parameters_are(pretended):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).to("cuda")
    network(torch.rand(5, 3, device="cuda")).sum().backward()
    for tensor in (*network.parameters(), *network.buffers()):
        assert tensor.device.type == "cuda"
    for parameter in network.parameters():
        assert parameter.grad.device.type == "cuda"


def test_nothing_stays_pretended_afterwards():
    assert not torch.cuda.is_available()
    assert torch.ones(2).device.type == "cpu"
    assert torch.zeros is torch._C._VariableFunctions.zeros
