"""The report on models whose every figure has a closed form, or can be summed by hand."""

import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pyro_mivae.bounds import infonce_bound, leave_one_out_bound
from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.elbo_parts import costs
from pyro_mivae.diagnostics.mi_bounds import information_in_code
from pyro_mivae.diagnostics.per_dimension import dimensions
from pyro_mivae.diagnostics.report import information as report_of
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError
from pyro_mivae.posterior.preserved_state import seeded

SIGMA = 0.7
# Without data of the model's own, and with few importance samples: both take their time.
information = partial(report_of, generative_items=0, iwae_samples=8, iwae_items=100)
CONTRACT = (
    "distortion rate elbo log_px mi_lower mi_upper marginal_kl_lower marginal_kl_upper "
    "total_correlation active_units"
).split()


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


class LinearGaussian:
    """x = W z + noise, and a guide q(z|x) = N(A x + b, S); every figure in closed form.

    The data are drawn from N(0, data_cov), which need not be the model's.
    """

    def __init__(self, weight, gain, offset, cov, data_cov=None, *, site="z"):
        self.weight, self.gain, self.offset, self.cov, self.site = weight, gain, offset, cov, site
        self.dims, self.latent = weight.shape
        self.model_cov = weight @ weight.T + SIGMA**2 * torch.eye(self.dims)
        self.data_cov = self.model_cov if data_cov is None else data_cov

    @classmethod
    def exact(cls, weight, **options):
        precision = torch.eye(weight.shape[1]) + weight.T @ weight / SIGMA**2
        cov = precision.inverse()
        return cls(weight, cov @ weight.T / SIGMA**2, torch.zeros(weight.shape[1]), cov, **options)

    def data(self, n):
        return MultivariateNormal(torch.zeros(self.dims), self.data_cov).sample((n,))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample(self.site, dist.Normal(torch.zeros(self.latent), 1.0).to_event(1))
            pyro.sample("obs", dist.Normal(z @ self.weight.T, SIGMA).to_event(1), obs=x)

    def guide(self, x):
        loc = x @ self.gain.T + self.offset
        with pyro.plate("data", len(x)):
            if torch.equal(self.cov, self.cov.diagonal().diag()):
                fn = dist.Normal(loc, self.cov.diagonal().sqrt()).to_event(1)
            else:
                fn = dist.MultivariateNormal(loc, self.cov)
            pyro.sample(self.site, fn)

    def truth(self, x):
        """Closed forms; log_px and the costs at the data themselves."""
        prior = MultivariateNormal(torch.zeros(self.latent), torch.eye(self.latent))
        posterior = MultivariateNormal(x @ self.gain.T + self.offset, self.cov)
        cov = self.gain @ self.data_cov @ self.gain.T + self.cov
        rate = kl_divergence(posterior, prior).mean()
        residual = x - posterior.mean @ self.weight.T
        spread = (self.weight @ self.cov @ self.weight.T).trace()
        distortion = 0.5 * (residual.square().sum(-1).mean() + spread) / SIGMA**2
        distortion += 0.5 * self.dims * math.log(2 * math.pi * SIGMA**2)
        likelihood = MultivariateNormal(torch.zeros(self.dims), self.model_cov)
        information = 0.5 * (cov.logdet() - self.cov.logdet())
        return {
            "rate": rate,
            "distortion": distortion,
            "elbo": -rate - distortion,
            "log_px": likelihood.log_prob(x).mean(),
            "information": information,
            "marginal_kl": kl_divergence(MultivariateNormal(self.offset, cov), prior),
            "total_correlation": 0.5 * (cov.diagonal().log().sum() - cov.logdet()),
            "active": (cov - self.cov).diagonal().gt(0.01).sum(),
        }


ORTHOGONAL = torch.tensor(
    [[0.9, 0.0], [0.0, 0.7], [0.0, 0.0], [0.0, 0.9], [0.2, 0.0]], dtype=torch.float64
)
SLANTED = torch.tensor([[0.9, 0.4], [0.1, 0.7], [0.5, 0.5], [0.0, 0.3]], dtype=torch.float64)


