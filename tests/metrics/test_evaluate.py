"""`evaluate` on a variant whose categories are right by construction, and on every variant."""

import json
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import pyro_mivae as mi
from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.metrics import classifier, how_measured
from pyro_mivae.metrics import evaluate as evaluate_all
from pyro_mivae.metrics.encoded import EncodedData, side_by_side
from pyro_mivae.metrics.splits import halves

# With hardly any importance samples and data of the model's own: both take their time.
evaluate = partial(evaluate_all, generative_items=2, generative_samples=2, iwae_samples=2)
PATTERNS = torch.eye(3).repeat_interleave(2, 1)[:, None, None]  # (3, 1, 1, 6): three bars
INFORMATION = (
    "distortion rate elbo log_px mi_lower mi_upper marginal_kl_lower marginal_kl_upper "
    "total_correlation active_units"
).split()
LABELLED = ("linear_probe", "mlp_probe", "linear_probe_sampled", "mlp_probe_sampled")
FACTORED = (
    "mig sap modularity factor_vae_score factor_vae_score_se dci_disentanglement dci_completeness "
    "dci_informativeness"
).split()
CLUSTERED = (
    "cluster_accuracy nmi ari categories_used generation_accuracy generation_consistency"
).split()


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
def short_training(monkeypatch):
    """Classifiers that train for 100 steps: bars and their noise need no more."""
    for name in ("LEAST_STEPS", "MOST_STEPS"):
        monkeypatch.setattr(classifier, name, 100)


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


def test_categories_that_are_right_score_one(matched, short_training):
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


def test_categories_that_share_a_label_are_pure_and_one_for_all_is_not(matched, quick):
    x, labels = bars(200)
    shared = evaluate(matched, x, labels.clamp(max=6))  # two of three categories are one label
    assert shared["purity"] == 1.0
    assert shared["cluster_accuracy"] < 1.0
    matched.guide.sharpness.data.fill_(0.0)  # one category takes all
    collapsed = evaluate(matched, x, labels)
    assert collapsed["purity"] == pytest.approx(float((labels - 5).bincount().max()) / 200)
    error = math.sqrt(collapsed["purity"] * (1 - collapsed["purity"]) / 200)
    assert collapsed["purity_se"] == pytest.approx(error)


def test_the_barber_agakov_figure_is_the_recognition_of_generated_means(matched):
    matched.guide.sharpness.data.fill_(0.0)  # q(c|x) is uniform: nothing is found again
    result = evaluate(matched, bars(50)[0])
    assert result["barber_agakov_c_mean"] == pytest.approx(0.0, abs=1e-5)
    assert result["categories_used"] == 1
    # Wrong for certain: a probability of 0 does not count as minus infinity.
    matched.guide.sharpness.data.fill_(-1000.0)
    wrong = evaluate(matched, bars(50)[0])["barber_agakov_c_mean"]
    assert -90 < wrong < -10


def test_a_category_that_draws_two_classes_is_seen(matched, short_training):
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
    assert 0.45 < result["generation_consistency"] < 0.6
    assert result["generation_accuracy"] == pytest.approx(1 / 3, abs=0.05)


def test_without_train_half_is_learned_and_the_other_scored(matched):
    x, labels = bars(101)
    result = evaluate(matched, x, labels)
    for name in ("linear_probe", "mlp_probe_sampled", "judge_accuracy"):
        assert "(51 items)" in how_measured(result.protocol, name)
        assert "(50 items)" in how_measured(result.protocol, name)
    assert result["linear_probe"] == 1.0

    # If both halves were the same, or labels leaked, random labels would be found.
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(400, 1, 1, 6, generator=generator)
    random = torch.randint(2, (400,), generator=generator)
    assert evaluate(matched, noise, random)["mlp_probe"] < 0.62


