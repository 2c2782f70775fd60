"""Options and uses of variants that are refused."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import pyro_mivae as mi
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError

SHAPE = (1, 3, 4)


ZERO = torch.zeros(2)
NORMAL, ANGLE = dist.Normal(ZERO, 1.0), dist.VonMises(ZERO, 1.0)


class Own(PyroModule):
    def __init__(self, *distributions):
        super().__init__()
        self.distributions = distributions

    def forward(self):
        return [pyro.sample("z", fn.to_event(1)) for fn in self.distributions][0]


class WithoutPlate(PyroModule):
    def forward(self, x):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 20), 1.0).to_event(1))


class Itself(mi.Likelihood):
    def forward(self, decoded):
        return decoded


class Unwilling(torch.nn.Linear):
    def __init__(self):
        super().__init__(12, 12)

    def forward(self, x):
        raise AssertionError("no")


@pytest.fixture(scope="module")
def vae():
    return mi.InfoCatVAE(SHAPE, num_categories=3, latent_dim=6)


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mi.VAE(()), ShapeError, r"data_shape=\(\): give the shape of one datum"),
        (lambda: mi.VAE((1, 0, 3)), ShapeError, r"data_shape=\(1, 0, 3\)"),
        (lambda: mi.VAE(SHAPE, latent_dim=0), OptionError, "latent_dim=0; allowed are whol"),
        (lambda: mi.VAE(SHAPE, likelihood="poison"), OptionError, "allowed are bernoulli, cont"),
        (lambda: mi.VAE(SHAPE, beta=2.0), TypeError, "beta"),
        (lambda: mi.BetaVAE(SHAPE, beta=-1.0), OptionError, "beta=-1.0; .* from 0"),
        (lambda: mi.BetaVAE(SHAPE, beta=float("nan")), OptionError, "beta=nan; allowed"),
        (lambda: mi.InfomaxVAE(SHAPE, code_dim=0), OptionError, "code_dim=0 of"),
        (lambda: mi.InfomaxVAE(SHAPE, latent_dim=3, code_dim=3), OptionError, "must leave z 1"),
        (lambda: mi.CatVAE(SHAPE, num_categories=0), OptionError, "num_categories=0; allowed"),
        (
            lambda: mi.CatVAE(SHAPE, num_categories=3, latent_dim=7),
            OptionError,
            "latent_dim=7 is not a multiple of num_categories=3.*e.g. latent_dim=6",
        ),
        (lambda: mi.CatVAE(SHAPE, radius=-1.0), OptionError, "radius=-1.0; .* from 0"),
        (
            lambda: mi.CatVAE(SHAPE, prior=mi.MixturePrior(3, 6), radius=3.0),
            OptionError,
            "radius=3.0 is given, but the prior has its own; .* build the prior with it",
        ),
        (
            lambda: mi.VAE(SHAPE, prior=mi.StandardNormalPrior(2, 2, sites=("x", "c"))),
            SiteError,
            "a site 'x', which is the name of the data; give it another",
        ),
        (
            lambda: mi.VAE(SHAPE, prior=mi.StandardNormalPrior(2, 2, sites=("data", "c"))),
            SiteError,
            "give a site another name",
        ),
        (lambda: mi.VAE(SHAPE, prior=Own(*2 * [NORMAL])), SiteError, "give each site a name of"),
        (lambda: mi.VAE(SHAPE, prior=Own(dist.Delta(ZERO))), SiteError, "for a constant no site"),
        (
            lambda: mi.VAE(SHAPE, prior=Own(ANGLE)),
            SiteError,
            "for an angle take mi.Spheri",
        ),
        (
            lambda: mi.VAE(SHAPE, guide=WithoutPlate()),
            SiteError,
            "Expected .*, actual .*; let it open pyro.plate",
        ),
        (
            lambda: mi.VAE(SHAPE, likelihood=Itself()),
            OptionError,
            "the likelihood Itself fails .*'batch_shape'.; let its forward make a distribution",
        ),
        (lambda: mi.VAE(SHAPE, likelihood=Itself), OptionError, "Itself is a class; give an inst"),
        (lambda: mi.VAE(SHAPE, prior="vamp"), OptionError, "names of priors are for the command"),
        (lambda: mi.VAE(SHAPE, decoder=Unwilling()), ShapeError, "decoder does not take .*(no)"),
        (lambda: mi.VAE(SHAPE, encoder=Unwilling()), ShapeError, "does not take data .*(no)"),
        (
            lambda: mi.CatVAE(SHAPE, categorical="hard"),
            OptionError,
            "categorical='hard'; allowed are auto, enumerate, sample, soft, gumbel",
        ),
        (
            lambda: mi.CatVAE(SHAPE, categorical="gumbel", temperature=0.0),
            OptionError,
            "temperature=0.0; .* above 0",
        ),
        (
            lambda: mi.CatVAE(SHAPE, temperature=0.5),
            OptionError,
            "give categorical='gumbel' or 'straight",
        ),
        (
            lambda: mi.CatVAE(SHAPE, num_decodes=3),
            OptionError,
            "'auto'; leave it out, or give categorical='sample'",
        ),
        (
            lambda: mi.InfoCatVAE(SHAPE, categorical="sample", num_decodes=1),
            OptionError,
            "num_decodes=1; allowed are whole numbers from 2",
        ),
        (
            lambda: mi.InfoCatVAE(SHAPE, num_categories=4, categorical="sample", num_decodes=5),
            OptionError,
            "num_decodes=5: .* to 4, the number of categories",
        ),
        (
            lambda: mi.CatVAE(SHAPE, categorical="sample", num_decodes=2.5),
            OptionError,
            "num_decodes=2.5; allowed are whole numbers",
        ),
        (lambda: mi.CategoryStart(warmup=1.5), OptionError, "warmup=1.5"),
        (lambda: mi.CatVAE(SHAPE, warm_start=-1), OptionError, "warm_start=-1"),
        (lambda: mi.InfoCatVAE(SHAPE, mi_weight=-1.0), OptionError, "mi_weight=-1.0; .* from 0"),
        (
            lambda: mi.InfoGAN(SHAPE, mi_weight=-1.0),
            OptionError,
            "mi_weight=-1.0; .* from 0",
        ),
        (
            lambda: mi.InfoGAN(SHAPE, num_categories=1),
            OptionError,
            "num_categories=1: one has",
        ),
        (lambda: mi.InfoGAN(SHAPE, num_categories=0, code_dim=0), OptionError, "a code is needed"),
        (lambda: mi.InfoGAN(SHAPE, latent_dim=2), OptionError, "code_dim=2 of latent_dim=2"),
        (lambda: mi.InfoGAN(SHAPE, code_dim=-1), OptionError, "code_dim=-1; .* from 0"),
        (lambda: mi.InfoGAN(SHAPE, likelihood="gaussian"), TypeError, "likelihood"),
        (
            lambda: mi.InfoGAN(SHAPE, prior=mi.StandardNormalPrior(2)),
            SiteError,
            "InfoGAN needs a code",
        ),
        (
            lambda: mi.InfoGAN(SHAPE, prior=mi.InfoGANPrior(3, 4, 0), code_dim=3),
            OptionError,
            "code_dim=3 is given, but the prior's code_dim is 0",
        ),
    ],
)
def test_bad_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda v, x: v.sample(0), OptionError, "n=0; .* from 1 up"),
        (lambda v, x: v.sample(2, 3), OptionError, "category=3: allowed are 0 to 2"),
        (lambda v, x: v.sample(2.5), OptionError, "n=2.5; allowed are whole numb"),
        (lambda v, x: v.sample(2, 1.5), OptionError, "category=1.5; allowed are who"),
        (lambda v, x: v.reconstruct(x, "y"), SiteError, r"sites \['y'\] given"),
        (lambda v, x: v.reconstruct(x, [1, "y"]), OptionError, r"keep\[0\]=1; allowed are texts"),
        (lambda v, x: v.sample(2, "D"), OptionError, "category=3: allowed are 0 to 2"),
        (lambda v, x: v.sample(2, "?"), OptionError, "allowed are numbers from 0, or letters"),
        (lambda v, x: v.sample(2, -1), OptionError, "category=-1: allowed are 0 to 2"),
        (lambda v, x: v.reconstruct(x, {"y"}), SiteError, r"sites \['y'\] given; allowed are"),
        (lambda v, x: v.decode({"y": x}, 4), SiteError, r"sites \['y'\] given"),
        (lambda v, x: v.check_data(x[:0]), DataError, "0 data given"),
        (
            lambda v, x: v.check_data(x[:, 0]),
            ShapeError,
            r"\(4, 3, 4\) given, \(n, 1, 3, 4\) needed",
        ),
        (lambda v, x: v.check_data(x[0]), ShapeError, r"\(3, 4\); a single datum is x\[None\]"),
        (lambda v, x: v.check_data(2 * x + 1), DataError, r"needs \[0, 1\]; rescale"),
        (lambda v, x: v.check_data(x / 0), DataError, "48 values that are NaN or infinite"),
        (lambda v, x: v.encode(x[:, 0]), ShapeError, r"data of shape \(4, 3, 4\) given"),
    ],
)
def test_bad_use(use, error, message, vae, x):
    with pytest.raises(error, match=message):
        use(vae, x)


def test_an_argument_that_is_misspelt():
    message = "VAE has no argument 'latentdim'; did you mean latent_dim?; it takes data_shape, la"
    with pytest.raises(TypeError, match=re.escape(message)):
        mi.VAE(SHAPE, latentdim=3)


def test_no_categories_to_sample():
    with pytest.raises(OptionError, match="category=0: VAE has no categories"):
        mi.VAE(SHAPE).sample(2, category=0)
