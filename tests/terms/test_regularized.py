"""RegularizedInformation against sums by hand, and the start that it gives to categories."""

import copy
import itertools
import math
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.nn.functional import one_hot

from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.engine import SVI
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.terms import Particle, RegularizedInformation
from pyro_mivae.traces import TracePair
from pyro_mivae.variants import CatVAE, InfoCatVAE, warm_start
from pyro_mivae.variants.warm_start import CategoryStart, warm_start_categories

WEIGHTS = torch.tensor([[0.3, -1.2], [0.8, 0.1], [-0.4, 0.9]], dtype=torch.float64)


def linear_guide(x):
    with pyro.plate("data", len(x)):
        logits = x @ WEIGHTS
        pyro.sample("c", dist.OneHotCategorical(logits=logits), infer={"enumerate": "parallel"})


def entropy(p):
    return -(p * p.log()).sum(-1)


@pytest.fixture
def x():
    return torch.randn(6, 3, dtype=torch.float64)


def test_without_neighbourhood_it_is_the_plug_in_information_less_log_k(x):
    q = (x @ WEIGHTS).softmax(-1)
    term = RegularizedInformation(marginal_weight=1.0, radius=0.0)
    expected = entropy(q.mean(0)) - entropy(q).mean() - math.log(2)
    torch.testing.assert_close(term.per_datum(linear_guide, x), expected, rtol=0, atol=1e-12)


def test_the_marginal_entropy_has_its_weight(x):
    q = (x @ WEIGHTS).softmax(-1)
    term = RegularizedInformation(marginal_weight=2.5, radius=0.0)
    expected = 2.5 * (entropy(q.mean(0)) - math.log(2)) - entropy(q).mean()
    torch.testing.assert_close(term.per_datum(linear_guide, x), expected, rtol=0, atol=1e-12)


def test_it_moves_each_datum_where_a_linear_guide_changes_most():
    """Two categories of a linear guide differ along one vector: r is it or its negative."""
    x = torch.tensor([[0.2, 0.4, -0.3], [-0.5, 0.1, 0.7]], dtype=torch.float64)
    difference = WEIGHTS[:, 0] - WEIGHTS[:, 1]
    r = 0.3 * (x[0] - x[1]).norm() * difference / difference.norm()
    q = (x @ WEIGHTS).softmax(-1)
    information = 4.0 * (entropy(q.mean(0)) - math.log(2)) - entropy(q).mean()
    candidates = []
    for signs in itertools.product((1, -1), repeat=2):
        moved = ((x + torch.tensor(signs).unsqueeze(-1) * r) @ WEIGHTS).log_softmax(-1)
        change = (q * (q.log() - moved)).sum(-1).mean()
        candidates.append(information - 2.0 * change)
    term = RegularizedInformation(smoothness=2.0, radius=0.3)
    value = term.per_datum(linear_guide, x)
    assert min(abs(value - candidate) for candidate in candidates) < 1e-5


@pytest.mark.parametrize(
    ("places", "nearest"),
    [([0.0, 1.0, 4.0], [1.0, 1.0, 3.0]), ([0.0, 0.5, 0.6, 2.0], [0.5, 0.1, 0.1, 1.4])],
)
def test_each_datum_moves_by_the_distance_of_its_nearest_neighbour(places, nearest):
    """The guide records what it is shown: the data, the probes, and the data that are moved."""
    x = torch.zeros(len(places), 3, dtype=torch.float64)
    x[:, 0] = torch.tensor(places)
    nearest, seen = x.new_tensor(nearest), []

    def guide(x):
        seen.append(x.detach())
        linear_guide(x)

    RegularizedInformation(radius=0.3).per_datum(guide, x)
    at, probed, moved = seen
    assert torch.equal(at, x)
    spread = (2 * torch.pdist(x).square().sum() / len(x) ** 2).sqrt()  # over all ordered pairs
    torch.testing.assert_close((probed - x).norm(dim=1), spread.expand(len(x)))
    torch.testing.assert_close((moved - x).norm(dim=1), 0.3 * nearest)