def test_halves_are_random_and_hold_each_label_alike():
    labels = torch.tensor([0] * 7 + [1] * 20 + [2] * 2)
    first, second = halves(labels, seed=0)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(29))
    counts = [labels[half].bincount(minlength=3) for half in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 1
    assert first.tolist() != halves(labels, seed=1)[0].tolist()
    assert first.tolist() == halves(labels, seed=0)[0].tolist()


def test_a_line_that_is_missing_would_be_seen():
    assert how_measured({"figures": {"mi_*[*]_lower, kl_*": "so"}}, "mi_z[10]_lower_se") == "so"
    assert how_measured({"figures": {"mi_*[*]_lower, kl_*": "so"}}, "mi_z_lower") is None
    assert how_measured({"figures": {"kl_z": "so"}}, "kl_z2") is None


def noisy(scale):
    """A VAE whose posterior mean is the bar, seen through noise of a scale."""
    vae = mi.VAE((1, 1, 6), latent_dim=6)
    vae.guide.encoder = torch.nn.Flatten()
    (head,) = vae.guide.heads
    head.maps[0] = torch.nn.Identity()
    head.family.forward = lambda h: dist.Normal(10 * h, scale).to_event(1)
    return vae


def test_probes_of_draws_see_the_noise_that_means_do_not(short_training):
    x, labels = bars(600)
    quiet, loud = (evaluate(noisy(scale), x, labels) for scale in (0.1, 30.0))
    for probe in ("linear_probe", "mlp_probe"):
        assert quiet[probe] == loud[probe] == 1
        assert quiet[f"{probe}_sampled"] == 1
        assert loud[f"{probe}_sampled"] < 0.6  # chance is 1/3
    right = loud["linear_probe_sampled"]
    assert loud["linear_probe_sampled_se"] == pytest.approx(math.sqrt(right * (1 - right) / 300))


def test_a_drawn_category_is_one_of_them(matched):
    x, _ = bars(40)
    codes = EncodedData(matched.eval(), [x], 0).draw([x])
    assert codes["c"].sum(1).tolist() == [1] * 40
    assert codes["c"].unique().tolist() == [0, 1]
    assert torch.equal(codes["c"].argmax(1), matched.encode(x)["c"].argmax(1))


class Told(torch.nn.Module):
    """Reads factors off the first values of an image."""

    def forward(self, x):
        return x.flatten(1)[:, :3]


def told(extra=0.0):
    """A VAE whose code is the factors, and a third dimension that hardly moves."""
    vae = mi.VAE((1, 1, 6), latent_dim=3)
    vae.guide.encoder = Told()
    scale = torch.tensor([1.0, 1.0, extra])
    (head,) = vae.guide.heads
    head.maps[0] = torch.nn.Identity()
    head.family.forward = lambda h: dist.Normal(h * scale, 0.1).to_event(1)
    return vae


def made(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    factors = torch.stack([torch.randint(k, (n,), generator=generator) for k in (3, 4)], 1)
    x = torch.rand(n, 1, 1, 6, generator=generator)
    x[:, 0, 0, :2] = factors / 3
    return x, factors + 7


def test_a_code_that_is_the_factors_scores_one():
    (x, factors), (x_train, taught) = made(300), made(600, seed=1)
    train = (x_train, None, taught)
    result = evaluate(told(), x, factors=factors, train=train)
    assert result["sap"] == pytest.approx(1 - (1 / 3 + 1 / 4) / 2, abs=0.06)
    assert [result[k] for k in FACTORED[:1] + FACTORED[2:4]] == pytest.approx([1] * 3, abs=0.02)
    assert [result[k] for k in FACTORED[5:]] == pytest.approx([1] * 3, abs=1e-3)
    assert "linear_probe" not in result
    assert "600 training items" in how_measured(result.protocol, "dci_completeness")
    assert "1 of 3" in how_measured(result.protocol, "mig")
    # A dimension that hardly moves does not vote, though it holds the first factor's noise.
    copied = x.clone()
    copied[:, 0, 0, 2] = x[:, 0, 0, 0]
    still = evaluate(told(extra=0.05), copied, factors=factors)
    moves = evaluate(told(extra=1.0), copied, factors=factors)
    assert still["mig"] == pytest.approx(1, abs=0.02)
    assert moves["mig"] == pytest.approx(0.5, abs=0.02)
    assert "random half" in how_measured(still.protocol, "dci_completeness")


def test_a_category_is_one_dimension_beside_factors(matched):
    probs = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.2, 0.3]])
    codes, categorical = side_by_side({"c": probs, "z": torch.tensor([[0.2], [0.3]])}, ["c"])
    torch.testing.assert_close(codes, torch.tensor([[1.0, 0.2], [0.0, 0.3]]))
    assert categorical == [0]
    assert side_by_side({"z": probs}, ["c"])[1] == []
    x, labels = bars(300)
    coin = torch.arange(300) % 2
    result = evaluate(matched, x, factors=torch.stack([labels, coin], 1))
    assert result["dci_informativeness"] == pytest.approx(0.75, abs=0.1)  # the coin is a guess
    assert result["modularity"] > 0.95


def test_without_labels_only_what_needs_none(matched, quick):
    x, labels = bars(40)
    bare = evaluate(matched, x)
    full = evaluate(matched, x, labels)
    assert {*INFORMATION, "categories_used", "barber_agakov_c_mean", "occupancy_0"} <= set(bare)
    assert not {*LABELLED, "cluster_accuracy", "generation_accuracy"} & set(bare)
    assert all(full[name] == bare[name] or math.isnan(bare[name]) for name in bare)


