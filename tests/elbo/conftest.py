"""Loss and gradients of any objective from one seed."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

Evaluate = Callable[..., tuple[float, dict[str, Tensor]]]


@pytest.fixture
def evaluate() -> Evaluate:
    """Gives the loss and every stored parameter's gradient, always on the same noise."""

    def run(elbo: Any, *args: Any, **kwargs: Any) -> tuple[float, dict[str, Tensor]]:
        pyro.set_rng_seed(3)
        loss = elbo.loss_and_grads(*args, **kwargs)
        found = {}
        for name, value in pyro.get_param_store().named_parameters():
            found[name] = torch.zeros_like(value) if value.grad is None else value.grad.clone()
            value.grad = None
        return loss, found

    return run


@pytest.fixture
def assert_same(evaluate: Evaluate) -> Callable[..., None]:
    """Compares two objectives on the same noise."""

    def compare(ours: Any, theirs: Any, *args: Any, **kwargs: Any) -> None:
        evaluate(theirs, *args, **kwargs)  # makes the parameters
        evaluate(ours, *args, **kwargs)  # finds the structure
        loss, slopes = evaluate(ours, *args, **kwargs)
        expected, wanted = evaluate(theirs, *args, **kwargs)
        assert loss == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert slopes.keys() == wanted.keys()
        for name, slope in slopes.items():
            torch.testing.assert_close(slope, wanted[name], rtol=1e-7, atol=1e-9, msg=name)

    return compare


@pytest.fixture
def x(double: None) -> Tensor:
    return torch.rand(4, 2, 3)


@pytest.fixture
def values(double: None) -> Tensor:
    return torch.randn(5)
