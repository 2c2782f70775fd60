"""The guide of any prior: categories by brute force, supports, and what it refuses."""

import math
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, TraceMeanField_ELBO, config_enumerate
from pyro.nn import PyroModule
from pyro.poutine.enum_messenger import EnumMessenger
from torch import nn

import pyro_mivae as mi
from pyro_mivae.distributions import ProbitNormal
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import FAMILIES, Family, MeanField
from pyro_mivae.networks import MLPDecoder, MLPEncoder
from pyro_mivae.priors import prior_sites
from tests.priors.kinds import scattered

SHAPE, N, A, B, D = (2, 3), 4, 3, 2, 2
ENUMERATED = {"enumerate": "parallel"}


@pytest.fixture
def x(double):
    return torch.rand(N, *SHAPE)


def encoder():
    return MLPEncoder(SHAPE, (7,), nn.Tanh)


class TwoCategories(PyroModule):
    """A one-hot category, one by its index, a site given both, and one given nothing."""

    def __init__(self):
        super().__init__()
        self.locs = nn.Parameter(torch.randn(A, B, D))

    def forward(self):
        a = pyro.sample("a.one", dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])))
        b = pyro.sample("keys", dist.Categorical(torch.tensor([0.4, 0.6])))
        loc = torch.einsum("...a,abd->...bd", a, self.locs)
        index = b.long()[..., None, None].expand(*b.shape, 1, D)
        index, loc = torch.broadcast_tensors(index, loc[..., :1, :])[0], loc
        loc = loc.expand(*index.shape[:-2], B, D).gather(-2, index).squeeze(-2)
        z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
        u = pyro.sample("u", dist.Laplace(torch.zeros(1), 1.0).to_event(1))
        return torch.cat([z, u.expand(*z.shape[:-1], 1)], -1)


def vae_of(family="mean-field", prior=None, **options):
    torch.manual_seed(0)
    return mi.VAE(
        SHAPE,
        prior=TwoCategories() if prior is None else prior,
        guide=family,
        decoder=MLPDecoder(D + 1, SHAPE, (5,), nn.Tanh),
        **options,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_two_categories_are_summed_out_as_by_brute_force(family, x):
    """Sums over all pairs of categories, each with the noise of the enumerated run."""
    vae = vae_of(family)
    scattered(vae.guide)  # an untrained flow is the identity
    vae.eval()
    traces = run_enumerated(vae, x)
    values = {name: traces.nodes[name]["value"] for name in vae.sites}
    probs = {n: traces.nodes[n]["fn"].probs for n in ("a.one", "keys")}
    total = torch.zeros(N)
    for i, j in product(range(A), range(B)):
        fixed = {"a.one": torch.eye(A)[i].expand(N, A), "keys": torch.full((N,), float(j))}
        z = values["z"].expand(B, A, N, D)[j, i]
        u = values["u"].expand(B, A, N, 1)[j, i]
        told = fixed | {"z": z, "u": u}
        q = poutine.trace(poutine.condition(vae.guide, told)).get_trace(x)
        p = poutine.trace(poutine.condition(vae.model, told)).get_trace(x)
        q.compute_log_prob(), p.compute_log_prob()
        score = p.nodes["x"]["log_prob"]
        score = score + sum(p.nodes[n]["log_prob"] - q.nodes[n]["log_prob"] for n in fixed)
        for name in ("z", "u"):
            score = score - rate(q.nodes[name], p.nodes[name])
        total = total + probs["a.one"][:, i] * probs["keys"][:, j] * score
    torch.manual_seed(5)
    elbo = mi.MutualInformationELBO(max_plate_nesting=1)
    loss = elbo.differentiable_loss(vae.model, vae.guide, x)
    torch.testing.assert_close(-loss, total.sum())


def run_enumerated(vae, x):
    torch.manual_seed(5)
    with EnumMessenger(first_available_dim=-2):
        return poutine.trace(vae.guide).get_trace(x)


def rate(q, p):
    """The KL divergence in closed form where there is one, else at the value."""
    try:
        return torch.distributions.kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:
        return q["log_prob"] - p["log_prob"]


def test_every_site_is_enumerated_or_has_a_gradient(x):
    vae = vae_of()
    trace = run_enumerated(vae, x)
    assert [n for n in vae.sites if trace.nodes[n]["infer"].get("enumerate")] == ["a.one", "keys"]
    assert trace.nodes["a.one"]["value"].shape == (A, 1, A)
    assert trace.nodes["keys"]["value"].shape == (B, 1, 1)
    assert trace.nodes["z"]["fn"].batch_shape == (B, A, N)


def test_sites_before_a_category_do_not_depend_on_it(x):
    class Late(PyroModule):
        def forward(self):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("c", dist.OneHotCategorical(logits=torch.cat([z, z], -1)))
            return z

    guide = mi.VAE(SHAPE, prior=Late()).guide
    trace = poutine.trace(config_enumerate(guide)).get_trace(x)
    assert trace.nodes["z"]["fn"].batch_shape == (N,)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prior", [mi.StandardNormalPrior(3, 1), mi.UniformPrior(3, 1)])
def test_families_on_other_supports_and_sizes(family, prior, x):
    vae = mi.VAE(SHAPE, prior=prior, guide=family, encoder=encoder())
    q = vae.guide.distributions(x)
    assert {name: fn.event_shape.numel() for name, fn in q.items()} == {"z": 3, "c": 1}
    assert isinstance(getattr(q["c"], "base_dist", None), ProbitNormal) == isinstance(
        prior, mi.UniformPrior
    )
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), vae.objective())
    before = {name: value.clone() for name, value in vae.guide.named_parameters()}
    assert all(math.isfinite(svi.step(x)) for _ in range(3))  # a flow starts as the identity
    assert not any(torch.equal(p, before[n]) for n, p in vae.guide.named_parameters())
    assert {n: code.shape for n, code in vae.encode(x).items()} == {"z": (N, 3), "c": (N, 1)}


