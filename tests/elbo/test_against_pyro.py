"""Many programs: loss and gradients are those of Pyro's own ELBOs on the same noise."""

import warnings

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.contrib.cevae import CEVAE
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning, SiteError

from .programs import AUXILIARY, X, param

pytestmark = pytest.mark.usefixtures("double")


# One latent site per datum, about which everything else varies


def pair(
    q=None, p=None, *, size=None, both=lambda fn: fn, prior=lambda fn: fn, likelihood=None, **plate
):
    """A model and a guide of one site; `both` and `prior` wrap the programs, or the site."""
    q = q or (lambda x: dist.Normal(param("a") * x, param("s", 0.8, positive=True)))
    p = p or (lambda: dist.Normal(param("m", 0.1), param("t", 1.5, positive=True)))
    options = {"size": size or len(X), **plate}

    def model(x):
        with pyro.plate("data", **options) as i:
            z = prior(lambda: pyro.sample("z", p()))()
            total = z if z.dim() == 1 else z.sum(-1)
            fn = (likelihood or (lambda z: dist.Normal(param("w", 0.7) * z, 1.0)))(total)
            pyro.sample("x", fn, obs=x[i])

    def guide(x):
        with pyro.plate("data", **options) as i:
            pyro.sample("z", q(x[i]))

    return both(model), both(guide)


def vector(x=0.0, scale=0.6):
    loc = torch.as_tensor(x)[..., None] * torch.tensor([0.2, 0.9])
    return dist.Normal(param("a") * loc, scale).to_event(1)


def both_masked(mask):
    return {
        "q": lambda x: dist.Normal(param("a") * x, 0.5).mask(mask),
        "p": lambda: dist.Normal(param("m"), 1.0).expand([6]).mask(mask),
    }


HALF = torch.tensor([True, False, True, True, False, True])
SCALES = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)


def scaled(by):
    return lambda fn: poutine.scale(fn, scale=by)


def masked(by):
    return lambda fn: poutine.mask(fn, mask=by)


MEAN_FIELD = {
    "normal": {},
    "no_batch": {"size": 6, "subsample": torch.arange(6)},
    "subsampled": {"subsample_size": 2},
    "explicit": {"subsample": torch.tensor([4, 0, 5])},
    "gamma": {
        "q": lambda x: dist.Gamma(param("a", 2.0, True), x.abs() + 0.5),
        "p": lambda: dist.Gamma(param("b", 1.5, True), 1.0),
    },
    "log_normal": {
        "q": lambda x: dist.LogNormal(param("a") * x, 0.5),
        "p": lambda: dist.LogNormal(param("m"), 1.0),
    },
    "beta_uniform": {
        "q": lambda x: dist.Beta(x.abs() + param("a", 1.0, True), 2.0),
        "p": lambda: dist.Uniform(0.0, 1.0),
    },
    "dirichlet": {
        "q": lambda x: dist.Dirichlet(x.abs()[:, None] + param("a", torch.ones(3), True)),
        "p": lambda: dist.Dirichlet(torch.ones(3)),
    },
    "vector": {"q": vector, "p": vector},
    "vector_full": {
        "q": vector,
        "p": lambda: dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + param("c", 0.2)),
    },
    "full_full": {
        "q": lambda x: dist.MultivariateNormal(vector(x).mean, torch.eye(2)),
        "p": lambda: dist.MultivariateNormal(torch.zeros(2), 2 * torch.eye(2)),
    },
    "no_closed_form": {
        "q": lambda x: dist.Laplace(param("a") * x, 0.5),
        "p": lambda: dist.StudentT(5.0, param("m"), 1.0),
    },
    "expanded": {"p": lambda: dist.Normal(param("m"), 1.0).expand([6])},
    "scaled": {"both": scaled(3.0)},
    "scaled_by_a_tensor": {"both": scaled(torch.tensor(3.0, dtype=torch.float64))},
    "scaled_each": {"both": scaled(SCALES)},
    "masked": {"both": masked(HALF)},
    "all_masked": {"both": masked(False)},
    "distribution_unmasked": both_masked(True),
    "distribution_all_masked": both_masked(False),
}


@pytest.mark.parametrize("name", MEAN_FIELD)
def test_equals_the_mean_field_elbo(name, assert_same):
    assert_same(
        mi.MutualInformationELBO(max_plate_nesting=1),
        TraceMeanField_ELBO(),
        *pair(**MEAN_FIELD[name]),
        X,
    )


def affine(x):
    normal = dist.Normal(param("a") * x, 0.5)
    return dist.TransformedDistribution(normal, [T.AffineTransform(0.5, 2.0)])