def wrong(latent, dims):
    """A guide that has nothing to do with the posterior, on data that are not the model's."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(dims, latent, generator=generator) / 2
    gain = torch.randn(latent, dims, generator=generator) / 2
    scale = torch.linspace(0.3, 1.2, latent)
    root = torch.randn(dims, dims, generator=generator) / 2
    cov = root @ root.T + 0.1 * torch.eye(dims)
    return LinearGaussian(weight, gain, torch.linspace(-0.5, 0.5, latent), scale.diag(), cov)


def cases():
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return {
            "exact": LinearGaussian.exact(ORTHOGONAL),
            "exact, full covariance": LinearGaussian.exact(SLANTED, site="code"),
            "wrong": wrong(2, 3),
            "wrong, one dimension": wrong(1, 2),
        }
    finally:
        torch.set_default_dtype(dtype)


CASES = cases()


def between(report, name, truth, slack=4.0):
    """The truth lies in the interval, give or take standard errors."""
    low, high = f"{name}_lower", f"{name}_upper"
    assert report[low] <= report[high]
    assert truth >= report[low] - slack * report[f"{low}_se"] - 1e-9
    assert truth <= report[high] + slack * report[f"{high}_se"] + 1e-9


@pytest.mark.parametrize("name", CASES)
def test_linear_gaussian_figures_are_the_closed_forms(name):
    pair = CASES[name]
    x = pair.data(1500)
    truth = pair.truth(x)
    report = information(pair.model, pair.guide, x)
    values = report.to_dict()
    assert set(CONTRACT) <= set(values)
    assert all(type(value) is float for value in values.values())

    diagonal = torch.equal(pair.cov, pair.cov.diagonal().diag())
    closed = 1e-9 if diagonal else 4 * values["rate_se"]  # Pyro knows no KL of the full one
    assert abs(values["rate"] - truth["rate"]) < closed
    assert values[f"kl_{pair.site}"] == values["rate"]
    noise = 4 * values["distortion_se"]
    assert abs(values["distortion"] - truth["distortion"]) < noise
    assert abs(values["elbo"] - truth["elbo"]) < noise
    assert math.isclose(values["elbo"], -values["distortion"] - values["rate"], rel_tol=1e-9)
    assert values["elbo"] - noise < values["log_px"]
    if name.startswith("exact"):  # every importance weight is the same
        gain = values["log_px"] - values["elbo"]
        assert abs(gain - (truth["log_px"] - truth["elbo"])) < noise
    assert values["log_px"] < truth["log_px"] + noise

    between(values, "mi", truth["information"])
    between(values, f"mi_{pair.site}", truth["information"])
    between(values, "marginal_kl", truth["marginal_kl"])
    assert values["mi_upper"] <= values["rate"]
    assert values["mi_upper"] - values["mi_lower"] < 0.1
    assert values["saturated"] == 0
    assert values["active_units"] == truth["active"]
    if pair.latent == 1:
        assert values["total_correlation"] == 0
    else:
        between(values, "total_correlation", truth["total_correlation"])
        error = 4 * values["total_correlation_se"] + 0.01
        assert abs(values["total_correlation"] - truth["total_correlation"]) < error


def test_log_likelihood_of_an_exact_guide_is_exact():
    pair = CASES["exact"]
    x = pair.data(50)
    report = information(pair.model, pair.guide, x, iwae_samples=7, batch_size=32)
    assert math.isclose(report["log_px"], pair.truth(x)["log_px"], rel_tol=1e-9)


def test_importance_samples_close_the_gap_of_a_wrong_guide():
    pair = CASES["exact"]
    pair = LinearGaussian(pair.weight, pair.gain, torch.tensor([0.4, -0.4]), 1.5 * pair.cov)
    x = pair.data(200)
    truth = pair.truth(x)["log_px"]
    few, many = (
        information(pair.model, pair.guide, x, iwae_samples=k, iwae_items=200)["log_px"]
        for k in (1, 1000)
    )
    assert few < many - 0.1
    assert abs(truth - many) < 0.01


def test_a_subset_of_importance_samples_is_put_on_the_scale_of_the_elbo():
    pair = CASES["exact"]
    pair = LinearGaussian(pair.weight, pair.gain, torch.tensor([0.4, -0.4]), 1.5 * pair.cov)
    x = 4 * pair.data(2000)  # far from the model's: log p(x) varies by 20 nats
    report = information(pair.model, pair.guide, x, iwae_items=100, iwae_samples=500)
    assert report.protocol["iwae_items"] == 100
    truth = pair.truth(x)["log_px"]
    assert truth > report["elbo"] + 0.3
    # The mean over 100 data alone would have an error of 2 nats.
    assert abs(report["log_px"] - truth) < 0.2
    assert report["elbo_se"] < report["log_px_se"] < 1.2 * report["elbo_se"]


def test_streamed_pairs_are_the_pure_bounds():
    pair = CASES["wrong"]
    x = pair.data(40)
    seen = []

    def guide(x):
        pair.guide(x)

    report = information(pair.model, guide, x, batch_size=7)
    with seeded(0, x.device):  # the same codes
        for part in x.split(7):
            for sample in range(report.protocol["num_samples"]):
                trace = poutine.trace(guide).get_trace(part)
                torch.distributions.Categorical(torch.ones(len(part), 1)).sample()
                if sample == 0:
                    seen.append(trace.nodes["z"]["value"])
    codes = torch.cat(seen)
    trace = poutine.trace(guide).get_trace(x)
    densities = trace.nodes["z"]["fn"].log_prob(codes[:, None])
    assert math.isclose(report["mi_lower"], infonce_bound(densities), rel_tol=1e-8)
    upper = min(leave_one_out_bound(densities), report["rate"])
    assert math.isclose(report["mi_upper"], upper, rel_tol=1e-8)


def test_too_much_information_is_said_to_saturate():
    weight = torch.eye(6) * 20
    pair = LinearGaussian.exact(weight)
    x = pair.data(200)
    report = information(pair.model, pair.guide, x)
    truth = pair.truth(x)["information"]
    assert truth > math.log(200) + 5
    assert report["saturated"] == 1
    assert report["mi_lower"] <= math.log(200)
    assert report["mi_upper"] == report["rate"]
    assert report["marginal_kl_lower"] == 0
    between(report, "mi", truth)


def test_a_collapsed_code_knows_nothing():
    pair = CASES["exact"]

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    values = information(pair.model, guide, pair.data(300)).to_dict()
    for name in ("rate", "mi_lower", "mi_upper", "marginal_kl_upper", "active_units", "saturated"):
        assert abs(values[name]) < 1e-9, name


# Enumerated sites -----------------------------------------------------------------------------


class Discrete:
    """Two categories, one given the other, and six kinds of data: every sum is finite."""

    kinds = 6

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def table(*shape):
            return (1.5 * torch.randn(*shape, generator=generator)).softmax(-1)

        self.prior_a, self.prior_b = table(3), table(3, 2)
        self.likelihood = table(3, 2, self.kinds)
        self.guide_a, self.guide_b = table(self.kinds, 3), table(self.kinds, 3, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(self.prior_a))
            b = pyro.sample("b", dist.Categorical(self.prior_b[a]))
            pyro.sample("x", dist.Categorical(self.likelihood[a, b]), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(self.guide_a[x]))
            pyro.sample("b", dist.Categorical(self.guide_b[x, a]))


def test_a_discrete_model_is_summed_exactly():
    pair = Discrete()
    x = torch.arange(pair.kinds).repeat(4)
    n = len(x)
    sums = dict.fromkeys(("distortion", "kl_a", "kl_b", "log_px"), 0.0)
    joint = torch.zeros(n, 3, 2)
    for i, a, b in itertools.product(range(n), range(3), range(2)):
        k = x[i]
        q_a, q_b = pair.guide_a[k, a], pair.guide_b[k, a, b]
        joint[i, a, b] = q_a * q_b
        sums["distortion"] -= q_a * q_b * pair.likelihood[a, b, k].log() / n
        sums["kl_a"] += q_a * q_b * (q_a / pair.prior_a[a]).log() / n
        sums["kl_b"] += q_a * q_b * (q_b / pair.prior_b[a, b]).log() / n
    evidence = torch.einsum("a,ab,abk->k", pair.prior_a, pair.prior_b, pair.likelihood)
    values = information(
        pair.model, pair.guide, x, iwae_samples=50_000, batch_size=2**15
    ).to_dict()
    for name in ("distortion", "kl_a", "kl_b"):
        assert math.isclose(values[name], sums[name], rel_tol=1e-9), name
    assert math.isclose(values["rate"], sums["kl_a"] + sums["kl_b"], rel_tol=1e-9)
    assert abs(values["log_px"] - evidence.log().mean()) < 0.02

    def information_of(table):
        flat = table.reshape(n, -1)
        return float((flat * (flat / flat.mean(0)).log()).sum(1).mean())

    for name, table in (("", joint), ("_a", joint.sum(2)), ("_b", joint.sum(1))):
        truth = information_of(table)
        assert math.isclose(values[f"mi{name}_lower"], truth, rel_tol=1e-9)
        assert truth <= values[f"mi{name}_upper"] <= values["rate"]
    assert math.isclose(
        values["marginal_kl_upper"], values["rate"] - information_of(joint), rel_tol=1e-9
    )
    assert math.isnan(values["total_correlation"])
    assert values["active_units"] == 0


def test_the_plugin_is_low_and_leaving_out_is_high_for_a_population(monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (information_in_code,))
    pair = Discrete(seed=1)
    table = pair.guide_a
    truth = float((table * (table / table.mean(0)).log()).sum(1).mean())
    low, high = [], []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(pair.kinds, (12,), generator=generator)
        values = information(pair.model, pair.guide, x, iwae_samples=1)
        low.append(values["mi_a_lower"])
        high.append(values["mi_a_upper"])
    assert sum(low) / 20 < truth < sum(high) / 20


class Mixture(nn.Module):
    """A category and a normal given it, in both; x is two-dimensional."""

    def __init__(self, categories=3):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.centres = 2 * torch.randn(categories, 2, generator=generator)
        self.logits = torch.randn(2, categories, generator=generator)
        self.shift = torch.randn(categories, 2, generator=generator)
        self.scale = torch.linspace(0.3, 0.8, categories)

    def model(self, x):
        with pyro.plate("items", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(torch.ones(len(self.centres))))
            z = pyro.sample("place", dist.Normal(c @ self.centres, 1.0).to_event(1))
            pyro.sample("seen", dist.Normal(z, SIGMA).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("items", len(x)):
            c = pyro.sample("kind", dist.OneHotCategorical(logits=x @ self.logits))
            loc = 0.6 * x + c @ self.shift
            fn = dist.Normal(loc, (c @ self.scale).unsqueeze(-1)).to_event(1)
            pyro.sample("place", fn)


def grid_information(pair, x, joint):
    """I(x; place), or I(x; kind, place), by summing over a fine grid of places."""
    axis = torch.linspace(-8, 8, 81)
    cell = (axis[1] - axis[0]) ** 2
    grid = torch.cartesian_prod(axis, axis)
    weights = (x @ pair.logits).softmax(-1)  # (n, categories)
    loc = 0.6 * x[:, None] + pair.shift
    each = [
        weights[:, k, None] * Normal(loc[:, k, None], pair.scale[k]).log_prob(grid).sum(-1).exp()
        for k in range(len(pair.scale))
    ]
    density = torch.stack(each, 1) if joint else sum(each)[:, None]  # (n, categories, grid)
    return float(
        (density.xlogy(density) - density.xlogy(density.mean(0))).sum((1, 2)).mean() * cell
    )


def test_a_mixture_is_summed_over_its_categories():
    pair = Mixture()
    x = pair.centres[torch.arange(120) % 3] + 0.5 * torch.randn(120, 2)
    values = information(pair.model, pair.guide, x, num_samples=20).to_dict()
    prior = dist.Normal(pair.centres, 1.0).to_event(1)
    q = (x @ pair.logits).softmax(-1)
    posterior = dist.Normal(
        0.6 * x[:, None] + pair.shift, pair.scale[:, None].expand(3, 2)
    ).to_event(1)
    kl_place = (q * kl_divergence(posterior, prior)).sum(-1).mean()
    kl_kind = (q * (q * 3).log()).sum(-1).mean()
    assert math.isclose(values["kl_place"], kl_place, rel_tol=1e-9)
    assert math.isclose(values["kl_kind"], kl_kind, rel_tol=1e-9)
    mean = (q[..., None] * posterior.mean).sum(1)
    spread = (q[..., None] * (posterior.mean.square() + posterior.variance)).sum(1)
    error = (x - mean).square() + spread - mean.square()
    distortion = (0.5 * error / SIGMA**2).sum(-1).mean() + math.log(2 * math.pi * SIGMA**2)
    assert abs(values["distortion"] - distortion) < 4 * values["distortion_se"] / math.sqrt(20)
    assert values["active_units"] == int((mean.var(0) > 0.01).sum())

    # For these data as the population: the interval holds the sum over the grid.
    for name, joint in (("mi", True), ("mi_place", False)):
        between(values, name, grid_information(pair, x, joint))
        assert values[f"{name}_upper"] - values[f"{name}_lower"] < 0.1
    assert values["mi_kind_upper"] <= values["kl_kind"]
    assert values["mi_place_upper"] <= values["mi_upper"] + 1e-12


def test_the_divergence_from_a_prior_given_the_category_bounds_nothing():
    means = torch.tensor([[-5.0], [5.0]])

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(torch.ones(2)))
            z = pyro.sample("z", dist.Normal(c @ means, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(logits=torch.cat([-30 * x, 30 * x], -1)))
            pyro.sample("z", dist.Normal(c @ means, 1.0).to_event(1))

    x = 5 * (torch.arange(300) % 2)[:, None] - 2.5
    report = information(model, guide, x)
    assert abs(report["kl_z"]) < 1e-9
    between(report, "mi_z", math.log(2))
    assert report["mi_z_lower"] > 0.6


def test_annotating_a_site_or_not_changes_nothing():
    pair = Mixture()

    def annotated(x):
        with poutine.infer_config(
            config_fn=lambda site: {"enumerate": "parallel"} if site["name"] == "kind" else {}
        ):
            pair.guide(x)

    x = torch.randn(30, 2)
    assert information(pair.model, pair.guide, x) == information(pair.model, annotated, x)


# Sites that depend on drawn ones --------------------------------------------------------------


class Chain:
    """z, then w given z, all linear and Gaussian; ``cat`` makes a guide that cannot broadcast."""

    def __init__(self, cat):
        self.cat = cat
        self.link = torch.tensor([[0.8], [0.3], [-0.7]])  # of x (2) and z (1) to w

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            w = pyro.sample("w", dist.Normal(0.5 * z, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + w, 1.0).expand([len(x), 2]).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x[:, :1], 0.6).to_event(1))
            if self.cat:
                loc = torch.cat([x, z], -1) @ self.link
            else:
                loc = x @ self.link[:2] + z * self.link[2]
            pyro.sample("w", dist.Normal(loc, 0.5).to_event(1))

    def truth(self):
        """For x ~ N(0, I): covariance of (z, w), given x and marginally."""
        root = torch.tensor([[0.6, 0.0], [0.6 * -0.7, 0.5]])
        gain = torch.tensor([[1.0, 0.0], [0.8 - 0.7, 0.3]])
        inner = root @ root.T
        return inner, inner + gain @ gain.T


@pytest.mark.parametrize("cat", [False, True])
def test_a_site_may_depend_on_a_drawn_one(cat):
    pair = Chain(cat)
    inner, outer = pair.truth()
    report = information(pair.model, pair.guide, torch.randn(250, 2))
    between(report, "mi", float(0.5 * (outer.logdet() - inner.logdet())))
    assert report["mi_upper"] - report["mi_lower"] < 0.3
    between(report, "mi_z", float(0.5 * (outer[0, 0] / inner[0, 0]).log()))
    assert math.isnan(report["mi_w_lower"])  # an integral over z
    assert math.isnan(report["total_correlation"])
    assert report.protocol["num_samples"] >= 2
    # Variance of E[w | x] is 0.1, that of w given z and x is far more.
    assert report["active_units"] == 2


def test_noise_of_a_drawn_site_is_not_an_active_unit():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("w", dist.Normal(z, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0 * x, 1.0).to_event(1))
            pyro.sample("w", dist.Normal(0.3 * z, 0.1).to_event(1))

    report = information(model, guide, torch.randn(4000, 1), subset=50, iwae_samples=1)
    assert report["active_units"] == 0


def test_a_category_after_a_drawn_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("c", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.5).to_event(1))
            logits = torch.cat([3 * z, 0 * z], -1)
            pyro.sample("c", dist.Categorical(logits=logits))

    report = information(model, guide, torch.randn(300, 1))
    z_truth = 0.5 * math.log(1 + 1 / 0.25)  # c adds nothing to z
    between(report, "mi", z_truth)
    between(report, "mi_z", z_truth)
    assert math.isnan(report["mi_c_lower"])
    assert 0 < report["mi_c_upper"] < math.log(2)


def test_a_site_after_a_category_after_a_drawn_site():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", dist.Categorical(torch.ones(2)))
            w = pyro.sample("w", dist.Normal(c.to(x), 1.0))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.5))
            c = pyro.sample("c", dist.Bernoulli(logits=3 * z))
            pyro.sample("w", dist.Normal(c, 0.1))

    report = information(model, guide, torch.randn(100))
    assert math.isnan(report["mi_w_lower"])  # an integral over z
    assert math.isnan(report["mi_w_upper"])
    between(report, "mi", 0.5 * math.log(1 + 1 / 0.25))  # all goes through z


def test_order_of_sites_that_forbids_the_closed_form_is_sampled():
    def model(x):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 0.5))
            pyro.sample("w", dist.Normal(0.5 * z, 0.5))

    x = torch.randn(2000)
    report = information(model, guide, x, num_samples=5)
    entropies = 2 * 0.5 * math.log(2 * math.pi * math.e * 0.25)
    spread_w = (0.25 * (x.square() + 0.25) + 0.25).mean()  # E w^2
    spread_zw = (0.25 * (x.square() + 0.25) + 0.25).mean()  # E (z - w)^2
    rate = -entropies + math.log(2 * math.pi) + 0.5 * (spread_w + spread_zw)
    assert abs(report["rate"] - float(rate)) < 4 * report["rate_se"]


def test_sites_may_be_scalars():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(c, 1.0))
            y = pyro.sample("y", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)

    def guide(x, point):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(x.sigmoid()))
            pyro.sample("z", dist.Normal(x + c, 0.5))
            pyro.sample("y", dist.Delta(x) if point else dist.Normal(x, 0.5))

    x = torch.randn(300)
    report = information(model, lambda x: guide(x, False), x)
    between(report, "mi_y", 0.5 * math.log(1 + 1 / 0.25))
    # z = x + c + noise: c blurs it, and makes it depend on x a little more.
    assert report["mi_z_upper"] > 0.5
    assert report["total_correlation_lower"] > 0.1  # both follow x
    assert report["active_units"] == 2
    report = information(model, lambda x: guide(x, True), x)
    assert math.isclose(report["mi_y_lower"], math.log(300), rel_tol=1e-9)
    assert math.isnan(report["mi_y_upper"])


# Deterministic sites --------------------------------------------------------------------------


def delta_pair(gain):
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(c + z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Delta(gain * x, event_dim=1))
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    return model, guide


def test_a_deterministic_site_has_no_divergence():
    model, guide = delta_pair(1.0)
    x = torch.randn(200, 1)
    values = information(model, guide, x).to_dict()
    undefined = (
        "rate elbo log_px kl_c mi_upper mi_c_upper marginal_kl_lower marginal_kl_upper "
        "total_correlation total_correlation_lower total_correlation_upper "
        "fitted_mi_lower fitted_mi_upper fitted_reach"
    ).split()
    assert {name for name in values if not name.endswith("_se") and math.isnan(values[name])} == (
        set(undefined)
    )
    assert math.isclose(values["mi_lower"], math.log(200), rel_tol=1e-9)
    assert math.isclose(values["mi_c_lower"], math.log(200), rel_tol=1e-9)
    assert values["saturated"] == 1
    between(values, "mi_z", 0.5 * math.log(1 + 0.25 / 0.49))
    assert values["active_units"] == 2


def test_data_that_are_a_function_of_the_code_have_no_density():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Delta(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.6 * x, 0.8))

    figures = information(model, guide, torch.randn(500)).to_dict()
    for name in ("distortion", "elbo", "log_px"):
        assert math.isnan(figures[name]), name
    assert figures["rate"] == pytest.approx(-math.log(0.8), abs=0.05)
    assert figures["mi_lower"] <= -math.log(0.8) + 0.1


def test_a_collapsed_deterministic_site_knows_nothing():
    model, guide = delta_pair(0.0)
    values = information(model, guide, torch.randn(500, 1))
    assert values["mi_c_lower"] == 0
    assert abs(values["mi_lower"] - values["mi_z_lower"]) < 1e-9
    assert values["saturated"] == 0
    assert values["active_units"] == 1


# What the report leaves alone, and what it refuses ---------------------------------------------


class Noisy(nn.Module):
    """A model and a guide in one module, with dropout and batch norm."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.encoder[1].eval()

    def model(self, x):
        gain = pyro.param("gain", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = gain * z[..., :1].expand(*z.shape[:-1], 3)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        scale = pyro.param("late", torch.tensor(0.5), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x)[..., :2], scale).to_event(1))