def test_distributions_are_those_of_a_run(x):
    vae = mi.VAE(SHAPE, guide="full-covariance", latent_dim=3)
    vae.eval()
    run = poutine.trace(vae.guide).get_trace(x).nodes["z"]["fn"]
    known = vae.guide.distributions(x)["z"]
    torch.testing.assert_close(known.covariance_matrix, run.covariance_matrix)
    torch.testing.assert_close(known.mean, run.mean)
    guide = mi.MixtureGuide(SHAPE, 3, 2).eval()
    nodes = poutine.trace(guide).get_trace(x).nodes
    known = guide.distributions(x)
    torch.testing.assert_close(known["c"].logits, nodes["c"]["fn"].logits)
    given_c = known["z"]({"c": nodes["c"]["value"]})
    torch.testing.assert_close(given_c.mean, nodes["z"]["fn"].mean)
    assert known["z"]({"c": torch.eye(3).unsqueeze(1)}).batch_shape == (3, N)


def test_a_family_of_ones_own(x):
    class Laplace(Family):
        def __init__(self, size):
            super().__init__(size)
            self.num_params = size

        def forward(self, params):
            return dist.Laplace(params, 1.0).to_event(1)

    sites, _ = prior_sites(mi.StandardNormalPrior(3))
    guide = mi.AmortizedGuide(SHAPE, sites, encoder(), family=Laplace)
    vae = mi.VAE(SHAPE, latent_dim=3, guide=guide)
    assert math.isfinite(vae.objective().loss(vae.model, vae.guide, x))
    with pytest.raises(OptionError, match="family builds a Linear; let it build a Family"):
        mi.AmortizedGuide(SHAPE, sites, family=lambda size: nn.Linear(size, size))


def test_pyros_mean_field_elbo_agrees(x):
    vae = mi.VAE(SHAPE, prior=mi.StandardNormalPrior(3, 1), guide="mean-field")
    losses = []
    for elbo in (vae.objective(), TraceMeanField_ELBO()):
        torch.manual_seed(3)
        losses.append(elbo.loss(vae.model, vae.guide, x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def prior_of(fn):
    return lambda: pyro.sample("z", fn)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: mi.VAE(SHAPE, prior=prior_of(dist.Gamma(torch.ones(2), 1.0).to_event(1))),
            SiteError,
            r"site 'z' is Gamma of shape \(2,\) in the prior; .* give a guide",
        ),
        (
            lambda: mi.VAE(SHAPE, prior=prior_of(dist.Uniform(-torch.ones(2), 1).to_event(1))),
            SiteError,
            "site 'z' is Uniform of shape",
        ),
        (
            lambda: mi.VAE(SHAPE, prior=prior_of(dist.Bernoulli(torch.ones(2)).to_event(1))),
            SiteError,
            r"site 'z' is Bernoulli of shape \(2,\) .* one category per site",
        ),
        (
            lambda: mi.AmortizedGuide(SHAPE, {"z": dist.Normal(0, 1)}, deterministic=("c",)),
            OptionError,
            r"deterministic=\['c'\]; allowed are continuous sites of the prior, \['z'\]",
        ),
        (
            lambda: mi.AmortizedGuide(SHAPE, {"z": dist.Normal(0, 1)}, family="normal"),
            OptionError,
            "family='normal'; allowed are mean-field, full-covariance",
        ),
        (
            lambda: mi.AmortizedGuide(SHAPE, {"z": dist.Normal(0, 1)}, family=MeanField(2)),
            OptionError,
            "family=a MeanField; allowed",
        ),
    ],
)
def test_what_it_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("fn", [dist.Uniform(torch.zeros(2), 1.0), dist.Beta(torch.ones(2), 1.0)])
def test_other_priors_on_the_unit_interval(fn, x):
    vae = mi.VAE(SHAPE, prior=prior_of(fn.to_event(1)))
    assert isinstance(vae.guide.distributions(x)["z"].base_dist, ProbitNormal)
    assert math.isfinite(vae.objective().loss(vae.model, vae.guide, x))