@pytest.mark.parametrize("n", [1, 4])
def test_equal_data_are_not_moved(n):
    x = torch.ones(n, 3, dtype=torch.float64)
    value = RegularizedInformation().per_datum(linear_guide, x)
    expected = RegularizedInformation(smoothness=0.0).per_datum(linear_guide, x)
    torch.testing.assert_close(value, expected)


def test_running_statistics_are_those_of_the_data():
    """Data that are moved are normalised by their own batch, and change no average."""
    x = torch.randn(20, 3)
    norm = torch.nn.BatchNorm1d(3)
    alone = copy.deepcopy(norm)
    alone(x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.OneHotCategorical(logits=norm(x)))

    RegularizedInformation().per_datum(guide, x)
    assert norm.track_running_stats
    for name, value in norm.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name


def test_steps_that_are_traced_are_those_of_the_program():
    """Batch normalisation without running statistics is part of the graph."""
    found = []
    for engine in ("eager", "staged"):
        torch.manual_seed(1)
        vae, x = CatVAE((4,), num_categories=3), torch.rand(20, 4)
        loss = MutualInformationELBO([RegularizedInformation("c")])
        svi = SVI(vae.model, vae.guide, pyro.optim.SGD({"lr": 0.001}), loss, engine=engine)
        found.append([svi.step(x) for _ in range(5)])
        assert svi.engine == engine
        found.append([value.clone() for value in vae.state_dict().values()])
        pyro.clear_param_store()
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3])


def test_a_term_is_summed_over_the_data_that_the_batch_stands_for(x):
    """A plate of 60 from which 6 are shown counts as 60, whatever the weight of the site's KL."""

    def guide(x):
        with pyro.plate("data", 60, subsample=x):
            logits = x @ WEIGHTS
            pyro.sample(
                "c", dist.OneHotCategorical(logits=logits), infer={"enumerate": "parallel"}
            )

    def model(x):
        with pyro.plate("data", 60, subsample=x):
            c = pyro.sample("c", dist.OneHotCategorical(logits=x.new_zeros(2)))
            pyro.sample("x", dist.Normal(c @ WEIGHTS.T, 1.0).to_event(1), obs=x)

    term = RegularizedInformation(radius=0.0)
    traces = TracePair.run(model, guide, (x,), {}, max_plate_nesting=1)
    total = term(Particle(model, guide, (x,), {}, traces))
    torch.testing.assert_close(total, 60 * term.per_datum(linear_guide, x))


def test_the_gradient_treats_the_unmoved_category_as_fixed():
    x = torch.tensor([[0.2, 0.4, -0.3], [-0.5, 0.1, 0.7]], dtype=torch.float64)
    bias = torch.tensor([0.1, -0.2], dtype=torch.float64, requires_grad=True)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.OneHotCategorical(logits=x @ WEIGHTS + bias))

    term = RegularizedInformation(marginal_weight=0.0, smoothness=1.0, radius=0.5)
    (gradient,) = torch.autograd.grad(term.per_datum(guide, x), bias)
    difference = WEIGHTS[:, 0] - WEIGHTS[:, 1]
    r = 0.5 * (x[0] - x[1]).norm() * difference / difference.norm()
    errors = []
    for signs in itertools.product((1, -1), repeat=2):
        log_q = (x @ WEIGHTS + bias).log_softmax(-1)
        shifted = x + torch.tensor(signs).unsqueeze(-1) * r
        moved = (shifted @ WEIGHTS + bias).log_softmax(-1)
        fixed = log_q.detach()
        value = (log_q.exp() * log_q).sum(-1) - (fixed.exp() * (fixed - moved)).sum(-1)
        (expected,) = torch.autograd.grad(value.mean(), bias)
        errors.append((gradient - expected).abs().max())
    assert min(errors) < 1e-5


def test_it_names_a_site_that_is_no_category(x):
    with pytest.raises(
        SiteError, match=r"needs a category 'k' in the guide; its sites are \['c'\]"
    ):
        RegularizedInformation("k").per_datum(linear_guide, x)


@pytest.mark.parametrize("option", ["marginal_weight", "smoothness", "radius"])
def test_it_refuses_negative_options(option):
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(OptionError, match=f"{option}={value}; allowed are .* from 0 up"):
            RegularizedInformation(**{option: value})