def test_nothing_is_left_behind():
    pair = Noisy()
    modes = [module.training for module in pair.modules()]
    buffers = {name: value.clone() for name, value in pair.named_buffers()}
    pyro.param("gain", torch.tensor(3.0))
    x = torch.randn(20, 3)
    state = torch.get_rng_state()
    information = partial(report_of, generative_items=20, generative_samples=20)
    first = information(pair.model, pair.guide, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in pair.modules()] == modes
    assert True in modes
    assert False in modes
    assert all(torch.equal(value, buffers[name]) for name, value in pair.named_buffers())
    assert list(pyro.get_param_store().keys()) == ["gain"]
    assert pyro.param("gain") == 3.0
    assert all(p.grad is None for p in pair.parameters())

    torch.rand(5)
    assert information(pair.model, pair.guide, x) == first
    assert information(pair.eval().model, pair.guide, x) == first  # no dropout
    assert information(pair.model, pair.guide, x, seed=1) != first
    pyro.get_param_store()["gain"] = torch.tensor(1.0)  # the trained value is what counts
    assert information(pair.model, pair.guide, x)["distortion"] < first["distortion"]


def test_svi_goes_on_after_a_report():
    pair = Noisy()
    x = torch.randn(20, 3)
    svi = pyro.infer.SVI(
        pair.model, pair.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()
    )
    svi.step(x)
    before = pyro.param("gain").item()
    report_of(pair.model, pair.guide, x, generative_items=10, generative_samples=10)
    assert pyro.param("gain").item() == before
    svi.step(x)
    assert pyro.param("gain").item() != before


