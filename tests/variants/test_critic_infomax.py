"""CriticInfomaxVAE: two players' rates and losses, and the options of its source."""

import copy

import pyro
import pytest
import torch
from pyro.infer import SVI
from torch import nn

import pyro_mivae as mi
from pyro_mivae.errors import OptionError
from pyro_mivae.guides import CorruptedGuide
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.networks import JointCritic
from pyro_mivae.terms import ScoreBound
from pyro_mivae.training import describe_model, differences, fit

SHAPE = (1, 3, 4)


@pytest.fixture
def x():
    return torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(0))


def make(**options):
    torch.manual_seed(1)
    return mi.CriticInfomaxVAE(SHAPE, latent_dim=3, **options)


def bound(**options):
    torch.manual_seed(2)
    return mi.CriticBound("z", critic=JointCritic(SHAPE, 3), **options)


def weights(vae):
    return {name: value.detach().clone() for name, value in vae.named_parameters()}


def moved(vae, before):
    """The largest change of a parameter of the critic, and of any other."""
    steps = {n: (p.detach() - before[n]).abs().max() for n, p in vae.named_parameters()}
    critic = [float(step) for name, step in steps.items() if name.startswith("critic.")]
    others = [float(step) for name, step in steps.items() if not name.startswith("critic.")]
    return max(critic), max(others)


# One step, two players


def by_svi(vae, x):
    SVI(vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), vae.objective()).step(x)


def by_fit(vae, x):
    fit(vae, x, epochs=1, batch_size=64, device="cpu")


@pytest.mark.parametrize("step", [by_svi, by_fit])
def test_critic_has_its_own_rate(step, x):
    """The first step of Adam is the learning rate, whatever the gradient."""
    vae = make(critic_lr=0.05)
    before = weights(vae)
    step(vae, x)
    assert moved(vae, before) == pytest.approx((0.05, 1e-3), rel=1e-3)


def test_a_baseline_is_the_variants_own_and_has_the_critics_rate(x):
    baseline = nn.Linear(3, 1)
    vae = make(critic=bound(bound=ScoreBound("tuba", baseline=baseline)), critic_lr=0.05)
    before = baseline.weight.detach().clone()
    by_svi(vae, x)
    assert {"baseline.weight", "baseline.bias"} <= dict(vae.named_parameters()).keys()
    assert float((baseline.weight.detach() - before).abs().max()) == pytest.approx(0.05, rel=1e-3)


def test_fit_scales_both_rates(x):
    vae = make(critic_lr=0.05)
    before = weights(vae)
    fit(vae, x, epochs=1, batch_size=64, lr=1e-4, device="cpu")
    assert moved(vae, before) == pytest.approx((0.005, 1e-4), rel=1e-3)


def test_torch_optimiser_of_the_variants_parameters(x):
    with pyro.settings.context(module_local_params=True):
        vae = make()
        loss_of = vae.objective()(vae.model, vae.guide)
        optimiser = torch.optim.Adam(vae.parameters(), lr=0.01)
        before = weights(vae)
        loss_of(x).backward()
        optimiser.step()
    assert moved(vae, before) == pytest.approx((0.01, 0.01), rel=1e-3)


def test_two_variants_have_a_critic_each(x):
    first, second = make(), make()
    by_svi(first, x)
    trained, before = weights(first), weights(second)
    by_svi(second, x)
    assert moved(first, trained) == (0.0, 0.0)
    assert min(moved(second, before)) > 0
    copied = copy.deepcopy(first)
    by_svi(copied, x)
    assert moved(first, trained) == (0.0, 0.0)
    assert moved(copied, trained)[0] == pytest.approx(1e-3, rel=1e-2)


