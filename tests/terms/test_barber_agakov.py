"""The Barber-Agakov term against models whose information is known exactly."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.terms import InformationTerm, Particle
from pyro_mivae.traces import TracePair

K, D = 3, 2
TOLERANCE = {"rtol": 0, "atol": 1e-10}
ENUMERATE = {"enumerate": "parallel"}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)


class Discrete(PyroModule):
    """A category and D pixels that depend on it: every expectation is a finite sum."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.prior = nn.Parameter(torch.randn(K, generator=generator))
        self.pixels = nn.Parameter(1.5 * torch.randn(K, D, generator=generator))
        self.weight = nn.Parameter(torch.randn(D, K, generator=generator))
        self.bias = nn.Parameter(torch.randn(K, generator=generator))
        self.exact = False

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            pyro.sample("x", dist.Bernoulli(logits=c @ self.pixels).to_event(1), obs=x)

    def guide(self, x):
        logits = self.posterior(x) if self.exact else x @ self.weight + self.bias
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.OneHotCategorical(logits=logits), infer=ENUMERATE)

    def posterior(self, x):
        log_x = x @ self.pixels.T - nn.functional.softplus(self.pixels).sum(-1)
        return (log_x + self.prior.log_softmax(-1)).log_softmax(-1)

    def images(self):
        return torch.tensor(list(itertools.product([0.0, 1.0], repeat=D)))

    def bound(self):
        """E_{p(c, x)}[log q(c|x)] + H(c), summed over all categories and all images."""
        x = self.images()
        log_c = self.prior.log_softmax(-1)
        log_x = dist.Bernoulli(logits=self.pixels).to_event(1).log_prob(x[:, None])
        logits = self.posterior(x) if self.exact else x @ self.weight + self.bias
        joint = (log_c + log_x).exp()  # (images, K)
        return (joint * logits.log_softmax(-1)).sum() - (log_c.exp() * log_c).sum()

    def information(self):
        x = self.images()
        log_c = self.prior.log_softmax(-1)
        joint = log_c + dist.Bernoulli(logits=self.pixels).to_event(1).log_prob(x[:, None])
        marginal = joint.logsumexp(1, keepdim=True)
        return (joint.exp() * (joint - log_c - marginal)).sum()

    def mean_bound(self):
        """The same with the mean image pushed, which tells the categories apart for good."""
        log_c = self.prior.log_softmax(-1)
        logits = self.pixels.sigmoid() @ self.weight + self.bias
        score = logits.log_softmax(-1).diagonal()
        return (log_c.exp() * (score - log_c)).sum()


def particle(pair, x, model=None, guide=None):
    model, guide = model or pair.model, guide or pair.guide
    traces = TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)
    return Particle(model, guide, (x,), {}, traces)


def gradients(value, parameters):
    return torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)


def estimates(term, pair, n, count, parameters=()):
    """Per datum: the mean of the term, and of its gradients, with standard errors."""
    values = []
    some = particle(pair, torch.zeros(n, D))
    for _ in range(count):
        value = term(some) / n
        slopes = gradients(value, parameters) if parameters else ()
        values.append(torch.cat([value.detach()[None], *(slope.flatten() for slope in slopes)]))
    table = torch.stack(values)
    return table.mean(0), table.std(0) / math.sqrt(count)


def assert_close_to(mean, error, exact, largest_error):
    assert (error < largest_error).all(), error
    assert ((mean - exact).abs() < 4.5 * error + 1e-12).all(), (mean, exact, error)


@pytest.mark.parametrize("exact", [False, True])
def test_is_the_bound_and_tight_for_the_exact_posterior(exact):
    pair = Discrete()
    pair.exact = exact
    mean, error = estimates(mi.BarberAgakov("c", generated="score-function"), pair, 5000, 20)
    assert_close_to(mean, error, pair.bound(), 0.01)
    if exact:
        torch.testing.assert_close(pair.bound(), pair.information())
    else:
        assert pair.bound() < pair.information()


def test_mean_image_can_carry_more_than_sampled_pixels():
    pair = Discrete()
    mean, error = estimates(mi.BarberAgakov("c"), pair, 5000, 20)
    assert_close_to(mean, error, pair.mean_bound(), 0.02)