def test_the_size_of_a_batch_changes_no_expectation(monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs, information_in_code))
    pair = CASES["exact"]
    x = pair.data(100)
    small, large = (
        information(pair.model, pair.guide, x, batch_size=b, iwae_samples=1) for b in (3, 4096)
    )
    assert math.isclose(small["rate"], large["rate"], rel_tol=1e-9)
    assert abs(small["mi_lower"] - large["mi_lower"]) < 4 * small["mi_lower_se"]


def test_single_precision_is_enough():
    torch.set_default_dtype(torch.float32)
    weight = torch.eye(2) * 3

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.3 * x, 0.1**0.5).to_event(1))

    x = 10**0.5 * torch.randn(1000, 2)
    between(information(model, guide, x), "mi", math.log(10))


def test_one_datum():
    pair = CASES["exact"]
    values = information(pair.model, pair.guide, pair.data(1)).to_dict()
    assert values["mi_lower"] == 0
    assert values["mi_upper"] == values["rate"]
    assert math.isnan(values["active_units"])
    assert math.isnan(values["elbo_se"])
    assert math.isfinite(values["log_px"])


def moved(shift, scale, dtype):
    """The same pair with its code shifted and scaled."""
    centre, unit = torch.tensor(shift, dtype=dtype), torch.tensor(scale, dtype=dtype)

    def model(x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(centre.expand(3), 1.09**0.5 * unit).to_event(1)
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(((z - centre) / unit).to(x), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.to(dtype) * unit + centre, 0.3 * unit).to_event(1))

    return model, guide


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shift_and_scale_of_the_code_change_nothing_or_are_too_much(dtype, monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs, information_in_code, dimensions))
    options = {"iwae_items": 1, "iwae_samples": 1, "num_samples": 1}
    x = torch.randn(150, 3)
    expected = information(*moved(0.0, 1.0, dtype), x, **options)
    between(expected, "mi", 1.5 * math.log(1 + 1 / 0.09))
    names = [f"{n}_{s}" for n in ("mi", "mi_z[1]", "fitted_mi") for s in ("lower", "upper")]
    names += ["total_correlation_lower", "total_correlation_upper"]
    small = dtype == torch.float32
    shifts = (1e3, 1e5) if small else (1e6, 1e9, 1e12)
    for shift, scale in [*((shift, 1.0) for shift in shifts), (0.0, 1e-18), (0.0, 1e18)]:
        report = information(*moved(shift, scale, dtype), x, **options)
        accuracy = 0.02 if scale == 1 else 1e-4
        for name in names:
            assert report[name] == pytest.approx(expected[name], abs=accuracy), (
                shift,
                scale,
                name,
            )
    report = information(*moved(1e7 if small else 1e16, 1.0, dtype), x, **options)
    assert math.isnan(report["mi_lower"])
    assert math.isnan(report["mi_z[0]_lower"])
    assert math.isnan(report["total_correlation"])
    assert f"too little for float{32 if small else 64}" in report.protocol["mi"]


