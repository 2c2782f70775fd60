"""Evaluation that leaves modules, generators and the parameter store as they were."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_mivae.diagnostics.report import information
from pyro_mivae.posterior.preserved_state import evaluation_mode, preserved_state


class Pair:
    """Plain functions over modules that nothing else points to."""

    def __init__(self):
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)
        )
        self.decoder = nn.Linear(2, 3)
        self.encoder(torch.randn(50, 3))  # statistics of its own
        self.encoder[0].eval()
        self.decoder.weight.requires_grad_(False)

        def model(x):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

        def guide(x):
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))

        self.model, self.guide = model, guide

    @property
    def state(self):
        modules = [*self.encoder.modules(), *self.decoder.modules()]
        tensors = [*self.encoder.state_dict().values(), *self.decoder.state_dict().values()]
        flags = [p.requires_grad for module in modules[:1] for p in module.parameters()]
        flags.append(self.decoder.weight.requires_grad)
        return [m.training for m in modules], flags, [t.clone() for t in tensors]


@pytest.mark.filterwarnings("ignore:weight was not registered")
def test_modules_of_plain_functions_are_evaluated_and_left_alone():
    pair, options = Pair(), {"iwae_samples": 2, "generative_items": 5}
    x = torch.randn(40, 3)
    modes, flags, tensors = pair.state
    assert True in modes
    assert False in modes
    report = information(pair.model, pair.guide, x, **options)
    assert pair.state[:2] == (modes, flags)
    assert all(map(torch.equal, pair.state[2], tensors))
    assert not list(pyro.get_param_store())
    pair.encoder.eval()
    pair.decoder.eval()
    assert information(pair.model, pair.guide, x, **options) == report


def test_modes_come_back_after_an_error():
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    module[0].eval()
    state = torch.get_rng_state()

    def evaluate(*programs):
        with preserved_state(0, *programs, device=torch.device("cpu")):
            module(torch.zeros(1, 1))
            assert not module[1].training
            raise KeyError

    for programs in ((), (module,), (poutine.scale(module.forward, 2.0),)):
        with pytest.raises(KeyError):
            evaluate(*programs)
        assert module.training
        assert module[1].training
        assert not module[0].training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_method_under_a_handler_is_evaluated_at_once():
    module = nn.Dropout()
    with evaluation_mode(poutine.mask(module.forward, mask=True)):
        assert not module.training
    assert module.training


def test_data_drawn_from_the_same_seed_are_not_drawn_again():
    torch.manual_seed(0)
    x = torch.randn(50, 2)
    with preserved_state(0, device=x.device):
        assert not torch.allclose(torch.randn(50, 2), x)