def test_at_weight_zero_the_model_trains_as_a_vae(x):
    """Critic aside, each step is that of the VAE: the same loss and the same gradient."""
    vae, elbo = make(mi_weight=0.0), mi.MutualInformationELBO(max_plate_nesting=1)
    losses, slopes = [], []
    for objective in (vae.objective(), elbo):
        vae.zero_grad()
        torch.manual_seed(7)
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        loss.backward()
        losses.append(loss.detach())
        slopes.append([p.grad.clone() for n, p in vae.named_parameters() if "critic." not in n])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*slopes)


def test_each_players_loss_is_in_the_history(x):
    history = fit(make(), x, epochs=2, batch_size=64, device="cpu")
    for loss, heard in zip(history["loss_critic_z"], history["mi_z_critic"], strict=True):
        assert loss == -heard
    parts = zip(*(history[k] for k in ("loss", "distortion", "kl_z", "mi_z_critic")), strict=True)
    for loss, distortion, kl, heard in parts:
        assert loss == pytest.approx(distortion + kl - heard, rel=1e-5)


# Options of the source


def test_permutations_of_a_seed_go_on_after_a_break(x, tmp_path):
    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    settings = {"epochs": 4, "batch_size": 64, "device": "cpu", "validation": x}

    def options():
        return {"critic": bound(seed=3, bound="mine")}

    whole = make(**options())
    fit(whole, x, **settings, run=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(make(**options()), x, **settings, run=tmp_path / "parts", on_epoch=stop)
    resumed = make(**options())
    fit(resumed, x, **settings, run=tmp_path / "parts", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_evaluation_takes_no_permutation_of_the_trainings(x):
    def losses(look):
        vae = make(critic=bound(seed=3))
        objective, found = vae.objective(), []
        for _ in range(3):
            if look:
                objective.loss(vae.model, vae.guide, x)
                vae.eval()
                objective.differentiable_loss(vae.model, vae.guide, x)
                vae.train()
            torch.manual_seed(0)
            objective.differentiable_loss(vae.model, vae.guide, x)
            found.append(float(objective.ledger["mi_z_critic"]))
        return found

    assert losses(look=True) == losses(look=False)
    assert len(set(losses(look=False))) == 3


def test_guide_sees_corrupted_data_and_nobody_else_does(x):
    seen = {}

    class Listening(JointCritic):
        def both_pairs(self, x, code, partner):
            seen["critic"] = x
            return super().both_pairs(x, code, partner)

    def halve(x):
        seen["corrupted"] = x
        return x / 2

    guide = CorruptedGuide(mi.MeanFieldGuide(SHAPE, {"z": 3}), halve)
    vae = make(guide=guide, critic=Listening(SHAPE, 3, (8,)), bound="nwj")
    vae.guide.guide.encoder.register_forward_pre_hook(
        lambda module, inputs: seen.update(guide=inputs[0])
    )
    vae.objective().differentiable_loss(vae.model, vae.guide, x)
    assert torch.equal(seen["guide"], x / 2)
    assert seen["critic"] is x
    trace = pyro.poutine.trace(vae.model).get_trace(x)
    assert trace.nodes["x"]["value"] is x
    vae.encode(x)
    assert torch.equal(seen["guide"], x)  # when it is looked at, nothing is altered


def test_several_samples_are_averaged(x):
    vae = make(num_particles=60)
    objective = vae.objective()
    objective.loss(vae.model, vae.guide, x)
    many = {name: float(value) for name, value in objective.ledger.items()}
    single = make().objective()
    draws = {name: [] for name in ("distortion", "mi_z_critic")}
    for _ in range(30):
        single.loss(vae.model, vae.guide, x)
        for name, values in draws.items():
            values.append(float(single.ledger[name]))
    for name, values in draws.items():
        values = torch.tensor(values)
        error = float(values.std()) * (1 / 30 + 1 / 60) ** 0.5
        assert many[name] == pytest.approx(float(values.mean()), abs=4 * error)


class Laplace(Likelihood):
    def forward(self, decoded):
        return pyro.distributions.Laplace(decoded, 0.3)


def test_likelihood_of_ones_own(x):
    vae = make(likelihood=Laplace())
    trace = pyro.poutine.trace(vae.model).get_trace(x)
    assert isinstance(trace.nodes["x"]["fn"].base_dist, pyro.distributions.Laplace)
    before = weights(vae)
    by_svi(vae, x)
    assert min(moved(vae, before)) > 0


def test_divergence_and_regularisation_of_ones_own(x):
    """The KL as a penalty beside beta = 0, and a penalty of the critic's scores."""

    def divergence(particle):
        q, p = (trace.nodes["z"]["fn"] for trace in (particle.traces.guide, particle.traces.model))
        return torch.distributions.kl_divergence(q, p).sum()

    penalty = mi.Penalty("z", function=divergence, weight=1.5)
    own = make(beta=0.0, regularization=penalty)
    usual = make(beta=1.5)
    losses = []
    for vae in (own, usual):
        torch.manual_seed(7)
        losses.append(vae.objective().differentiable_loss(vae.model, vae.guide, x).detach())
    torch.testing.assert_close(*losses)

    vae = make(critic=bound(regularization=lambda joint, marginal: joint.abs().mean()))
    objective = vae.objective()
    objective.loss(vae.model, vae.guide, x)
    assert objective.ledger["loss_critic_z"] > -objective.ledger["mi_z_critic"]


def test_models_with_other_terms_are_told_apart():
    def told(first, second):
        models = [describe_model(make(**options)) for options in (first, second)]
        return list(differences(*models))

    assert not told({"critic": bound(seed=3)}, {"critic": bound(seed=3)})
    assert told({"critic": bound(seed=3)}, {"critic": bound(seed=4)}) == [
        "critic.seed is 3 here and 4 there"
    ]
    assert any(
        "pairs" in line for line in told({"critic": bound()}, {"critic": bound(pairs="all")})
    )
    small, large = (
        {"regularization": mi.Penalty("z", function=size)}
        for size in (lambda particle: 1.0, lambda particle: 2.0)
    )
    assert not told(small, small)
    assert told(small, large)


def test_given_terms_start_anew_and_keep_their_networks():
    vae = make(critic=bound(seed=3, weight=mi.linear_warmup(4)))
    first = vae.objective()
    first.advance(2)
    second = vae.objective()
    assert float(first.terms[0].weight()) == 0.5
    assert float(second.terms[0].weight()) == 0.0
    assert first.terms[0].critic is second.terms[0].critic is vae.critic


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": "deep"}, "critic='deep'; allowed are joint, separable, bilinear, chain"),
        ({"bound": "club"}, "bound='club'; allowed are nwj"),
        ({"critic_lr": 0.0}, "critic_lr=0.0; allowed are finite numbers above 0"),
        ({"num_particles": 0}, "num_particles=0"),
        (
            {"critic": bound(), "mi_weight": 2.0},
            "mi_weight=2.0, bound='infonce' with a CriticBound",
        ),
        ({"critic": bound(), "bound": "mine"}, "bound='mine' with a CriticBound"),
        ({"mi_weight": -1.0}, "mi_weight=-1.0; allowed are finite numbers from 0 up"),
        ({"beta": -1.0}, "beta=-1.0; allowed are finite numbers from 0 up"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message):
        make(**options)


def test_explains_both_players():
    text = mi.explain(make(mi_weight=0.5, beta=2.0).objective())
    assert "- 2 * KL(q(z|x) || p(z))" in text
    assert "+ 0.5 * I_q(x;z) by infonce, critic SeparableCritic" in text


def test_every_layer_of_a_module_critic_is_saved():
    vae = make(critic=JointCritic(SHAPE, 3, (8,)))
    saved = {name for name in vae.state_dict() if name.startswith("critic.")}
    assert len(saved) == len(list(vae.critic.parameters()))
    assert all(isinstance(p, nn.Parameter) for p in vae.critic.parameters())