def blobs(n=60):
    """Three clusters on the unit square, of four pixels each, far apart against their width."""
    centres = torch.tensor([[0.9, 0.1, 0.1, 0.9], [0.1, 0.9, 0.9, 0.1], [0.5, 0.5, 0.9, 0.9]])
    labels = torch.arange(3).repeat_interleave(n)
    return (centres[labels] + 0.03 * torch.randn(3 * n, 4)).clamp(0, 1), labels


def test_the_start_finds_clusters_without_labels_and_touches_the_guide_alone():
    x, labels = blobs()
    vae = InfoCatVAE((4,), num_categories=3, warm_start=60)
    before = {name: value.clone() for name, value in vae.model.state_dict().items()}
    with torch.no_grad():
        vae.initialize(x)
    found = vae.encode(x)["c"].argmax(-1)
    agreement = one_hot(found, 3).T.float() @ one_hot(labels, 3).float()
    assert (agreement.max(1).values.sum() / len(x)) > 0.98
    assert all(torch.equal(value, before[name]) for name, value in vae.model.state_dict().items())


def test_no_steps_leave_the_guide_as_it_is():
    x, _ = blobs(5)
    vae = CatVAE((4,), num_categories=3, warm_start=0)
    before = {name: value.clone() for name, value in vae.guide.state_dict().items()}
    vae.initialize(x)
    warm_start_categories(vae.guide, x, [RegularizedInformation("c")], steps=0)
    assert all(torch.equal(value, before[name]) for name, value in vae.guide.state_dict().items())


@pytest.mark.parametrize("steps", [1, 10])
def test_the_best_of_several_starts_is_kept(monkeypatch, steps):
    x, _ = blobs(20)
    vae, tried = CatVAE((4,), num_categories=3), []
    first = copy.deepcopy(vae.guide.state_dict())

    own = warm_start._train

    def train(engine, guide, *given):
        before = copy.deepcopy(guide.state_dict())
        loss = own(engine, guide, *given)
        tried.append((loss, before, copy.deepcopy(guide.state_dict())))
        return loss

    monkeypatch.setattr(warm_start, "_train", train)
    warm_start_categories(vae.guide, x, [RegularizedInformation("c")], steps=steps, starts=3)
    assert len(tried) == 3
    assert all(torch.equal(tried[0][1][name], value) for name, value in first.items())
    weights = [before["heads.0.linear.weight"] for _, before, _ in tried]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(weights, 2))
    best = min(tried, key=lambda one: one[0])[2]
    assert all(torch.equal(best[name], value) for name, value in vae.guide.state_dict().items())
    for loss, before, _ in tried if steps == 1 else ():  # of the term, on a batch
        vae.guide.load_state_dict(before)
        value = RegularizedInformation("c").per_datum(vae.guide, x).item()
        assert loss == pytest.approx(-value, rel=0.3)


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store:UserWarning")
def test_frozen_layers_keep_their_weights_in_every_start():
    x, _ = blobs(5)
    vae = CatVAE((4,), num_categories=3)
    first = vae.guide.encoder.layers[0].requires_grad_(False)
    before = copy.deepcopy(first.state_dict())
    warm_start_categories(vae.guide, x, [RegularizedInformation("c")], steps=2, starts=3)
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize(
    ("options", "n", "plan"),
    [
        ({}, 1_438, (600, 2)),
        ({}, 60_000, (4_800, 2)),
        ({}, 24_000, (1_920, 2)),
        ({}, 1_000_000, (4_800, 2)),
        ({"warm_start": 900}, 1_438, (900, 2)),
        ({"warm_start": 0}, 1_438, (0, 2)),
        ({"starts": 7}, 60_000, (4_800, 7)),
    ],
)
def test_steps_and_starts_follow_from_the_number_of_data(options, n, plan):
    found = CategoryStart(**options).plan(n)
    assert (found["steps"], found["starts"]) == plan


def test_the_radius_shrinks_with_the_number_of_data():
    radii = [term.radius for n in (1_438, 60_000) for term in CategoryStart().terms(["c"], n)]
    assert radii == pytest.approx([0.709, 0.159], abs=1e-3)
    (fading,) = CategoryStart().fading_terms(["c"], 100)
    assert fading.radius == 0.16
    own = CategoryStart(start_radius=0.3)
    for term in (*own.terms(["c"], 1_438), *own.fading_terms(["c"], 100)):
        assert term.radius == 0.3


