"""Stick-breaking weights: the estimate, and its prior once per data set."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyro_mivae as mi

ALPHA, K, N = 1.7, 4, 60


@pytest.fixture(autouse=True)
def in_double(double):
    """Numbers in double precision."""


def prior_of(**options):
    return mi.StickBreakingPrior(K, K, concentration=ALPHA, **options)


def test_weights_are_lengths_of_the_sticks():
    prior = prior_of()
    with torch.no_grad():
        prior.sticks.copy_(torch.tensor([0.3, -1.0, 2.0]))
    left, expected = 1.0, []
    for stick in torch.sigmoid(prior.sticks).tolist():
        expected.append(left * stick)
        left *= 1 - stick
    torch.testing.assert_close(prior.log_weights().exp(), torch.tensor([*expected, left]))


def test_the_sticks_prior_is_the_density_of_the_log_odds():
    prior = prior_of()
    odds = torch.linspace(-40, 40, 4001)
    v = torch.sigmoid(odds)
    expected = dist.Beta(1.0, ALPHA).log_prob(v) + v.log() + (-v).log1p()
    found = []
    with torch.no_grad():
        prior.sticks.zero_()
        rest = float(prior.log_prior()) * (K - 2) / (K - 1)
        for value in odds:
            prior.sticks[0] = value
            found.append(prior.log_prior() - rest)
    density = torch.stack(found)
    inside = odds.abs() < 15
    torch.testing.assert_close(density[inside], expected[inside])
    assert float(torch.trapezoid(density.exp(), odds)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("loss", [Trace_ELBO, mi.MutualInformationELBO])
def test_the_estimate_is_the_posterior_mean_of_the_sticks(loss):
    """With known categories it has a closed form, at which an epoch's gradient vanishes."""
    counts = torch.tensor([27.0, 3.0, 18.0, 12.0])
    labels = torch.repeat_interleave(torch.arange(K), counts.long())
    prior = prior_of(learn=["weights"])
    prior.initialize(labels)

    class Model(pyro.nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.prior = prior

        def forward(self, labels):
            with pyro.plate("data", len(labels)):
                z = self.prior()
                pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=torch.zeros(len(labels)))

    def guide(labels):
        with pyro.plate("data", len(labels)):
            c = torch.eye(K)[labels]
            pyro.sample("c", dist.Delta(c, event_dim=1))
            pyro.sample("z", dist.Normal(c @ prior.means, 1.0).to_event(1))

    def slope(sticks):
        """Gradient of the losses of all mini-batches."""
        prior.sticks.data.copy_(sticks.logit())
        prior.sticks.grad = None
        for batch in labels[torch.randperm(N)].split(20):
            loss().loss_and_grads(model, guide, batch)
        return prior.sticks.grad

    model = Model()
    above = counts.flip(0).cumsum(0).flip(0)
    expected = ((counts + 1) / (above + 1 + ALPHA))[:-1]
    torch.testing.assert_close(slope(expected), torch.zeros(K - 1), atol=1e-9, rtol=0)
    assert float(slope((counts / above)[:-1]).abs().min()) > 0.1  # of maximum likelihood


def test_an_epoch_has_the_prior_once_and_evaluation_has_none():
    x = torch.rand(N, 1, 2, 2)
    vae = mi.CatVAE((1, 2, 2), prior=prior_of(), warm_start=0)
    objective = vae.objective()

    def loss(batch):
        torch.manual_seed(0)
        return objective.loss(vae.model, vae.guide, batch)

    with pyro.validation_enabled(True):
        vae.eval()
        plain = [loss(batch) for batch in x.split(20)]
        vae.prior.train()
        assert loss(x[:20]) == pytest.approx(plain[0])  # the number of data is not known yet
        vae.initialize(x)
        with_prior = [loss(batch) for batch in x.split(20)]
        vae.prior.eval()
        assert [loss(batch) for batch in x.split(20)] == pytest.approx(plain)
    expected = sum(plain) - float(vae.prior.log_prior().detach())
    assert sum(with_prior) == pytest.approx(expected, rel=1e-9)
    assert float(vae.prior.num_data) == N


def test_the_factor_is_none_of_the_data_that_information_is_about():
    """InfoCatVAE's term is the same with the factor and without."""
    x, found = torch.rand(N, 1, 2, 2), []
    vae = mi.InfoCatVAE((1, 2, 2), prior=prior_of(), warm_start=0)
    vae.initialize(x)
    objective = vae.objective()
    for train in (True, False):
        vae.eval()
        vae.prior.train(train)
        torch.manual_seed(0)
        objective.loss(vae.model, vae.guide, x)
        found.append({key: float(value) for key, value in objective.ledger.items()})
    (name,) = [key for key in found[0] if key.startswith("mi_")]
    assert found[0][name] == found[1][name]
    prior = float(vae.prior.log_prior().detach())
    assert found[0]["loss"] == pytest.approx(found[1]["loss"] - prior, rel=1e-9)


def test_fixed_weights_are_those_of_the_mean_sticks():
    prior = prior_of(learn=[]).train()
    v = 1 / (1 + ALPHA)
    expected = [v * (1 - v) ** k for k in range(K - 1)] + [(1 - v) ** (K - 1)]
    torch.testing.assert_close(prior.log_weights().exp(), torch.tensor(expected))
    assert not list(prior.parameters())
    with pyro.plate("data", 2):
        trace = pyro.poutine.trace(prior).get_trace()
    assert [n for n, s in trace.nodes.items() if s["type"] == "sample"] == ["c", "z"]


def test_a_resumed_training_knows_the_number_of_data(tmp_path):
    x = torch.rand(N, 1, 2, 2).float()
    torch.set_default_dtype(torch.float32)

    def build():
        torch.manual_seed(0)
        return mi.CatVAE((1, 2, 2), prior=prior_of(), warm_start=0)

    whole, parted = build(), build()
    mi.fit(whole, x, epochs=2, batch_size=20)
    mi.fit(parted, x, epochs=1, batch_size=20, run=tmp_path)
    again = build()
    assert math.isinf(again.prior.num_data)
    mi.fit(again, x, epochs=1, batch_size=20, run=tmp_path, resume=True)
    assert float(again.prior.num_data) == N
