"""`evaluate` on a variant whose categories are right by construction, and on every variant."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import pyro_mivae as mi
from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.metrics import evaluate
from pyro_mivae.metrics.evaluate import _halves

PATTERNS = torch.eye(3).repeat_interleave(2, 1)[:, None, None]  # (3, 1, 1, 6): three bars
INFORMATION = (
    "distortion rate elbo log_px mi_lower mi_upper marginal_kl_lower marginal_kl_upper "
    "total_correlation active_units"
).split()
LABELLED = ("linear_probe", "mlp_probe")
CLUSTERED = ("cluster_accuracy", "nmi", "ari", "categories_used", "generation_accuracy")


class Matched(PyroModule):
    """A guide that knows the patterns: category by the brighter bar, z about its mean."""

    def __init__(self, prior, names, sharpness=30.0):
        super().__init__()
        self.names, self.means = names, prior.means
        self.sharpness = torch.nn.Parameter(torch.tensor(sharpness))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            scores = x.flatten(1) @ PATTERNS.flatten(1).T  # (batch, 3)
            logits = self.sharpness * scores[:, self.names]
            c = pyro.sample(
                "c", dist.OneHotCategorical(logits=logits), infer={"enumerate": "parallel"}
            )
            pyro.sample("z", dist.Normal(c @ self.means, 1.0).to_event(1))


class Stamp(torch.nn.Module):
    """A decoder that draws the bar of the nearest mean, faintly."""

    def __init__(self, prior, names):
        super().__init__()
        self.means, self.names = prior.means, names

    def forward(self, z):
        nearest = (z @ self.means.T).softmax(-1)
        return 4 * (nearest @ PATTERNS.flatten(1)[self.names]).reshape(*z.shape[:-1], 1, 1, 6) - 2


@pytest.fixture
def matched():
    prior = mi.MixturePrior(3, 6, radius=6.0)
    names = [2, 0, 1]  # category k draws pattern names[k]
    return mi.CatVAE(
        data_shape=(1, 1, 6),
        prior=prior,
        guide=Matched(prior, names),
        decoder=Stamp(prior, names),
    )


def bars(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    noise = torch.rand(n, 1, 1, 6, generator=generator)
    return 0.7 * PATTERNS[labels] + 0.3 * noise, labels + 5  # labels need not start at 0


def test_categories_that_are_right_score_one(matched):
    x, labels = bars(200)
    result = evaluate(matched, x, labels, train=bars(300, seed=1))
    for name in ("cluster_accuracy", "nmi", "ari", "judge_accuracy", *LABELLED):
        assert result[name] == pytest.approx(1.0), name
    assert result["generation_accuracy"] > 0.99
    assert result["categories_used"] == 3
    assert sum(result[f"occupancy_{k}"] for k in range(3)) == pytest.approx(1.0)
    shares = torch.bincount(labels - 5)[[2, 0, 1]] / 200
    assert [result[f"occupancy_{k}"] for k in range(3)] == pytest.approx(shares.tolist())
    assert result["mi_c_lower"] == pytest.approx(float(-shares.xlogy(shares).sum()), abs=1e-3)
    assert result["barber_agakov_c_mean"] == pytest.approx(math.log(3), abs=0.02)


def test_the_barber_agakov_figure_is_the_recognition_of_generated_means(matched):
    matched.guide.sharpness.data.fill_(0.0)  # q(c|x) is uniform: nothing is found again
    result = evaluate(matched, bars(50)[0])
    assert result["barber_agakov_c_mean"] == pytest.approx(0.0, abs=1e-5)
    assert result["categories_used"] == 1
    # Wrong for certain: a probability of 0 does not count as minus infinity.
    matched.guide.sharpness.data.fill_(-1000.0)
    wrong = evaluate(matched, bars(50)[0])["barber_agakov_c_mean"]
    assert -90 < wrong < -10


def test_a_category_that_draws_two_classes_is_seen(matched):
    class Blend(Stamp):
        def forward(self, z):
            bar = (z[..., :1] > 0).to(z) * PATTERNS[0].flatten()
            bar = bar + (z[..., :1] <= 0).to(z) * PATTERNS[1].flatten()
            return 4 * bar.reshape(*z.shape[:-1], 1, 1, 6) - 2

    prior = mi.MixturePrior(3, 6, radius=0.0)
    vae = mi.CatVAE(
        data_shape=(1, 1, 6),
        prior=prior,
        guide=Matched(matched.prior, [2, 0, 1]),
        decoder=Blend(prior, []),
    )
    result = evaluate(vae, *bars(200), train=bars(300, seed=1))
    assert result["cluster_accuracy"] == 1.0
    assert 0.45 < result["generation_accuracy"] < 0.6


def test_without_train_half_is_learned_and_the_other_scored(matched):
    x, labels = bars(101)
    result = evaluate(matched, x, labels)
    assert "51 items" in result.protocol["classifiers"]
    assert "50 items" in result.protocol["classifiers"]
    assert result["linear_probe"] == 1.0

    # If both halves were the same, or labels leaked, random labels would be found.
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(400, 1, 1, 6, generator=generator)
    random = torch.randint(2, (400,), generator=generator)
    assert evaluate(matched, noise, random)["mlp_probe"] < 0.62


def test_halves_are_random_and_hold_each_label_alike():
    labels = torch.tensor([0] * 7 + [1] * 20 + [2] * 2)
    first, second = _halves(labels, seed=0)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(29))
    counts = [labels[half].bincount(minlength=3) for half in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 1
    assert first.tolist() != _halves(labels, seed=1)[0].tolist()
    assert first.tolist() == _halves(labels, seed=0)[0].tolist()


def test_without_labels_only_what_needs_none(matched):
    x, labels = bars(40)
    bare = evaluate(matched, x)
    full = evaluate(matched, x, labels)
    assert {*INFORMATION, "categories_used", "barber_agakov_c_mean", "occupancy_0"} <= set(bare)
    assert not {*LABELLED, "cluster_accuracy", "generation_accuracy"} & set(bare)
    assert all(full[name] == bare[name] or math.isnan(bare[name]) for name in bare)


@pytest.mark.parametrize("name", mi.VARIANTS)
def test_every_variant_has_the_keys_of_the_contract(name):
    vae = mi.VARIANTS[name](data_shape=(1, 8, 8)).eval()
    x, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
    result = evaluate(vae, x, labels)
    assert {*INFORMATION, *LABELLED} <= set(result)
    assert set(CLUSTERED) <= set(result) or vae.category is None
    assert not set(CLUSTERED) & set(result) or vae.category is not None
    for site in vae.sites:
        assert {f"mi_{site}_lower", f"mi_{site}_upper", f"kl_{site}"} <= set(result)
        assert (f"linear_probe_{site}" in result) == (len(vae.sites) > 1)
    assert all(type(value) is float for value in result.values())
    json.dumps(result.protocol)
    assert result["mi_upper"] <= result["rate"]


def test_a_deterministic_code_is_evaluated():
    vae = mi.InfomaxVAE(data_shape=(1, 8, 8), latent_dim=3, deterministic=True)
    result = evaluate(vae, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
    assert math.isnan(result["elbo"])
    assert math.isnan(result["kl_c"])
    assert math.isfinite(result["linear_probe_c"])


@pytest.mark.parametrize("categorical", ["sample", "soft", "gumbel"])
def test_the_elbo_is_the_exact_one_however_it_was_trained(categorical):
    torch.manual_seed(0)
    vae = mi.CatVAE(data_shape=(1, 8, 8), categorical=categorical)
    x = torch.rand(40, 1, 8, 8)
    enumerated = mi.MutualInformationELBO(num_particles=20, max_plate_nesting=1)
    vae.eval()
    expected = -enumerated.loss(vae.model, vae.guide, x) / 40
    result = evaluate(vae, x, num_samples=20)
    assert result["elbo"] == pytest.approx(expected, abs=0.1)
    assert result["rate"] == pytest.approx(float(enumerated.ledger["rate"]) / 40, rel=1e-5)


def test_one_datum_one_category_and_one_label():
    vae = mi.CatVAE(data_shape=(1, 8, 8), num_categories=1, latent_dim=1)
    result = evaluate(vae, torch.rand(1, 1, 8, 8), torch.tensor([3]))
    assert result["cluster_accuracy"] == 1.0
    assert math.isnan(result["linear_probe"])
    assert math.isnan(result["generation_accuracy"])
    assert result["mi_c_upper"] == 0
    assert result["barber_agakov_c_mean"] == 0


def test_nothing_is_left_behind_and_the_seed_decides(matched):
    x, labels = bars(60)
    matched.train()
    state = torch.get_rng_state()
    first = evaluate(matched, x, labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert matched.training
    assert not list(pyro.get_param_store().keys())
    torch.rand(7)
    again = evaluate(matched, x, labels)
    assert first == again or all(
        first[k] == again[k] or (math.isnan(first[k]) and math.isnan(again[k])) for k in first
    )
    assert evaluate(matched, x, labels, seed=1)["elbo"] != first["elbo"]


def test_bad_input_is_named(matched):
    x, labels = bars(20)
    with pytest.raises(DataError, match="labels: expected 20 integers"):
        evaluate(matched, x, labels[:-1])
    with pytest.raises(DataError, match="torch.float32"):
        evaluate(matched, x, labels.float())
    with pytest.raises(DataError, match="the labels of train"):
        evaluate(matched, x, labels, train=(x, labels[:3]))
    with pytest.raises(DataError):
        evaluate(matched, x * torch.nan, labels)
    with pytest.raises(ShapeError, match="needed"):
        evaluate(matched, x[..., :5], labels)
    with pytest.raises(OptionError, match="samples_per_category=0"):
        evaluate(matched, x, labels, samples_per_category=0)