def test_clusters_far_apart_are_told_apart(monkeypatch):
    """1e8 deviations between two halves of the codes: log 2 more, and no less within."""
    monkeypatch.setattr(measuring, "FAMILIES", (costs, information_in_code, dimensions))
    options = {"iwae_items": 1, "iwae_samples": 1, "num_samples": 1}
    x, half = torch.randn(300, 1), torch.arange(300) % 2

    def pair(gap):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1e9).to_event(1))
                pyro.sample("x", dist.Normal(z[..., 0], 1e9), obs=x[:, 0])

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x[:, :1] + gap * x[:, 1:], 1.0).to_event(1))

        return model, guide

    data = torch.cat([x, half[:, None].double()], 1)
    near, far = (information(*pair(gap), data, **options) for gap in (1e3, 1e8))
    for name in ("mi_lower", "mi_upper", "mi_z[0]_lower", "mi_z[0]_upper"):
        assert far[name] == pytest.approx(near[name], abs=1e-2), name


@pytest.mark.parametrize("n", [1, 2, 9, 10])
def test_standard_errors_of_few_data_are_called_unreliable(n, monkeypatch):
    monkeypatch.setattr(measuring, "FAMILIES", (costs,))
    pair = CASES["exact"]
    report = information(pair.model, pair.guide, pair.data(n), iwae_samples=1)
    assert math.isnan(report["rate_se"]) is (n == 1)
    assert report["rate_se"] != 0
    assert ("standard_errors" in report.protocol) is (n < 10)
    assert ("unreliable" in str(report)) is (n < 10)


