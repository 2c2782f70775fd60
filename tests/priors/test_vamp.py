"""VampPrior: its density, the guide it reads, its start, and batch statistics."""

import copy

import pyro
import pytest
import torch
from pyro.infer import SVI
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError

from .kinds import SHAPE, draw

K = 5


@pytest.fixture
def x():
    return torch.rand(30, *SHAPE)


def vamp(**options):
    return mi.VampPrior(SHAPE, 2, K, **options)


def built(**options):
    return mi.VAE(SHAPE, prior=vamp(**options))


def density(vae, z):
    return draw(vae.prior, len(z), z=z).nodes["z"]["fn"].log_prob(z)


def test_the_density_is_that_of_the_mixture_of_posteriors(x, double):
    vae = built(learn_weights=True).double().eval()
    with torch.no_grad():
        vae.prior.logits.copy_(torch.randn(K))
    z = torch.randn(7, 2)
    trace = pyro.poutine.trace(vae.guide).get_trace(vae.prior.pseudo_inputs)
    q = trace.nodes["z"]["fn"]
    each = torch.stack([q.log_prob(row.expand(K, 2)) for row in z])
    expected = (each + vae.prior.logits.log_softmax(0)).logsumexp(1)
    torch.testing.assert_close(density(vae, z), expected)


def test_it_starts_at_exemplars_within_the_interval(x):
    vae = built()
    vae.initialize(x)
    rows = {tuple(row.flatten().tolist()) for row in x}
    found = {tuple(row.flatten().tolist()) for row in vae.prior.pseudo_inputs.detach()}
    assert len(found) == K
    assert found <= rows
    assert found != {tuple(row.flatten().tolist()) for row in x[:K]}  # drawn at random
    with pytest.raises(OptionError, match="num_components=5 for 4 data"):
        vae.initialize(x[:4])


def test_pseudo_inputs_stay_inside_and_can_come_back():
    """What leaves the interval counts as its end, and moves only back."""
    vae = mi.VAE(SHAPE, prior=vamp()).eval()
    inside = vae.prior.pseudo_inputs.data.clone()
    inside[0] = 1.0
    vae.prior.pseudo_inputs.data[0] = 7.0
    z = torch.randn(3, 2)
    found = density(vae, z)
    gradient = torch.autograd.grad(found.sum(), vae.prior.pseudo_inputs)[0][0]
    vae.prior.pseudo_inputs.data.copy_(inside)
    torch.testing.assert_close(density(vae, z), found)
    whole = torch.autograd.grad(density(vae, z).sum(), vae.prior.pseudo_inputs)[0][0]
    assert torch.equal(gradient, whole.clamp(min=0))  # a descent then goes down, to the inside
    assert 0 < int((gradient > 0).sum()) < gradient.numel()
    free = mi.VAE(SHAPE, prior=vamp(), likelihood=mi.GaussianLikelihood()).eval()
    free.prior.pseudo_inputs.data[0] = 7.0
    means = free.prior.posteriors()["z"].mean
    assert not torch.equal(means[0], means[1])
    assert free.prior.interval is None


def test_its_passes_neither_read_nor_change_batch_statistics(x):
    """In training, the density is that of evaluation, whatever the batch."""
    vae, alone = (mi.VAE(SHAPE, prior=prior) for prior in (vamp(), mi.StandardNormalPrior(2)))
    alone.guide.load_state_dict(vae.guide.state_dict())
    assert [n for n, _ in vae.guide.named_buffers() if n.endswith("running_mean")]
    for seed in range(3):
        for model in (vae, alone):
            torch.manual_seed(seed)
            loss = model.objective().differentiable_loss(model.model, model.guide, x)
    torch.testing.assert_close(dict(vae.guide.named_buffers()), dict(alone.guide.named_buffers()))
    assert all(module.training for module in vae.modules())
    z = torch.randn(4, 2)
    trained = density(vae, z)
    buffers = copy.deepcopy(dict(vae.named_buffers()))
    vae.guide(10 * x)
    for name, value in vae.named_buffers():
        value.copy_(buffers[name])
    torch.testing.assert_close(density(vae, z), trained)
    torch.testing.assert_close(density(vae.eval(), z), trained)
    assert loss.isfinite()


def test_a_later_pass_in_training_leaves_its_gradient(x):
    """It changes running statistics in place, which the gradient of a normalisation reads."""
    vae, z = built(), torch.randn(4, 2)
    vae.guide(x)
    expected = torch.autograd.grad(density(vae, z).sum(), vae.prior.pseudo_inputs)
    found = density(vae, z)
    vae.guide(10 * x)
    gradient = torch.autograd.grad(found.sum(), vae.prior.pseudo_inputs)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


def test_dropout_is_off_in_its_passes():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Dropout(0.5))
    vae = mi.VAE(SHAPE, prior=vamp(), encoder=encoder)
    z = torch.randn(4, 2)
    assert torch.equal(density(vae, z), density(vae, z))


def test_the_guide_belongs_to_the_variant_alone(x):
    vae = built()
    names = [name for name, _ in vae.named_parameters(remove_duplicate=False)]
    assert [n for n in names if "prior" in n] == ["model.prior.pseudo_inputs"]
    own = [n for n in vae.state_dict() if "prior" in n]
    assert own == ["model.prior.pseudo_inputs", "model.prior.logits"]
    pyro.clear_param_store()
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), vae.objective()).step(x)
    stored = dict(pyro.get_param_store().named_parameters())
    assert {id(p) for p in stored.values()} == {id(p) for p in vae.parameters()}
    assert len(stored) == len(names)


def test_a_copy_reads_its_own_guide(x):
    vae = built()
    twin = copy.deepcopy(vae)
    z = torch.randn(4, 2)
    before = density(vae.eval(), z)
    with torch.no_grad():
        for parameter in twin.guide.parameters():
            parameter.add_(0.3)
    assert torch.equal(density(vae, z), before)
    assert not torch.allclose(density(twin.eval(), z), before)
    twin.load_state_dict(vae.state_dict())
    assert torch.equal(density(twin, z), before)


def test_samples_come_from_the_mixture():
    vae = mi.VAE(
        (2,),
        prior=mi.VampPrior((2,), 2, 3),
        guide=mi.MeanFieldGuide((2,), {"z": 2}, nn.Sequential(nn.Linear(2, 2), nn.Tanh())),
        decoder=nn.Identity(),
        likelihood=mi.GaussianLikelihood(),
    )
    samples, mixture = vae.sample(20_000), vae.prior.posteriors()["z"]
    mean = mixture.mean.mean(0).detach()
    error = float(samples.std(0).max()) / 20_000**0.5
    torch.testing.assert_close(samples.mean(0), mean, atol=4.5 * error, rtol=0)
    torch.testing.assert_close(vae.decode({}, 2), mean.expand(2, 2))


class NoDistributions(pyro.nn.PyroModule):
    def __init__(self):
        super().__init__()
        self.inner = mi.MeanFieldGuide(SHAPE, {"z": 2})

    def forward(self, x):
        return self.inner(x)


def test_what_it_cannot_read():
    with (
        pytest.raises(SiteError, match="reads the guide of a variant"),
        pyro.plate("data", 2),
    ):
        vamp()()
    with pytest.raises(SiteError, match="NoDistributions has no such method"):
        mi.VAE(SHAPE, prior=vamp(), guide=NoDistributions())
