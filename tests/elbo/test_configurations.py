"""Several categories: every configuration summed out, or a few of them decoded."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae.engine.steps import trace_step
from pyro_mivae.engine.tracing import TrainStep
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.metrics.encoded import side_by_side
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.samples import DRAWN
from pyro_mivae.training import History

from .by_hand import Counting, pieces

SHAPE, BATCH, SHADES, KINDS, DIM = (6,), 4, 2, 3, 2
TOLERANCE = {"rtol": 0, "atol": 1e-10}
BUDGETS = [(0, 1), (0, 3), (1, 1), (2, 2), (5, 1)]

pytestmark = pytest.mark.usefixtures("double")


def together(*values):
    batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values))
    return torch.cat([value.expand(*batch, -1) for value in values], -1)


class Prior(PyroModule):
    """A kind, a shade that depends on it, a style that depends on both, and an angle."""

    def __init__(self):
        super().__init__()
        self.shade = nn.Linear(KINDS, SHADES)
        self.style = nn.Linear(KINDS + SHADES, DIM)

    def forward(self):
        kind = pyro.sample("kind", dist.OneHotCategorical(logits=torch.zeros(KINDS)))
        shade = pyro.sample("shade", dist.OneHotCategorical(logits=self.shade(kind)))
        loc = self.style(together(kind, shade))
        style = pyro.sample("style", dist.Normal(loc, torch.ones(())).to_event(1))
        angle = pyro.sample("angle", dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1))
        return together(kind, shade, style, angle)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.kind = nn.Linear(*SHAPE, KINDS)
        self.shade = nn.Linear(*SHAPE, SHADES * KINDS)
        self.style = nn.Linear(SHAPE[0] + KINDS + SHADES, DIM)
        self.angle = nn.Linear(*SHAPE, 1)

    def logits(self, x):
        """Of the kind, and of the shade given each kind."""
        return self.kind(x), self.shade(x).unflatten(-1, (KINDS, SHADES))

    def forward(self, x):
        of_kind, of_shade = self.logits(x)
        summed = {"infer": {"enumerate": "parallel"}}
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.OneHotCategorical(logits=of_kind), **summed)
            chosen = torch.einsum("...bk,bks->...bs", kind, of_shade)
            shade = pyro.sample("shade", dist.OneHotCategorical(logits=chosen), **summed)
            loc = self.style(together(x, kind, shade))
            pyro.sample("style", dist.Normal(loc, 0.5 * torch.ones(DIM)).to_event(1))
            pyro.sample("angle", dist.Normal(self.angle(x), torch.ones(1)).to_event(1))


@pytest.fixture
def x():
    return torch.rand(BATCH, *SHAPE)


@pytest.fixture
def vae():
    return build()


def build(variant=mi.CatVAE, **options):
    return variant(SHAPE, prior=Prior(), guide=Guide(), **options)


def seeded(objective, vae, x):
    torch.manual_seed(7)
    loss = objective.differentiable_loss(vae.model, vae.guide, x)
    return loss.detach(), torch.autograd.grad(loss, list(vae.parameters()))


def assert_equal(found, expected):
    for ours, theirs in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_the_sum_over_configurations_is_pyros(vae, x):
    """Given the noise, by Pyro's own sum, which draws each divergence."""
    ours = mi.MutualInformationELBO(max_plate_nesting=1)
    theirs = TraceEnum_ELBO(max_plate_nesting=1)
    many = x.repeat(50, 1)
    torch.manual_seed(0)
    values = torch.tensor(
        [[e.loss(vae.model, vae.guide, many) for e in (ours, theirs)] for _ in range(30)]
    )
    difference = (values[:, 0] - values[:, 1]) / len(many)
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(30) < 0.1


@pytest.mark.parametrize(("exact", "draws"), BUDGETS)
def test_a_few_configurations_are_the_sum_on_average(vae, x, exact, draws, monkeypatch):
    """With the noise held, the average over every choice, weighed, is no estimate."""
    summed = mi.MutualInformationELBO(kl_weights={"style": 0.3}, max_plate_nesting=1)
    value, gradient = seeded(summed, vae, x)
    objective = mi.SampledCategoricalELBO(
        kl_weights={"style": 0.3}, exact=exact, draws=draws, max_plate_nesting=1
    )
    of_kind, of_shade = (logits.softmax(-1).detach() for logits in vae.guide.logits(x))
    joint = (of_kind[:, :, None] * of_shade).permute(2, 1, 0).flatten(0, 1)  # (shade kind, batch)
    found = [torch.zeros_like(total) for total in (value, *gradient)]
    state = objective.state_dict()
    for uniform, length in zip(*pieces(joint, exact, draws)):
        objective.load_state_dict(state)
        monkeypatch.setattr(torch, "rand_like", lambda t, u=uniform: u.expand_as(t))
        loss, slopes = seeded(objective, vae, x)
        found = [total + length * one for total, one in zip(found, (loss, *slopes))]
    assert_equal((found[0], found[1:]), (value, gradient))


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, 6),
        ({"categorical": "sample"}, 2),
        ({"categorical": "sample", "num_decodes": 5}, 5),
        ({"categorical": "straight-through"}, 1),
        ({"categorical": "score-function"}, 1),
    ],
)
def test_the_number_of_decodes(x, options, rows):
    vae = build(**options)
    vae.model.decoder = Counting(vae.model.decoder)
    vae.objective().loss(vae.model, vae.guide, x)
    assert vae.model.decoder.rows == rows * BATCH