SAMPLED = {
    "transformed": {"q": affine},
    "transformed_prior_scaled": {"q": affine, "prior": scaled(0.1)},
    "guide_masked": {"q": lambda x: dist.Normal(param("a") * x, 0.5).mask(HALF)},
    "masked_differently": both_masked(HALF)
    | {"p": lambda: dist.Normal(param("m"), 1.0).expand([6]).mask(~HALF)},
    "masked_alike": both_masked(HALF),
    "point": {"q": lambda x: dist.Delta(param("a") * x)},
}


@pytest.mark.parametrize("name", SAMPLED)
def test_equals_the_sampled_elbo(name, assert_same):
    ours = mi.MutualInformationELBO(max_plate_nesting=1)
    assert_same(ours, Trace_ELBO(), *pair(**SAMPLED[name]), X)


@pytest.mark.parametrize(
    "prior", [scaled(0.1), scaled(SCALES), masked(HALF), masked(False)], ids="stmf"
)
def test_the_priors_own_scale_and_mask_count_in_closed_form(prior, evaluate):
    """Each side's weight: u E[log q] - v E[log p]."""
    model, guide = pair(prior=prior)
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    loss, slopes = evaluate(objective, model, guide, X)
    trace = poutine.trace(prior(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)))).get_trace()
    site = trace.nodes["z"]
    weight = torch.ones(6) * site["scale"]
    weight = weight if site["mask"] is None else weight * torch.as_tensor(site["mask"])
    a, s, m, t = (param(name) for name in "asmt")
    q, p = dist.Normal(a * X, s), dist.Normal(m, t)
    cross = kl_divergence(q, p) + q.entropy()
    expected = (-q.entropy() + weight * cross).sum()
    torch.testing.assert_close(objective.ledger["kl_z"], expected.detach())
    slope = torch.autograd.grad(expected, pyro.get_param_store()._params["m"])[0]
    torch.testing.assert_close(slopes["m"], slope)


# Plates


def nested(x):
    """A global site, a site per row and one per entry, both plates sub-sampled."""
    rows = pyro.plate("rows", 6, subsample_size=3, dim=-1)
    columns = pyro.plate("columns", 4, subsample_size=2, dim=-2)
    return x[:, None] + torch.arange(4.0), rows, columns


def nested_model(x):
    g = pyro.sample("g", dist.Normal(0.0, param("t", 1.5, True)))
    data, rows, columns = nested(x)
    with rows as i:
        r = pyro.sample("r", dist.Normal(g, 1.0))
        with columns as j:
            e = pyro.sample("e", dist.Normal(r, 2.0))
            pyro.sample("x", dist.Normal(e + param("w"), 1.0), obs=data[i][:, j].T)


def nested_guide(x):
    g = pyro.sample("g", dist.Normal(param("a"), 0.5))
    data, rows, columns = nested(x)
    with rows as i:
        r = pyro.sample("r", dist.Normal(param("b") * x[i] + g, 0.4))
        with columns as j:
            pyro.sample("e", dist.Normal(r + param("c") * data[i][:, j].T, 0.3))


def sequential(sample):
    def program(x):
        for i in pyro.plate("data", 6, subsample_size=2):
            sample(x, i)

    return program


@sequential
def sequential_model(x, i):
    z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
    pyro.sample(f"x{i}", dist.Normal(param("w") * z, 1.0), obs=x[i])


@sequential
def sequential_guide(x, i):
    pyro.sample(f"z{i}", dist.Normal(param("a") * x[i], 0.5))


def scalar_model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z * param("w"), 1.0), obs=x[0])


def scalar_guide(x):
    pyro.sample("z", dist.Normal(param("a"), param("s", 0.5, True)))


def factored_model(x):
    pyro.factor("f", -param("w").square())
    scalar_model(x)


def factored_guide(x):
    u = pyro.sample("u", dist.Normal(param("a"), 1.0), infer=AUXILIARY)
    pyro.factor("volume", -param("s", 0.5, True).log(), has_rsample=True)
    pyro.sample("z", dist.Delta(u * param("s", 0.5, True)))


def noting(fn):
    def program(x):
        pyro.deterministic("note", param("w") * x)
        fn(x)

    return program


def partly_observed_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z * param("w"), 1.0), obs=x, obs_mask=HALF)


def partly_observed_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(param("a") * x, 0.5))
        with poutine.mask(mask=~HALF):
            pyro.sample("x_unobserved", dist.Normal(param("b"), 1.0))


