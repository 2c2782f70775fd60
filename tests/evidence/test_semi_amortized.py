"""Semi-amortised guides: the exact gradient of unrolled steps."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.evidence.refined import check_twice
from pyro_mivae.networks import MLPDecoder, MLPEncoder
from tests.slopes import check_slope

SIZE, STEP = 4, 1e-6
OPTIONS = {
    "vae": {"latent_dim": 2},
    "cat": {"latent_dim": 4, "num_categories": 2, "warm_start": 0},
}


def built(name, family="mean-field"):
    torch.manual_seed(0)
    options = OPTIONS[name]
    vae = mi.VARIANTS[name](
        (SIZE,),
        guide=family,
        encoder=MLPEncoder((SIZE,), (5,), nn.Tanh),
        decoder=MLPDecoder(options["latent_dim"], (SIZE,), (5,), nn.Tanh),
        **options,
    )
    return vae, mi.SemiAmortizedGuide(vae.model, vae.guide, num_steps=3, learning_rate=0.05)


@pytest.mark.parametrize(("name", "family"), [("vae", "full-covariance"), ("cat", "mean-field")])
def test_the_gradient_goes_through_the_steps(name, family, double):
    """Finite differences of the loss after the steps, by encoder and decoder, on fixed noise."""
    (vae, guide), x = built(name, family), torch.rand(5, SIZE)
    objective = vae.objective()

    def loss():
        torch.manual_seed(1)
        return objective.differentiable_loss(vae.model, guide, x)

    loss().backward()
    for part in ("model.decoder", "guide.encoder", "guide.heads"):
        own = [p for n, p in vae.named_parameters() if n.startswith(part)]
        slope = check_slope(own, loss, STEP, part)
        assert abs(slope) > 1e-3


def test_it_trains_and_is_refined_for_evaluation(double):
    """The steps lower the loss; training moves model and guide, each under one name."""
    (vae, guide), x = built("vae"), torch.rand(40, SIZE)
    elbo = Trace_ELBO(num_particles=8)
    torch.manual_seed(1)
    plain = elbo.loss(vae.model, vae.guide, x)
    assert elbo.loss(vae.model, guide, x) < plain
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    svi = SVI(vae.model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=vae.objective())
    first, *_, last = [svi.step(x) for _ in range(10)]
    assert last < first
    assert not [name for name, p in vae.named_parameters() if torch.equal(p, before[name])]
    assert len(pyro.get_param_store()) == len(before)
    refined = mi.RefinedGuide(vae.model, guide, num_steps=2, num_draws=1)
    assert refined.local_parameters(x[:3])["z"].shape == (3, 4)
    with pytest.raises(OptionError, match="write the methods"):
        mi.SemiAmortizedGuide(vae.model, lambda x: None)


def test_draws_without_a_second_derivative_are_refused():
    vae, x = mi.VAE((SIZE,), prior=mi.SphericalPrior(2)), torch.rand(5, SIZE)
    guide = mi.SemiAmortizedGuide(vae.model, vae.guide, num_steps=1)
    with pytest.raises(SiteError, match="PowerSpherical have none; train the guide without steps"):
        SVI(vae.model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=vae.objective()).step(x)
    assert vae.encode(x, guide=guide)["z"].shape == (5, 2)
    shape = torch.ones(3, requires_grad=True)
    draws = torch.distributions.Gamma(shape, 1.0).rsample().square().sum()
    slopes = torch.autograd.grad(draws, shape, create_graph=True)
    with pytest.raises(SiteError, match="those of Gamma"):
        check_twice(slopes, [shape])