def test_auto_counts_configurations():
    guide = Guide()
    guide.kind, guide.shade = nn.Linear(400, KINDS), nn.Linear(400, KINDS * SHADES)
    guide.style, guide.angle = nn.Linear(400 + KINDS + SHADES, DIM), nn.Linear(400, 1)
    vae = mi.CatVAE((400,), prior=Prior(), guide=guide)
    assert vae.categorical == "sample"  # 6 * 400 values
    assert build().categorical == "enumerate"


def test_explain_says_how_many_are_decoded():
    told = mi.explain(build().objective())
    assert "3 * 2 = 6 decodes per datum (two by CatVAE's categorical='sample')" in told
    assert "decodes" not in mi.explain(mi.VAE(SHAPE).objective())


def test_configurations_that_do_not_fit_into_memory(x, monkeypatch):
    monkeypatch.setattr("pyro_mivae.training.checks.most_free", lambda need: 4000.0)
    with pytest.raises(OptionError, match=r"3 \* 2 = 6 categories .* categorical='sample'"):
        mi.fit(build(warm_start=0), x.repeat(3, 1), epochs=1)  # 6 * 12 * 6 numbers, and gradients
    mi.fit(build(warm_start=0, categorical="sample"), x, epochs=1)


def test_more_decodes_than_configurations():
    with pytest.raises(OptionError, match="to 6, the number of categories, or of configurations"):
        build(categorical="sample", num_decodes=7)


@pytest.mark.parametrize("variant", [mi.VAE, mi.CatVAE, mi.InfoCatVAE, mi.VMIVAE])
def test_trains_and_keeps_its_sites(variant, x):
    vae = build(variant, **{"warm_start": 2} if issubclass(variant, mi.CatVAE) else {})
    assert vae.categories == {"kind": KINDS, "shade": SHADES}
    assert (vae.category, vae.num_categories, vae.latent_dim) == ("kind", KINDS, DIM + 1)
    history = mi.fit(vae, x.repeat(10, 1), epochs=2, batch_size=10)
    assert {f"kl_{name}" for name in vae.sites} <= set(history[-1])
    assert {n: v.shape[1] for n, v in vae.encode(x).items()} == vae.sites


def test_terms_are_about_every_category():
    text = mi.explain(build(mi.InfoCatVAE).objective(100))
    assert "log q(kind,shade|x')" in text
    for name in ("kind", "shade"):
        assert f"H({name}|x)" in text or f"q({name}|x)" in text


@pytest.mark.parametrize("chosen", [*itertools.product(range(KINDS), range(SHADES))])
def test_sample_of_a_configuration(vae, chosen):
    kind, shade = chosen
    codes = []
    vae.model.decoder.register_forward_pre_hook(lambda module, args: codes.append(args[0]))
    vae.sample(5, category={"shade": shade, "kind": kind})
    assert (codes[0][:, :KINDS].argmax(-1) == kind).all()
    assert (codes[0][:, KINDS : KINDS + SHADES].argmax(-1) == shade).all()


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"shade": 2}, "category=2: allowed are 0 to 1, the categories of 'shade'"),
        ({"style": 0}, "'style'"),
        ({"kinds": 0}, "kinds"),
    ],
)
def test_categories_that_do_not_exist(vae, category, message):
    with pytest.raises(OptionError, match=message):
        vae.sample(5, category=category)


@pytest.mark.parametrize(
    "categorical", ["enumerate", "sample", "straight-through", "score-function"]
)
def test_is_staged(x, categorical):
    vae = build(categorical=categorical)
    objective = vae.objective()

    def loss(x):
        return objective.differentiable_loss(vae.model, vae.guide, x), objective.ledger

    trace_step(TrainStep.of_modules(loss, vae, objective.state), x)


@torch.no_grad()
def test_figures_and_pictures(vae, x):
    """Each category has its samples; each is one column for the factors."""
    codes, categorical = side_by_side(vae.encode(x), vae.categories)
    assert (codes.shape, categorical) == ((BATCH, 2 + DIM + 1), [0, 1])
    data = ReportData(vae, x, None, History(), {})
    panels = {panel.key: panel.title for make in DRAWN for panel in make(data)}
    assert panels["samples"] == "Samples of each category of kind"
    assert panels["samples_shade"] == "Samples of each category of shade"
    assert {"traversals_style", "traversals_angle"} <= panels.keys()
    assert data.continuous_sites == ["angle", "style"]


class Concatenating(PyroModule):
    join = staticmethod(lambda values: torch.cat([*values], -1))

    def forward(self):
        kind = pyro.sample("kind", dist.OneHotCategorical(torch.ones(KINDS)))
        shade = pyro.sample("shade", dist.OneHotCategorical(torch.ones(SHADES)))
        return self.join([kind, shade])


def test_values_are_broadcast_before_they_are_concatenated(monkeypatch):
    with pytest.raises(SiteError, match="priors.join does"):
        mi.CatVAE(SHAPE, prior=Concatenating())
    monkeypatch.setattr(Concatenating, "join", staticmethod(mi.priors.join))
    assert mi.CatVAE(SHAPE, prior=Concatenating()).categories == {"kind": KINDS, "shade": SHADES}