def test_mean_push_by_hand_on_the_same_draws():
    pair = Discrete()
    x = torch.zeros(50, D)
    particles = particle(pair, x)
    torch.manual_seed(5)
    value = mi.BarberAgakov("c")(particles)
    torch.manual_seed(5)
    c = dist.OneHotCategorical(logits=pair.prior).expand([50]).sample()
    log_q = ((c @ pair.pixels).sigmoid() @ pair.weight + pair.bias).log_softmax(-1)
    entropy = dist.Categorical(logits=pair.prior).entropy()
    expected = (log_q * c).sum() + 50 * entropy
    torch.testing.assert_close(value, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("generated", "exact"), [("score-function", Discrete.bound), ("mean", Discrete.mean_bound)]
)
def test_gradient_is_unbiased_for_every_parameter(generated, exact):
    """The category's own prior is learned too: no path leads through a drawn category."""
    pair = Discrete()
    parameters = list(pair.parameters())
    mean, error = estimates(mi.BarberAgakov("c", generated=generated), pair, 1000, 200, parameters)
    expected = torch.autograd.grad(exact(pair), parameters)
    assert_close_to(mean[1:], error[1:], torch.cat([g.flatten() for g in expected]), 0.01)


@pytest.mark.parametrize("generated", ["mean", "relaxed", "straight-through"])
def test_gradient_reaches_the_decoder_and_the_guide(generated):
    pair = Discrete()
    value = mi.BarberAgakov("c", generated=generated)(particle(pair, torch.zeros(20, D)))
    for slope in torch.autograd.grad(value, [pair.pixels, pair.weight, pair.bias]):
        assert slope.abs().max() > 0


@pytest.mark.parametrize("generated", ["straight-through", "score-function", "relaxed"])
def test_what_is_generated(generated):
    pair = Discrete()
    pushed = []

    def guide(x):
        pushed.append(x.detach())
        pair.guide(x)

    some = particle(pair, torch.zeros(200, D), guide=guide)
    pushed.clear()
    term = mi.BarberAgakov("c", generated=generated)
    term(some)
    (x,) = pushed
    is_binary = ((x - x.round()).abs() < 1e-12).all()
    assert bool(is_binary) == (generated != "relaxed")
    assert x.min() >= -1e-12
    assert x.max() <= 1 + 1e-12
    assert term.name == "mi_c_sample"


def test_relaxed_samples_become_samples_as_the_temperature_falls():
    pair = Discrete()
    n = 5000
    mean, error = estimates(
        mi.BarberAgakov("c", generated="relaxed", temperature=0.01), pair, n, 20
    )
    assert abs(mean - pair.bound()) < 4 * error + 0.02 < 0.06


# Continuous codes


class Linear(PyroModule):
    """z ~ N(0, I), x = z + noise; the information is known."""

    def __init__(self, noise=0.5):
        super().__init__()
        self.noise = noise
        self.gain = nn.Parameter(torch.tensor(1 / (1 + noise**2)))
        self.scale = nn.Parameter(torch.tensor(noise / math.sqrt(1 + noise**2)))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, self.noise).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.gain * x, self.scale).to_event(1))


@pytest.mark.parametrize("generated", ["relaxed", "straight-through", "score-function"])
def test_gaussian_information_is_reached_by_the_exact_posterior(generated):
    pair = Linear()
    rho_squared = 1 / (1 + 0.25)
    information = -0.5 * math.log(1 - rho_squared) * D
    mean, error = estimates(mi.BarberAgakov("z", generated=generated), pair, 5000, 20)
    assert_close_to(mean, error, information, 0.01)
    with torch.no_grad():
        pair.scale.mul_(1.5)
    mean, error = estimates(mi.BarberAgakov("z", generated=generated), pair, 5000, 20)
    assert mean + 4 * error < information


