"""InfoGAN: parts of one's own, what its category draws, and images that it can be trained on."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.metrics import cluster_accuracy

SHAPE = (1, 8, 8)


class TwoCategories(PyroModule):
    """A prior of two categories and a normal code beside the noise."""

    def forward(self):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        c = pyro.sample("c", dist.OneHotCategorical(logits=torch.zeros(3)))
        style = pyro.sample("style", dist.OneHotCategorical(logits=torch.zeros(2)))
        n = pyro.sample("n", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        shape = torch.broadcast_shapes(*(v.shape[:-1] for v in (z, c, style, n)))
        return torch.cat([v.expand(*shape, -1) for v in (z, c, style, n)], -1)


class OwnGuide(PyroModule):
    """A guide that shares nothing with the discriminator."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x):
        logits = self.layer(x.flatten(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(logits.new_zeros(4), 1.0).to_event(1))
            pyro.sample("c", dist.OneHotCategorical(logits=logits))


def train(gan, steps=2):
    svi = pyro.infer.SVI(gan.model, gan.guide, pyro.optim.Adam(gan.optim_args), gan.objective())
    before = {name: value.clone() for name, value in gan.named_parameters()}
    for _ in range(steps):
        svi.step(torch.rand(6, *SHAPE))
    return {name for name, value in gan.named_parameters() if (value == before[name]).all()}


def test_codes_of_any_number_and_kind():
    gan = mi.InfoGAN(SHAPE, prior=TwoCategories(), mi_weight=0.5, continuous_weight=0.2)
    assert gan.weights == {"c": 0.5, "style": 0.5, "n": 0.2}
    assert not train(gan)
    ledger = {}
    objective = gan.objective()
    objective.loss(gan.model, gan.guide, torch.rand(6, *SHAPE))
    ledger = set(objective.ledger)
    assert {"mi_c_mean", "mi_style_mean", "mi_n_mean"} <= ledger
    assert gan.sample(2, category=1).shape == (2, *SHAPE)
    torch.manual_seed(0)
    by_number = gan.sample(2, category=1)
    torch.manual_seed(0)
    assert torch.equal(gan.sample(2, category="b"), by_number)


def test_codes_on_the_unit_interval():
    gan = mi.InfoGAN(SHAPE, prior=mi.UniformPrior(4, 2))
    assert gan.weights == {"c": 0.1}
    assert not train(gan)
    codes = gan.encode(torch.rand(3, *SHAPE))["c"]
    assert 0 < codes.min() <= codes.max() < 1


def test_a_guide_of_ones_own_shares_nothing():
    gan = mi.InfoGAN(SHAPE, prior=mi.InfoGANPrior(4, 3, 0), guide=OwnGuide(), code_dim=2)
    assert not set(gan.guide.parameters()) & set(gan.discriminator.parameters())
    assert not train(gan)
    assert {gan.optim_args(f"guide.{n}")["lr"] for n, _ in gan.guide.named_parameters()} == {1e-3}


def test_ones_own_networks():
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU())
    generator = nn.Sequential(nn.Linear(6 + 3, 64), nn.Unflatten(-1, SHAPE))
    gan = mi.InfoGAN(SHAPE, latent_dim=6, num_categories=3, encoder=trunk, decoder=generator)
    assert gan.guide.encoder is gan.discriminator.trunk is trunk
    assert gan.model.decoder is generator
    assert not gan.objective().needs_batch  # without batch norm
    assert not train(gan)


def test_a_category_is_what_the_generator_is_given():
    gan = mi.InfoGAN(SHAPE, latent_dim=4, code_dim=0, num_categories=3).eval()
    seen = []
    gan.model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    images = gan.sample(5, category=2)
    assert torch.equal(seen[0][:, 4:], torch.eye(3)[[2] * 5])
    assert seen[0][:, :4].std() > 0.3  # the noise is drawn
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.slow
def test_recovers_the_rows_of_made_up_images():
    """Noise and one bright row of four: the categories come to be rows (0.74 or more, 4 seeds)."""
    torch.manual_seed(0)
    y = torch.arange(256) % 4
    x = 0.1 * torch.rand(256, *SHAPE)
    x[torch.arange(256), 0, 2 * y] += 0.8
    gan = mi.InfoGAN(SHAPE, latent_dim=5, code_dim=0, num_categories=4)
    history = mi.fit(gan, x, epochs=60, batch_size=64)
    assert history["mi_c_mean"][-1] > 1.2  # of log 4 = 1.39
    found = gan.encode(x)["c"].argmax(-1)
    assert cluster_accuracy(found, y) > 0.7  # three rows of four, which chance does not find


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mi.InfoGAN(SHAPE, guide=OwnGuide(), encoder=nn.Flatten()), OptionError, "both g"),
        (
            lambda: mi.InfoGAN(SHAPE, latent_dim=6, num_categories=3, guide=OwnGuide()),
            SiteError,
            r"sites \['u'\] are not in both",
        ),
        (
            lambda: mi.InfoGAN(SHAPE, prior=mi.InfoGANPrior(), latent_dim=9),
            OptionError,
            "is 64; le",
        ),
    ],
)
def test_what_does_not_fit(make, error, message):
    with pytest.raises(error, match=message):
        make()
