"""Models that know nothing get figures of chance, or none with the reason; never a good one."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import pyro_mivae as mi
from pyro_mivae.metrics import (
    agreement_of_models,
    category_agreement,
    classifier,
    dci_scores,
    factor_vae_score,
    measures,
    modularity,
    mutual_information_gap,
    separated_attribute_predictability,
)
from pyro_mivae.metrics.encoded import EncodedData
from pyro_mivae.metrics.protocol import Findings
from pyro_mivae.metrics.splits import check_known, split
from pyro_mivae.posterior.preserved_state import preserved_state

K = 4
PATTERNS = torch.eye(K).repeat_interleave(2, 1)[:, None, None]  # (4, 1, 1, 8): four bars


def bars(n=240, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % K
    noise = torch.rand(n, 1, 1, 2 * K, generator=generator)
    return 0.7 * PATTERNS[labels] + 0.3 * noise, labels


class Reader(PyroModule):
    """A guide that puts the bars into categories; ``lean`` is what draws all into the first."""

    def __init__(self, prior, lean=0.0):
        super().__init__()
        self.means = prior.means
        self.lean = torch.nn.Parameter(lean * torch.eye(K)[0])

    def forward(self, x):
        with pyro.plate("data", len(x)):
            logits = 30 * x.flatten(1) @ PATTERNS.flatten(1).T + self.lean
            c = pyro.sample("c", dist.OneHotCategorical(logits=logits))
            pyro.sample("z", dist.Normal(c @ self.means, 1.0).to_event(1))


class Drawer(torch.nn.Module):
    """A decoder that draws, for each category, the bar that ``drawn`` says."""

    def __init__(self, prior, drawn):
        super().__init__()
        self.means, self.drawn = prior.means, torch.tensor(drawn)

    def forward(self, z):
        bar = PATTERNS.flatten(1)[self.drawn[(z @ self.means.T).argmax(-1)]]
        return 6 * bar.reshape(*z.shape[:-1], 1, 1, 2 * K) - 3


def model(drawn=(0, 1, 2, 3), lean=0.0):
    prior = mi.MixturePrior(K, 2 * K, radius=8.0)
    guide, decoder = Reader(prior, lean), Drawer(prior, drawn)
    return mi.CatVAE((1, 1, 2 * K), prior=prior, guide=guide, decoder=decoder).eval()


MODELS = {
    "right": model,
    "one drawing": lambda: model(drawn=(2, 2, 2, 2)),
    "wrong drawings": lambda: model(drawn=(1, 2, 3, 0)),
    "collapsed": lambda: model(lean=1e4),
    "collapsed onto its drawing": lambda: model(drawn=(0, 0, 0, 0), lean=1e4),
    "untrained": lambda: mi.CatVAE((1, 1, 2 * K), num_categories=K).eval(),
}


def measured(vae, x, labels, train=None, probes=True):
    """The figures with labels, without the information report."""
    known, taught = check_known(vae, x, labels, None, train)
    findings = Findings()
    with preserved_state(0, vae, device=vae.device):
        subject = EncodedData(vae, [known.x], 0)
        parts = split(known, taught, 0, vae.device)
        generated = measures.categories(subject, findings, 40)
        measures.clusters(subject, findings, known.labels)
        measures.generation(subject, findings, parts, parts.labels, generated)
        if probes:
            measures.probes(subject, findings, parts, parts.labels, None)
    return findings


@pytest.fixture(scope="module", autouse=True)
def short_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "LEAST_STEPS", 50)
        patch.setattr(classifier, "MOST_STEPS", 50)
        yield


@pytest.fixture(scope="module")
def figures(short_training):
    torch.manual_seed(0)
    return {
        name: measured(build(), *bars(), probes=name in ("right", "collapsed")).values
        for name, build in MODELS.items()
    }


def test_a_model_that_is_right_scores_one(figures):
    for name in "cluster_accuracy nmi ari generation_accuracy generation_consistency".split():
        assert figures["right"][name] == pytest.approx(1.0), name
    assert figures["right"]["cluster_accuracy_chance"] < 0.4


def test_what_is_generated_is_judged_by_the_label_that_a_category_stands_for(figures):
    accuracy = {name: found["generation_accuracy"] for name, found in figures.items()}
    assert accuracy["one drawing"] == pytest.approx(1 / K)
    assert accuracy["wrong drawings"] == 0
    assert accuracy["collapsed"] <= 1 / K
    assert accuracy["collapsed onto its drawing"] <= 1 / K
    assert accuracy["untrained"] < 0.45
    for name in ("one drawing", "wrong drawings", "collapsed onto its drawing"):
        assert figures[name]["generation_consistency"] == 1


def test_a_collapsed_model_gets_what_chance_does(figures):
    for name in ("collapsed", "collapsed onto its drawing"):
        found = figures[name]
        assert found["cluster_accuracy"] == found["cluster_accuracy_chance"] == 1 / K
        assert found["nmi"] == found["ari"] == 0
        assert found["categories_used"] == 1
    for probe in ("linear_probe", "mlp_probe"):
        chance = figures["collapsed"]["largest_label"]
        assert figures["collapsed"][probe] == pytest.approx(chance, abs=0.02), probe


def test_labels_that_are_renamed_change_nothing(figures):
    x, labels = bars()
    renamed = measured(model(), x, torch.tensor([7, 3, 9, 5])[labels]).values
    for name in "cluster_accuracy nmi ari generation_accuracy linear_probe_c".split():
        assert renamed[name] == pytest.approx(figures["right"][name]), name


def test_with_one_label_nothing_is_told_apart():
    x, labels = bars(40)
    found = measured(model(drawn=(0, 0, 0, 0), lean=1e4), x, labels * 0)
    names = (
        "cluster_accuracy nmi ari generation_accuracy generation_consistency judge_accuracy "
        "linear_probe mlp_probe"
    )
    for name in names.split():
        assert math.isnan(found.values[name]), name
        (line,) = [v for k, v in found.lines.items() if name in k.split(", ")]
        assert "not defined, because" in line, name


def test_a_class_that_is_not_learned_is_missed():
    x, labels = bars(160)
    known = labels < 3
    found = measured(model(), x, labels, train=(x[known], labels[known])).values
    assert found["cluster_accuracy"] == 1
    assert found["judge_accuracy"] == pytest.approx(0.75, abs=0.02)
    assert found["linear_probe_c"] <= 0.76
    assert found["generation_accuracy"] <= 0.76


def test_few_data_are_beside_what_chance_makes_of_them():
    x, labels = bars(8)
    found = measured(model(lean=1e4), x, labels, probes=False).values
    assert found["cluster_accuracy"] == found["cluster_accuracy_chance"] == 1 / K
    few = measured(model(), torch.rand(8, 1, 1, 2 * K), labels, probes=False).values
    assert few["cluster_accuracy_chance"] > 0.4  # by choosing the names after the fact


def test_two_collapsed_models_do_not_agree():
    one = torch.zeros(50).long()
    assert all(math.isnan(value) for value in category_agreement(one, one + 2))
    assert category_agreement(one, torch.arange(50) % 5) == (0.2, 0, 0)
    x, _ = bars(20)
    found = agreement_of_models([model(lean=1e4), model(lean=1e4)], x)
    assert all(math.isnan(mean) for mean, _ in found.values())


# Codes beside factors


def factors(n=400, sizes=(3, 4)):
    generator = torch.Generator().manual_seed(1)
    return torch.stack([torch.randint(k, (n,), generator=generator) for k in sizes], 1)


@pytest.mark.parametrize("n", [40, 400])
def test_random_codes_know_no_factor(n):
    truth, codes = factors(n), torch.randn(n, 3, generator=torch.Generator().manual_seed(2))
    assert mutual_information_gap(codes, truth) < 0.15
    assert separated_attribute_predictability(codes, truth) < 0.15
    assert math.isnan(modularity(codes, truth))
    assert factor_vae_score(codes, truth)[0] < 0.65  # chance is 1/2
    scores = dci_scores(codes[::2], truth[::2], codes[1::2], truth[1::2])
    assert max(scores[:2]) < 0.3
    assert scores.informativeness < 0.5  # chance is 7/24


def test_constant_codes_know_no_factor():
    truth, codes = factors(), torch.full((400, 3), 0.7)
    assert mutual_information_gap(codes, truth) == 0
    assert separated_attribute_predictability(codes, truth) == 0
    assert math.isnan(modularity(codes, truth))
    assert math.isnan(factor_vae_score(codes, truth)[0])
    scores = dci_scores(codes, truth, codes, truth)
    assert math.isnan(scores.disentanglement)
    assert math.isnan(scores.completeness)
    assert scores.informativeness < 0.45


def test_one_factor_cannot_be_told_from_others():
    truth, codes = factors(sizes=(3, 1)), torch.randn(400, 2)
    assert math.isnan(factor_vae_score(codes, truth)[0])
    assert math.isnan(modularity(codes, truth))


def test_a_dimension_of_noise_does_not_count_for_modularity():
    truth = factors()
    noise = torch.randn(400, 4, generator=torch.Generator().manual_seed(3))
    mixed = (truth[:, :1] + 3 * truth[:, 1:]).float()
    for codes, expected in ((truth.float(), 1.0), (mixed, modularity(mixed, truth))):
        assert modularity(codes, truth) == pytest.approx(expected, abs=0.02)
        assert modularity(torch.cat([codes, noise], 1), truth) == modularity(codes, truth)


def test_a_reconstruction_of_the_mean_holds_nothing():
    x = torch.rand(30, 1, 1, 8)
    vae = mi.VAE((1, 1, 8), latent_dim=2).eval()
    vae.requires_grad_(False)
    vae.model.decoder.forward = lambda z: torch.zeros(*z.shape[:-1], 1, 1, 8) + x.mean(0).logit()
    findings = Findings()
    measures.reconstruction(EncodedData(vae, [x], 0), findings)
    assert findings.values["reconstruction_r2"] == pytest.approx(0, abs=1e-6)