@pytest.mark.parametrize("name", mi.VARIANTS)
def test_every_variant_has_the_keys_of_the_contract(name, quick):
    options = {"num_categories": 2} if name in ("cat", "infocat", "infogan") else {}
    vae = mi.VARIANTS[name](data_shape=(1, 2, 2), latent_dim=4, **options).eval()
    x, labels = torch.rand(30, 1, 2, 2), torch.arange(30) % 3
    factors = torch.stack([torch.arange(30) % 2, torch.arange(30) // 2 % 3], 1)
    result = evaluate(vae, x, labels, factors=factors)
    assert {*INFORMATION, *LABELLED, *FACTORED} <= set(result)
    assert set(CLUSTERED) <= set(result) or vae.category is None
    assert not set(CLUSTERED) & set(result) or vae.category is not None
    for site in vae.sites:
        assert {f"mi_{site}_lower", f"mi_{site}_upper", f"kl_{site}"} <= set(result)
        assert (f"linear_probe_{site}" in result) == (len(vae.sites) > 1)
    assert all(type(value) is float for value in result.values())
    silent = [key for key in result if not how_measured(result.protocol, key)]
    assert not silent, "no line of the protocol says how these were measured"
    json.dumps(result.protocol)
    assert result["mi_upper"] <= result["rate"]


def test_a_deterministic_code_is_evaluated(quick):
    vae = mi.InfomaxVAE(data_shape=(1, 8, 8), latent_dim=3, deterministic=True)
    result = evaluate(vae, torch.rand(30, 1, 8, 8), torch.arange(30) % 3)
    assert math.isnan(result["elbo"])
    assert math.isnan(result["kl_c"])
    assert math.isfinite(result["linear_probe_c"])


@pytest.mark.parametrize("categorical", ["sample", "soft", "gumbel"])
def test_the_elbo_is_the_exact_one_however_it_was_trained(categorical):
    torch.manual_seed(0)
    vae = mi.CatVAE(data_shape=(1, 8, 8), num_categories=3, categorical=categorical)
    x = torch.rand(20, 1, 8, 8)
    enumerated = mi.MutualInformationELBO(num_particles=20, max_plate_nesting=1)
    vae.eval()
    expected = -enumerated.loss(vae.model, vae.guide, x) / 20
    result = evaluate(vae, x, num_samples=20)
    assert result["elbo"] == pytest.approx(expected, abs=0.1)
    assert result["rate"] == pytest.approx(float(enumerated.ledger["rate"]) / 20, rel=1e-5)


def test_one_datum_one_category_and_one_label(quick):
    vae = mi.CatVAE(data_shape=(1, 8, 8), num_categories=1, latent_dim=1)
    result = evaluate(vae, torch.rand(1, 1, 8, 8), torch.tensor([3]))
    for name in ("cluster_accuracy", "nmi", "ari", "linear_probe", "judge_accuracy"):
        assert math.isnan(result[name]), name
    assert math.isnan(result["generation_accuracy"])
    assert result["mi_c_upper"] == 0
    assert result["barber_agakov_c_mean"] == 0


def test_nothing_is_left_behind_and_the_seed_decides(matched, quick):
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
    with pytest.raises(DataError, match="labels: expected 20 integers or strings"):
        evaluate(matched, x, labels[:-1])
    with pytest.raises(DataError, match="labels have dtype torch.float32"):
        evaluate(matched, x, labels.float())
    with pytest.raises(DataError, match="the labels of train"):
        evaluate(matched, x, labels, train=(x, labels[:3]))
    with pytest.raises(DataError):
        evaluate(matched, x * torch.nan, labels)
    with pytest.raises(ShapeError, match="needed"):
        evaluate(matched, x[..., :5], labels)
    with pytest.raises(OptionError, match="samples_per_category=0"):
        evaluate(matched, x, labels, samples_per_category=0)
    factors = torch.stack([labels, labels], 1)
    with pytest.raises(DataError, match=r"factors: expected integers of shape \(20, F\)"):
        evaluate(matched, x, factors=factors[:-1])
    with pytest.raises(DataError, match="factors: expected integers"):
        evaluate(matched, x, factors=labels)
    with pytest.raises(DataError, match="the factors of train"):
        evaluate(matched, x, factors=factors, train=(x, None, factors.double()))
    with pytest.raises(DataError, match="factors are given, but train has none"):
        evaluate(matched, x, factors=factors, train=(x, labels))
    with pytest.raises(DataError, match="labels are given, but train has none"):
        evaluate(matched, x, labels, train=(x, None, factors))
    with pytest.raises(DataError, match="train has 1 factors, the data have 2"):
        evaluate(matched, x, factors=factors, train=(x, None, factors[:, :1]))
