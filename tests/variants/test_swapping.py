"""A user's own encoder, decoder, prior, guide and likelihood, which know nothing of ours."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule, PyroParam
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, ShapeError, SiteError
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.networks import MLPDecoder

SHAPE, N, K = (1, 3, 4), 5, 3


@pytest.fixture
def x():
    return torch.rand(N, *SHAPE)


def check(vae, x, idle=()):
    """Trains and is looked into as ours are."""
    before = {name: value.clone() for name, value in vae.named_parameters()}
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), vae.objective())
    for _ in range(2):
        assert torch.isfinite(torch.tensor(svi.step(x)))
    unchanged = {n for n, value in vae.named_parameters() if torch.equal(value, before[n])}
    assert unchanged == set(idle)
    assert {name: code.shape for name, code in vae.encode(x).items()} == {
        name: (N, size) for name, size in vae.sites.items()
    }
    assert vae.reconstruct(x).shape == vae.sample(N).shape == x.shape
    for name in vae.sites:
        assert vae.reconstruct(x, keep={name}).shape == x.shape
    for category in range(vae.num_categories or 0):
        assert vae.sample(2, category).shape == (2, *SHAPE)


class LearnedPrior(PyroModule):
    """One site of another size, with a scale that is learned."""

    def __init__(self, size=4):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(size))
        self.scale = PyroParam(torch.ones(size), dist.constraints.positive)

    def forward(self):
        return pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))


class IndexPrior(PyroModule):
    """A category by its index, not one-hot, with centres and weights that are learned."""

    def __init__(self, size=2):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(K))
        self.centres = nn.Embedding(K, size)

    def forward(self):
        c = pyro.sample("c", dist.Categorical(logits=self.logits))
        return pyro.sample("z", dist.Normal(self.centres(c.long()), 1.0).to_event(1))


class IndexGuide(PyroModule):
    def __init__(self, size=2):
        super().__init__()
        self.category = nn.Linear(12, K)
        self.loc = nn.Linear(12, size)
        self.shift = nn.Embedding(K, size)

    def forward(self, x):
        features = x.flatten(1)
        with pyro.plate("data", len(x)):
            c = pyro.sample(
                "c",
                dist.Categorical(logits=self.category(features)),
                infer={"enumerate": "parallel"},
            )
            loc = self.loc(features) + self.shift(c.long())
            pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))


def test_learned_prior_of_another_size(x):
    vae = mi.VAE(SHAPE, prior=LearnedPrior())
    assert vae.sites == {"z": 4}
    assert vae.latent_dim == 4
    check(vae, x)
    assert not torch.equal(vae.prior.scale, torch.ones(4))


@pytest.mark.parametrize("variant", [mi.CatVAE, mi.InfoCatVAE])
def test_category_by_index(variant, x):
    vae = variant(SHAPE, prior=IndexPrior(), guide=IndexGuide())
    assert vae.num_categories == K
    check(vae, x)


@pytest.mark.parametrize("variant", [mi.VAE, mi.CatVAE, mi.InfoCatVAE])
@pytest.mark.parametrize("make", [IndexPrior, lambda: other_names])
def test_category_of_any_name_and_form_by_default(variant, make, x):
    check(variant(SHAPE, prior=make()), x)


def test_prior_that_is_a_function(x):
    def prior():
        return pyro.sample("z", dist.Laplace(torch.zeros(3), 1.0).to_event(1))

    check(mi.VAE(SHAPE, prior=prior), x)


def test_prior_of_priors(x):
    class Prior(PyroModule):
        def __init__(self):
            super().__init__()
            self.inner = LearnedPrior(3)

        def forward(self):
            return self.inner()

    check(mi.VAE(SHAPE, prior=Prior()), x)


def test_encoder_and_decoder_of_plain_torch(x):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh())
    decoder = nn.Sequential(nn.Linear(6, 12), nn.Unflatten(-1, SHAPE))
    for variant, options in ((mi.VAE, {}), (mi.InfoCatVAE, {"num_categories": K})):
        vae = variant(SHAPE, latent_dim=6, encoder=encoder, decoder=decoder, **options)
        assert vae.guide.encoder is encoder
        assert vae.model.decoder is decoder
        check(vae, x)


def test_guide_that_depends_on_more_than_one_site(x):
    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Linear(12, 3)
            self.code = nn.Linear(15, 1)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.loc(x.flatten(1)), 1.0).to_event(1))
                loc = self.code(torch.cat([x.flatten(1), z], -1))
                pyro.sample("c", dist.Normal(loc, 0.5).to_event(1))

    check(mi.InfomaxVAE(SHAPE, latent_dim=4, guide=Guide()), x)


def test_likelihood_of_ones_own(x):
    class LaplaceLikelihood(Likelihood):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))

        def forward(self, decoded):
            return dist.Laplace(decoded, self.scale)

    check(mi.VAE(SHAPE, likelihood=LaplaceLikelihood()), x)


# Parts that do not fit


def guide_of(sites):
    return mi.MeanFieldGuide(SHAPE, sites)


class EventlessPrior(PyroModule):
    def forward(self):
        return pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))


class PlainGuide(nn.Module):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.flatten(1)[:, :2], 1.0).to_event(1))


def other_names():
    c = pyro.sample("k", dist.OneHotCategorical(torch.ones(K)))
    return pyro.sample("w", dist.Normal(c, 1.0).to_event(1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: mi.VAE(SHAPE, prior=LearnedPrior(4), guide=guide_of({"z": 3})),
            SiteError,
            r"site 'z' has shape \(4,\) in the prior and \(3,\) in the guide",
        ),
        (
            lambda: mi.VAE(SHAPE, guide=guide_of({"z": 20, "c": 1})),
            SiteError,
            r"sites \['c'\] are not in both",
        ),
        (
            lambda: mi.VAE(SHAPE, latent_dim=2, guide=PlainGuide()),
            OptionError,
            "PlainGuide.*PyroModule",
        ),
        (
            lambda: mi.VAE(SHAPE, guide=guide_of({"z": 20}), encoder=nn.Flatten()),
            OptionError,
            "encoder and guide are both given",
        ),
        (
            lambda: mi.InfomaxVAE(SHAPE, deterministic=True, guide=guide_of({"z": 19, "c": 1})),
            OptionError,
            "deterministic=True and a guide are both given",
        ),
        (lambda: mi.InfomaxVAE(SHAPE, prior=LearnedPrior()), SiteError, "needs two sites"),
        (lambda: mi.VAE(SHAPE, prior=EventlessPrior()), SiteError, r"\.to_event\(1\)"),
        (lambda: mi.CatVAE(SHAPE, prior=LearnedPrior()), SiteError, r"samples \['z'\]"),
        (
            lambda: mi.CatVAE(SHAPE, prior=LearnedPrior(), guide=guide_of({"z": 4})),
            SiteError,
            "CatVAE needs a category",
        ),
        (
            lambda: mi.CatVAE(SHAPE, prior=IndexPrior(), guide=mi.MixtureGuide(SHAPE, K, 2)),
            SiteError,
            r"site 'c' has shape \(\) in the prior and \(3,\) in the guide",
        ),
        (
            lambda: mi.VAE(SHAPE, decoder=MLPDecoder(20, (12,))),
            ShapeError,
            r"returns shape \(6, 12\) for codes of shape \(6, 20\), data_shape is \(1, 3, 4\)",
        ),
        (
            lambda: mi.VAE(SHAPE, latent_dim=3, decoder=MLPDecoder(4, SHAPE)),
            ShapeError,
            r"the decoder does not take codes of shape \(6, 3\)",
        ),
    ],
)
def test_parts_that_do_not_fit(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_subclass_with_a_constructor_of_its_own(x):
    class MyVAE(mi.VAE):
        def __init__(self, prior=None):
            super().__init__(SHAPE, prior=prior, latent_dim=20 if prior else 2)

    assert MyVAE().sites == {"z": 2}
    check(MyVAE(prior=mi.StandardNormalPrior(3)), x)