def test_an_encoder_of_ones_own_gets_one_start(monkeypatch):
    """A second one would draw its weights anew, trained ones too."""
    plans = []
    monkeypatch.setattr(
        sys.modules[CategoryStart.__module__],
        "warm_start_categories",
        lambda *args, **plan: plans.append(plan),
    )
    encoder = torch.nn.Linear(4, 5)
    for own in ({}, {"encoder": encoder}, {"warm_start": CategoryStart(starts=3)}):
        CatVAE((4,), num_categories=3, **own).initialize(torch.rand(9, 4))
    assert [plan["starts"] for plan in plans] == [2, 1, 3]


def test_the_start_goes_on_beside_the_elbo_and_fades_while_the_weights_rise():
    start = CategoryStart(start_weight=10.0, warmup=0.5)
    vae = InfoCatVAE((4,), num_categories=3, warm_start=start, mi_weight=2.0)
    objective = vae.objective(num_steps=10)
    weights = []
    for _ in range(11):
        bound, start = objective.terms
        weights.append(
            [float(objective.kl_weights["z"]()), float(bound.weight()), float(start.weight())]
        )
        objective.advance()
    weights = torch.tensor(weights)
    step = torch.arange(11)
    torch.testing.assert_close(weights[:, 0], (step / 5).clamp(max=1))
    torch.testing.assert_close(weights[:, 1], 2 * (step / 5).clamp(max=1))
    torch.testing.assert_close(weights[:, 2], 10 * (1 - step / 8).clamp(min=0))


@pytest.mark.parametrize("options", [{}, {"warm_start": 0}, {"start_weight": 0.0}])
def test_without_a_number_of_steps_or_a_start_the_objective_is_the_papers(options):
    vae = InfoCatVAE((4,), num_categories=3, mi_weight=2.0, warm_start=CategoryStart(**options))
    objective = vae.objective(num_steps=None if not options else 10)
    assert [term.name for term in objective.terms] == ["mi_c_mean"]
    if not options:
        assert float(objective.terms[0].weight()) == 2.0
        assert {float(weight()) for weight in objective.kl_weights.values()} == {1.0}


@pytest.mark.parametrize("options", [{"warm_start": -1}, {"start_weight": -1.0}, {"warmup": 1.5}])
def test_a_start_out_of_range_is_refused(options):
    with pytest.raises(OptionError, match="; allowed are"):
        CatVAE.build((4,), **options)


def test_a_category_that_is_never_used(x):
    """It is as if there were none, but for the log of the number of categories."""
    weights = WEIGHTS.clone().requires_grad_()

    def guide(x, more):
        with pyro.plate("data", len(x)):
            logits = torch.cat([x @ weights, more.expand(len(x), -1)], -1)
            pyro.sample("c", dist.Categorical(logits=logits))

    found, slopes = [], []
    for more in (torch.full((1,), -math.inf, dtype=x.dtype), torch.zeros(0, dtype=x.dtype)):
        term = RegularizedInformation("c", smoothness=0.0)
        value = term.per_datum(lambda x, m=more: guide(x, m), x)
        found.append(value.detach() + 4.0 * math.log(2 + len(more)))
        slopes.append(torch.autograd.grad(value, weights)[0])
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*slopes)
    never = torch.full((1,), -math.inf, dtype=x.dtype)
    value = RegularizedInformation("c").per_datum(lambda x: guide(x, never), x)
    assert torch.autograd.grad(value, weights)[0].isfinite().all()


@pytest.mark.parametrize(
    ("fn", "size", "message"),
    [
        (dist.Bernoulli(0.3), None, "needs a category"),
        (dist.Categorical(torch.ones(2)), 3, "for each of 6"),
    ],
)
def test_what_is_not_one_category_per_datum(x, fn, size, message):
    def guide(x):
        with pyro.plate("data", len(x), subsample_size=size):
            pyro.sample("c", fn)

    with pytest.raises(SiteError, match=message):
        RegularizedInformation("c").per_datum(guide, x)