def test_scales_and_masks_count_for_nothing():
    pair = CASES["exact"]
    x = pair.data(50)
    weighed = poutine.scale(poutine.mask(pair.model, mask=False), 3.0)
    assert information(weighed, pair.guide, x) == information(pair.model, pair.guide, x)


def test_it_is_a_mapping():
    pair = CASES["exact"]
    report = information(pair.model, pair.guide, pair.data(30))
    assert dict(report) == report.to_dict()
    assert "mi_lower" in report
    assert "mi_middle" not in report
    assert len(report) == len(list(report))


def test_it_prints_a_table_with_errors():
    pair = CASES["exact"]
    text = str(information(pair.model, pair.guide, pair.data(20)))
    assert "elbo" in text
    assert "+-" in text
    assert "_se" not in text


def test_bad_input_is_named():
    pair = CASES["exact"]
    x = pair.data(5)
    with pytest.raises(DataError, match=r"got \(0, 5\)"):
        information(pair.model, pair.guide, x[:0])
    with pytest.raises(OptionError, match="iwae_samples=0"):
        information(pair.model, pair.guide, x, iwae_samples=0)

    def blind(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(SiteError, match="observes nothing"):
        information(blind, pair.guide, x)

    def other(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(SiteError, match="not in both"):
        information(pair.model, other, x)

    def unplated(x):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(ShapeError, match="site 'z'.*pyro.plate"):
        information(pair.model, unplated, x)

    def undeclared(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ pair.weight.T, 1.0), obs=x)

    with pytest.raises(ShapeError, match="site 'x'.*to_event"):
        information(undeclared, pair.guide, x)
