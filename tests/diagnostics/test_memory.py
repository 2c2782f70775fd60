"""No tensor of the report grows faster than the data and their codes."""

import math
import sys

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import AffineTransform, TransformedDistribution
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pyro_mivae as mi
from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.mi_bounds import dimensions, information_in_code
from pyro_mivae.diagnostics.report import information
from pyro_mivae.evidence.importance import importance_weighted
from pyro_mivae.posterior.layout import ProbedPair
from pyro_mivae.posterior.probe import probe

BLOCK, BATCH, DIMS, KINDS = 2**11, 32, 2, 2


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                # What expand gives takes no memory of its own.
                self.numbers = max(self.numbers, leaf.untyped_storage().nbytes() // 4)
        return result


def model(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.OneHotCategorical(torch.ones(KINDS)))
        z = pyro.sample("z", dist.Normal(c @ torch.ones(KINDS, DIMS), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.OneHotCategorical(logits=x[:, :KINDS]))
        pyro.sample("z", dist.Normal(x + c @ torch.ones(KINDS, DIMS), 0.5).to_event(1))


def test_memory_grows_with_the_codes_and_not_with_the_pairs(monkeypatch):
    monkeypatch.setattr(sys.modules["pyro_mivae.diagnostics.aggregate"], "BLOCK", BLOCK)
    monkeypatch.setattr(measuring, "FAMILIES", (information_in_code, dimensions))
    n = 140
    with pyro.validation_enabled(False), Largest() as largest:
        information(model, guide, torch.randn(n, DIMS), subset=n, batch_size=KINDS * BATCH)
    assert largest.numbers <= max(2 * BLOCK, 8 * DIMS * n) < n * n / 4


def test_a_flow_scores_few_pairs_and_few_at_once(monkeypatch):
    monkeypatch.setattr(sys.modules["pyro_mivae.diagnostics.aggregate"], "BLOCK", BLOCK)
    monkeypatch.setattr(measuring, "FAMILIES", (information_in_code,))
    dims, n, few = 8, 60, 40
    monkeypatch.setattr(sys.modules["pyro_mivae.diagnostics.mi_bounds"], "FLOW_ITEMS", few)
    vae = mi.VAE((dims,), latent_dim=dims, guide="affine-coupling").eval()
    pairs = []
    log_prob = TransformedDistribution.log_prob

    def counted(self, value):
        pairs.append(value.shape.numel() // dims)
        return log_prob(self, value)

    monkeypatch.setattr(TransformedDistribution, "log_prob", counted)
    report = information(vae.model, vae.guide, torch.rand(n, dims), num_samples=1, batch_size=n)
    assert report.protocol["information_items"] == few
    assert max(pairs) <= max(n, BLOCK // dims) < few * few / 4
    assert sum(pairs) <= few * few + 8 * n < n * n


def test_information_in_a_flow_of_few_data_is_that_of_all():
    sd, dims = 0.5, 2

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dims), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        noise = dist.Normal(torch.zeros(len(x), dims), 1.0).to_event(1)
        shift = AffineTransform(x, sd, event_dim=1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(noise, [shift]))

    report = information(model, guide, torch.randn(1000, dims), generative_items=0)
    assert report.protocol["information_items"] == 300
    exact = dims / 2 * math.log1p(1 / sd**2)
    slack = 4 * report["mi_lower_se"] + 0.05  # both bounds err by about exp(I) / 600
    assert exact - slack <= report["mi_lower"] <= report["mi_upper"] <= exact + slack
    assert abs(report["fitted_mi_lower"] - exact) < slack


def test_memory_does_not_grow_with_the_importance_samples():
    numbers = []
    layout = probe(model, guide, torch.randn(8, DIMS))
    for samples in (16, 200):
        with torch.no_grad(), Largest() as largest:
            pair = ProbedPair(model, guide, layout, batch_size=64)
            importance_weighted(pair, torch.randn(8, DIMS), samples)
        numbers.append(largest.numbers)
    assert numbers[0] == numbers[1] > 64