class Mixture(PyroModule):
    """A category with a learned prior, and a Normal whose spread depends on it."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.prior = nn.Parameter(torch.randn(K, generator=generator))
        self.spread = nn.Parameter(torch.tensor([0.3, 1.0, 2.0]))
        self.means = nn.Parameter(2 * torch.randn(K, D, generator=generator))
        self.category = nn.Parameter(torch.randn(D, K, generator=generator))
        self.code = nn.Parameter(torch.randn(K, D, generator=generator))

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            scale = (c @ self.spread)[..., None]
            z = pyro.sample("z", dist.Normal(c @ self.means, scale).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            logits = x @ self.category
            c = pyro.sample("c", dist.OneHotCategorical(logits=logits), infer=ENUMERATE)
            loc = x + c @ self.code
            pyro.sample("z", dist.Normal(loc, 0.8).to_event(1))

    def bound(self, sites, nodes=60):
        """By quadrature over the spread of x = mean + noise, dimension by dimension."""
        grid, weight = hermite(nodes)
        prior = self.prior.softmax(-1)
        total = 0.0
        for k in range(K):
            eps = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, D)
            mass = (weight[:, None] * weight).flatten()
            z = self.means[k] + self.spread[k] * eps
            inner = self.recognised(z, k, sites)
            entropy = -prior[k].log() * ("c" in sites)
            if "z" in sites:
                normal = 0.5 * math.log(2 * math.pi * math.e) + self.spread[k].log()
                entropy = entropy + D * normal
            total = total + prior[k] * ((mass * inner).sum() + entropy)
        return total

    def recognised(self, z, k, sites):
        """E log q(sites | x') with x' = z, the mean; unnamed sites drawn from the guide."""
        log_c = (z @ self.category).log_softmax(-1)
        if "z" not in sites:
            return log_c[:, k]
        loc = z[:, None] + self.code  # (nodes, K, D)
        log_z = dist.Normal(loc, 0.8).log_prob(z[:, None]).sum(-1)
        if "c" in sites:
            return log_c[:, k] + log_z[:, k]
        return (log_c.exp() * log_z).sum(-1)


def hermite(count):
    """Nodes and weights of an expectation under N(0, 1)."""
    off = torch.arange(1, count).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0] ** 2


@pytest.mark.parametrize("sites", [("c",), ("z",), ("c", "z")])
def test_any_sites_of_a_mixture(sites):
    """Value and every gradient, also through categories drawn from the model and the guide."""
    pair = Mixture()
    parameters = list(pair.parameters())
    mean, error = estimates(mi.BarberAgakov(*sites), pair, 1000, 200, parameters)
    exact = pair.bound(sites)
    slopes = gradients(exact, parameters)
    expected = torch.cat([exact.detach()[None], *(slope.flatten() for slope in slopes)])
    assert_close_to(mean, error, expected, 0.02)


# Plates


class Plated(PyroModule):
    """A site of the whole data set and one of each datum; x in a nested plate of pixels."""

    def __init__(self, size=None):
        super().__init__()
        self.size = size
        self.pixels = nn.Parameter(torch.tensor(0.7))

    def plate(self, x):
        count = x.shape[-1]
        return pyro.plate("data", self.size or count, dim=-1, subsample=torch.arange(count))

    def model(self, x):
        g = pyro.sample("g", dist.Normal(0.0, 1.0))
        with self.plate(x):
            c = pyro.sample("c", dist.Bernoulli(0.4))
            with pyro.plate("pixels", D, dim=-2):
                pyro.sample("x", dist.Bernoulli(logits=self.pixels * (c + g)), obs=x)

    def guide(self, x):
        pyro.sample("g", dist.Normal(x.mean(), 0.5))
        with self.plate(x):
            pyro.sample("c", dist.Bernoulli(logits=x.sum(-2)), infer=ENUMERATE)


def plated_particle(pair, x):
    traces = TracePair.run(pair.model, pair.guide, (x,), {}, max_plate_nesting=2)
    return Particle(pair.model, pair.guide, (x,), {}, traces)


@pytest.mark.parametrize("sites", [("g",), ("c",), ("g", "c"), ("c", "g")])
@pytest.mark.parametrize("generated", ["mean", "score-function"])
def test_each_site_is_summed_over_its_own_plates(sites, generated):
    pair, n, size = Plated(size=40), 5, 40
    some = plated_particle(pair, torch.zeros(D, n))
    torch.manual_seed(9)
    value = mi.BarberAgakov(*sites, generated=generated)(some)
    torch.manual_seed(9)
    trace = poutine.trace(pair.model).get_trace(torch.zeros(D, n))
    g, c = (trace.nodes[name]["value"] for name in "gc")
    if generated == "mean":
        x = torch.sigmoid(pair.pixels * (c + g)).expand(D, n)
        recognised = {
            "g": dist.Normal(x.mean(), 0.5).log_prob(g) + dist.Normal(0.0, 1.0).entropy(),
            "c": size / n * (
                dist.Bernoulli(logits=x.sum(0)).log_prob(c) + dist.Bernoulli(0.4).entropy()
            ).sum(),
        }  # fmt: skip
        expected = sum(recognised[name] for name in sites)
        torch.testing.assert_close(value, expected, **TOLERANCE)
    assert value.shape == ()


def test_score_function_in_a_nested_plate():
    """The gradient of E_{x ~ p}[log q(c|x)] by the sum over all images."""
    pair, n = Plated(), 300
    x = torch.zeros(D, n)
    term = mi.BarberAgakov("c", generated="score-function")

    def model(x):
        with pyro.plate("data", x.shape[-1], dim=-1):
            c = pyro.sample("c", dist.Bernoulli(0.4))
            with pyro.plate("pixels", D, dim=-2):
                pyro.sample("x", dist.Bernoulli(logits=pair.pixels * c), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[-1], dim=-1):
            pyro.sample("c", dist.Bernoulli(logits=x.sum(-2)), infer=ENUMERATE)

    traces = TracePair.run(model, guide, (x,), {}, max_plate_nesting=2)
    table = []
    for _ in range(200):
        value = term(Particle(model, guide, (x,), {}, traces)) / n
        table.append(torch.stack([value, *gradients(value, [pair.pixels])]))
    table = torch.stack(table).detach()
    total = dist.Bernoulli(0.4).entropy()
    for c, mass in ((0.0, 0.6), (1.0, 0.4)):
        for image in itertools.product([0.0, 1.0], repeat=D):
            image = torch.tensor(image)
            log_x = dist.Bernoulli(logits=pair.pixels * c).log_prob(image).sum()
            log_q = dist.Bernoulli(logits=image.sum()).log_prob(torch.tensor(c))
            total = total + mass * log_x.exp() * log_q
    exact = torch.stack([total, *gradients(total, [pair.pixels])]).detach()
    assert_close_to(table.mean(0), table.std(0) / math.sqrt(200), exact, 0.01)


@pytest.mark.parametrize("size", [None, 40])
def test_weight_is_per_datum(size):
    """The share of the term in the loss is the same for any batch size, N/B times on a part."""
    pair = Discrete()

    def plated(program):
        def scaled(x):
            with poutine.scale(scale=1.0 if size is None else size / len(x)):
                program(x)

        return scaled

    ratios = []
    for n in (5, 20):
        objective = mi.MutualInformationELBO(
            [mi.BarberAgakov("c", weight=3.0)], max_plate_nesting=1
        )
        with torch.no_grad():
            pair.pixels.zero_()  # so that the term is the same whatever is drawn
            pair.weight.zero_()
            pair.prior.zero_()
            pair.bias.zero_()
            pair.bias[0] = 1e-3
        objective.loss(plated(pair.model), plated(pair.guide), torch.zeros(n, D))
        entries = objective.ledger
        count = size or n
        ratios.append((entries["mi_c_mean"] / count, entries["distortion"] / count))
    torch.testing.assert_close(ratios[0][1], ratios[1][1], **TOLERANCE)
    torch.testing.assert_close(ratios[0][0], ratios[1][0], rtol=0, atol=1e-3)


def test_mask_leaves_data_out():
    pair = Discrete()
    mask = torch.tensor([True, False, True, False])
    model, guide = (poutine.mask(fn, mask=mask) for fn in (pair.model, pair.guide))
    some = particle(pair, torch.zeros(4, D), model, guide)
    torch.manual_seed(5)
    value = mi.BarberAgakov("c")(some)
    torch.manual_seed(5)
    c = dist.OneHotCategorical(logits=pair.prior).expand([4]).sample()
    log_q = ((c @ pair.pixels).sigmoid() @ pair.weight + pair.bias).log_softmax(-1)
    entropy = dist.Categorical(logits=pair.prior).entropy()
    expected = ((log_q * c).sum(-1) + entropy)[mask].sum()
    torch.testing.assert_close(value, expected, **TOLERANCE)


# Errors


@pytest.mark.parametrize(
    ("sites", "options", "message"),
    [
        ((), {}, r"sites \(\): name one or more latent sites"),
        (("c", "c"), {}, "each once"),
        (
            ("c",),
            {"generated": "softly"},
            "generated='softly'; allowed are mean, relaxed, straight-through",
        ),
        (("c",), {"temperature": 0.0}, "temperature=0.0; allowed .* above 0"),
        (("c",), {"temperature": math.nan}, "temperature=nan; allowed"),
        (("c",), {"weight": math.inf}, "weight=inf; allowed are finite numbers"),
        (("c",), {"weight": -1.0}, "weight=-1.0; allowed .* from 0 up"),
    ],
)
def test_bad_options(sites, options, message):
    with pytest.raises(OptionError, match=message):
        mi.BarberAgakov(*sites, **options)


def two_observed(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 0])


def observing(change):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            seen = change(x)
            fn = dist.Normal(torch.zeros(seen.shape) + z.reshape(-1, *[1] * (seen.dim() - 1)), 1.0)
            pyro.sample("x", fn.to_event(seen.dim() - 1), obs=seen)

    return model


def normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.flatten(1).mean(1), 1.0))


def point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x.flatten(1).mean(1)))


@pytest.mark.parametrize(
    ("term", "model", "guide", "message"),
    [
        ("z", two_observed, normal, r"observes one site, this one observes \['x', 'y'\]"),
        ("z", observing(lambda x: x.reshape(2, 1, 2)), normal, "'x' must be the first argument"),
        ("z", observing(lambda x: x.T), normal, "'x' must be the first argument"),
        ("z", observing(lambda x: x + 0.0), normal, "'x' must be the first argument"),
        ("y", observing(lambda x: x), normal, r"names the site 'y'; the latent sites are \['z'\]"),
        ("x", observing(lambda x: x), normal, "names the site 'x'"),
        ("z", observing(lambda x: x), point, "'z', which the guide makes deterministic"),
    ],
)
def test_pairs_that_do_not_fit(term, model, guide, message):
    objective = mi.MutualInformationELBO([mi.BarberAgakov(term)])
    with pytest.raises(SiteError, match=message):
        objective.loss(model, guide, torch.rand(2, 2))


def test_no_relaxation_of_counts():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson(z.exp()[:, None]).to_event(1), obs=x)

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z", generated="relaxed")])
    with pytest.raises(
        SiteError, match="no relaxation of Poisson; use generated='score-function'"
    ):
        objective.loss(model, normal, torch.ones(2, 1))


def test_a_view_of_the_same_data_is_the_data():
    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")])
    objective.loss(observing(lambda x: x.view(x.shape)), normal, torch.rand(2, 2))
    assert objective.ledger["mi_z_mean"].isfinite()


def test_a_term_of_ones_own():
    class Spread(InformationTerm):
        name = "spread"
        formula = "Var z"

        def __call__(self, particle):
            return particle.traces.guide.nodes["z"]["fn"].mean.var() * len(particle.args[0])

    objective = mi.MutualInformationELBO([Spread("z", weight=2.0)])
    loss = objective.loss(observing(lambda x: x), normal, torch.rand(2, 2))
    entries = objective.ledger
    assert loss == pytest.approx(float(-entries["elbo"] - 2 * entries["spread"]))
    assert "+ 2 * Var z" in mi.explain(objective)


def test_a_note_counts_for_nothing():
    def noted(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("mean", z.expand(2, len(x)).T, event_dim=1)
            pyro.sample("x", dist.Normal(z[:, None].expand(-1, 2), 1.0).to_event(1), obs=x)

    x, found = torch.rand(50, 2), []
    for model in (noted, poutine.block(noted, hide=["mean"])):
        for generated in ("mean", "score-function", "relaxed"):
            objective = mi.MutualInformationELBO([mi.BarberAgakov("z", generated=generated)])
            objective.max_plate_nesting = 1
            torch.manual_seed(0)
            found.append(objective.loss(model, normal, x))
    assert found[:3] == found[3:]


def test_a_factor_leaves_no_prior_to_draw_from():
    def model(x):
        pyro.factor("f", torch.tensor(1.0))
        observing(lambda x: x)(x)

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")])
    with pytest.raises(SiteError, match=r"observes \['f', 'x'\] \(factors count\)"):
        objective.loss(model, normal, torch.rand(2, 2))


def test_every_run_is_on_the_same_sub_sample():
    """The plate scales the term, and the guide reads what its own mini-batch generated."""
    seen = []

    def plate(x):
        return pyro.plate("data", 40, subsample_size=len(x))

    def model(x):
        with plate(x) as i:
            seen.append(i.tolist())
            z = pyro.sample("z", dist.Normal(0.1 * i, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with plate(x) as i:
            seen.append(i.tolist())
            pyro.sample("z", dist.Normal(x + 0.1 * i, 0.7))

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")], max_plate_nesting=1)
    objective.loss(model, guide, torch.zeros(8))
    assert len(seen) == 4
    assert seen[1:] == seen[:-1]


def test_a_sub_sample_that_the_model_takes_itself_is_refused():
    def guide(x):
        with pyro.plate("data", len(x), subsample_size=8) as i:
            pyro.sample("z", dist.Normal(0.1 * x[i], 1.0))

    def model(x):
        with pyro.plate("data", len(x), subsample_size=8) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    objective = mi.MutualInformationELBO([mi.BarberAgakov("z")], max_plate_nesting=1)
    with pytest.raises(SiteError, match="must be the first argument"):
        objective.loss(model, guide, torch.zeros(40))