INTERVENED = poutine.do(nested_model, data={"g": torch.tensor(0.4, dtype=torch.float64)})
CONDITIONED = poutine.condition(nested_model, data={"g": torch.tensor(0.4, dtype=torch.float64)})


def without_g(x):
    with poutine.block(hide=["g"]):
        g = pyro.sample("g", dist.Delta(torch.tensor(0.4)))
    data, rows, columns = nested(x)
    with rows as i:
        r = pyro.sample("r", dist.Normal(param("b") * x[i] + g, 0.4))
        with columns as j:
            pyro.sample("e", dist.Normal(r + param("c") * data[i][:, j].T, 0.3))


@pytest.mark.parametrize(
    ("model", "guide", "theirs"),
    [
        (nested_model, nested_guide, TraceMeanField_ELBO),
        (sequential_model, sequential_guide, TraceMeanField_ELBO),
        (scalar_model, scalar_guide, TraceMeanField_ELBO),
        (factored_model, scalar_guide, TraceMeanField_ELBO),
        (scalar_model, factored_guide, Trace_ELBO),
        (noting(scalar_model), scalar_guide, TraceMeanField_ELBO),
        (partly_observed_model, partly_observed_guide, TraceMeanField_ELBO),
        (CONDITIONED, without_g, TraceMeanField_ELBO),
    ],
)
@pytest.mark.parametrize("particles", [1, 3])
def test_plates_factors_and_handlers(model, guide, theirs, particles, assert_same):
    vectorize = particles > 1 and model is nested_model
    options = {"num_particles": particles, "vectorize_particles": vectorize}
    ours = mi.MutualInformationELBO(max_plate_nesting=2, **options)
    assert_same(ours, theirs(max_plate_nesting=2, **options), model, guide, X)


def test_keywords_are_passed_on(assert_same):
    def model(x, *, scale):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, *, scale):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(param("a") * x, scale))

    assert_same(mi.MutualInformationELBO(), TraceMeanField_ELBO(), model, guide, X, scale=2.0)


# What is refused, and what counts with a warning


def no_plate(x):
    pyro.sample("z", dist.Normal(param("a"), 0.1))


def wrong_event(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, None], 0.1).to_event(1))


def with_category(x, infer=None):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(0.5 + 0 * x), infer=infer)


def factor_of_a_draw(x):
    pair()[1](x)
    pyro.factor("f", param("a"), has_rsample=False)


def with_one_more(x):
    pair()[1](x)
    pyro.sample("y", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("model", "guide", "error", "message"),
    [
        (pair()[0], no_plate, ValueError, "shapes disagree at site 'z'"),
        (pair(p=vector)[0], wrong_event, ValueError, "shapes disagree at site 'z'"),
        (pair(p=lambda: vector(0.0))[0], pair()[1], ValueError, "event_dims disagree"),
        (pair()[0], with_category, SiteError, "annotate it"),
        (pair()[0], factor_of_a_draw, SiteError, "has_rsample=True"),
        (pair()[0], with_one_more, SiteError, r"\['y'\] are not in both.*is_auxiliary"),
        (poutine.block(pair()[0], hide=["z"]), pair()[1], SiteError, "are not in both"),
        (partly_observed_model, pair()[1], SiteError, "x_unobserved"),
        (INTERVENED, without_g, SiteError, "are not in both"),
    ],
)  # fmt: skip
def test_refused(model, guide, error, message):
    with pytest.raises(error, match=message):
        mi.MutualInformationELBO(max_plate_nesting=1).loss(model, guide, X)


def test_what_the_guide_observes_counts_as_in_trace_elbo(evaluate):
    torch.manual_seed(0)
    x = torch.randn(30, 3)
    t = y = (x[:, 0] > 0).double()
    cevae = CEVAE(feature_dim=3, outcome_dist="bernoulli", latent_dim=2, hidden_dim=4)
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    hidden = poutine.block(cevae.guide, hide=["t", "y"])
    bound = evaluate(objective, cevae.model, hidden, x, t, y)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the order of sites
        expected = evaluate(TraceMeanField_ELBO(), cevae.model, cevae.guide, x, t, y)[0]
    assert bound == pytest.approx(expected)
    with pytest.warns(PyroMivaeWarning, match=r"observes \['t', 'y'\].*not a bound"):
        loss = evaluate(objective, cevae.model, cevae.guide, x, t, y)[0]
    trace = poutine.trace(cevae.guide).get_trace(x, t, y)
    noted = trace.log_prob_sum(lambda name, site: name in "ty").detach()
    assert loss == pytest.approx(bound + float(noted))
    torch.testing.assert_close(objective.ledger["kl_t"] + objective.ledger["kl_y"], noted)
