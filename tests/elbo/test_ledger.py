"""The ledger, schedules, and pairs that do not fit."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.nn import PyroModule, PyroParam

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError

from .by_hand import (
    BATCH,
    TOLERANCE,
    K,
    build,
    cat_by_hand,
    noise,
    seeded_loss,
    simple_guide,
    simple_model,
)

pytestmark = pytest.mark.usefixtures("double")


# What is kept, and when schedules move


def schedule(step):
    return 0.25 * (step + 1)


@pytest.fixture
def scheduled():
    vae = build("infocat", num_categories=K)
    objective = mi.MutualInformationELBO(
        [mi.BarberAgakov("c", weight=schedule)], {"z": schedule, "c": 2.0}, max_plate_nesting=1
    )
    return vae, objective


def test_ledger_is_detached_summed_and_unweighted(x, scheduled):
    vae, objective = scheduled
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    entries = objective.ledger
    assert set(entries) == {"loss", "elbo", "distortion", "rate", "kl_z", "kl_c", "mi_c_mean"}
    for value in entries.values():
        assert value.shape == ()
        assert not value.requires_grad
    plain = mi.MutualInformationELBO(max_plate_nesting=1)
    expected = seeded_loss(plain, vae.model, vae.guide, x).detach()
    torch.testing.assert_close(entries["elbo"], -expected, **TOLERANCE)
    torch.testing.assert_close(entries["elbo"], -entries["distortion"] - entries["rate"])
    torch.testing.assert_close(entries["rate"], entries["kl_z"] + entries["kl_c"])
    weighted = entries["distortion"] + 0.25 * entries["kl_z"] + 2 * entries["kl_c"]
    torch.testing.assert_close(loss.detach(), weighted - 0.25 * entries["mi_c_mean"])
    torch.testing.assert_close(entries["loss"], loss.detach())


def test_twice_the_data_is_twice_every_entry(x):
    vae = build("vae")
    vae.guide.heads[0].maps[0].bias.data.chunk(2)[1].fill_(-60)  # no noise to speak of
    objective = vae.objective()
    objective.loss(vae.model, vae.guide, x)
    once = objective.ledger
    objective.loss(vae.model, vae.guide, torch.cat([x, x]))
    for name, value in objective.ledger.items():
        torch.testing.assert_close(value, 2 * once[name], rtol=1e-3, atol=0)


def test_schedules_move_with_training_steps_only(x, scheduled):
    vae, objective = scheduled
    state = objective.state_dict()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), loss=objective)
    svi.evaluate_loss(x)
    objective.differentiable_loss(vae.model, vae.guide, x)
    objective.loss(vae.model, vae.guide, x)
    assert objective.state_dict() == state
    for step in range(1, 4):
        svi.step(x)
        assert objective.kl_weights["z"]() == schedule(step)
        assert objective.terms[0].weight() == schedule(step)
    objective.advance()
    assert objective.kl_weights["z"]() == schedule(4)
    assert objective.kl_weights["c"]() == 2.0


def test_schedules_resume(x, scheduled):
    vae, objective = scheduled
    for _ in range(3):
        objective.loss_and_grads(vae.model, vae.guide, x)
    resumed = mi.MutualInformationELBO(
        [mi.BarberAgakov("c", weight=schedule)], {"z": schedule, "c": 2.0}, max_plate_nesting=1
    )
    resumed.load_state_dict(objective.state_dict())
    for each in (objective, resumed):
        each.advance()
        assert each.kl_weights["z"]() == each.terms[0].weight() == schedule(4)
    assert resumed.state_dict() == objective.state_dict()


def test_weight_that_starts_at_zero_warms_up(x):
    vae = build("cat", num_categories=K)
    objective = mi.MutualInformationELBO(
        kl_weights={"c": mi.linear_warmup(2)}, max_plate_nesting=1
    )
    (eps,) = noise((K, BATCH, 6))
    for beta in (0.0, 0.5, 1.0, 1.0):
        loss = seeded_loss(objective, vae.model, vae.guide, x)
        torch.testing.assert_close(loss, cat_by_hand(vae, x, eps, K, beta), **TOLERANCE)
        objective.advance()


def test_moves_with_the_data():
    objective = mi.MutualInformationELBO(kl_weights={"z": schedule})
    assert objective.to("cpu") is objective


# Bad options and pairs that do not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kl_weights": {"z": -1.0}},
            r"kl_weights\['z'\]=-1.0; allowed .* from 0 up",
        ),
        ({"kl_weights": {"z": math.nan}}, r"kl_weights\['z'\]=nan; allowed"),
        ({"num_particles": 10**13}, "num_particles=10000000000000; allowed .* to 1000000"),
        ({"terms": [mi.BarberAgakov("c"), mi.BarberAgakov("c")]}, "each term once"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError, match=message):
        mi.MutualInformationELBO(**options)


@pytest.mark.parametrize(
    ("model", "guide", "options", "message"),
    [
        (simple_model, simple_guide, {"kl_weights": {"y": 1.0}}, r"names \['y'\]; the latent"),
        (simple_model, lambda x: simple_guide(x, name="y"), {}, r"sites \['y', 'z'\] are not in"),
        (simple_model, lambda x: None, {}, r"the guide samples \[\]"),
        (simple_guide, simple_guide, {}, "the model observes nothing; give one of its sites obs"),
        (
            simple_model,
            lambda x: simple_guide(x, dist.Bernoulli(0.5)),
            {},
            "'z' .*neither reparametrised nor enumerated; annotate it",
        ),
        (
            simple_model,
            lambda x: simple_guide(x, dist.Bernoulli(0.5), {"enumerate": "sequential"}),
            {},
            "annotate it with infer",
        ),
        (simple_model, lambda x: simple_guide(x, dist.Poisson(2.0)), {}, "with rsample, or pyro"),
        (
            simple_model,
            lambda x: simple_guide(
                x, dist.Bernoulli(0.5), {"enumerate": "parallel", "num_samples": 3}
            ),
            {},
            "num_samples",
        ),
    ],
)  # fmt: skip
def test_pairs_that_do_not_fit(values, model, guide, options, message):
    objective = mi.MutualInformationELBO(max_plate_nesting=1, **options)
    with pytest.raises(SiteError, match=message):
        objective.differentiable_loss(model, guide, values)


def test_dimension_shared_by_two_enumerated_sites(values):
    """pyro.markov gives a dimension out again, which the sum over categories cannot know."""

    def chain(x, infer=None):
        c = torch.tensor(0)
        for t in pyro.markov(range(3)):
            c = pyro.sample(f"c{t}", dist.Categorical(torch.eye(2)[c] + 0.3), infer=infer)
        return c

    def model(x):
        c = chain(x)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(1.0 * c, 1.0), obs=x)

    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    with pytest.raises(SiteError, match="pyro.markov"):
        objective.loss(model, lambda x: chain(x, {"enumerate": "parallel"}), values)


def test_cost_outside_the_plate_of_a_category(values):
    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        pyro.sample("g", dist.Normal(c.sum(-1, keepdim=True), 1.0))

    def model(x):
        data = pyro.plate("data", len(x))
        with data:
            c = pyro.sample("c", dist.Bernoulli(0.5))
        pyro.sample("g", dist.Normal(0.0, 1.0))
        with data:
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    with pytest.raises(SiteError, match="outside its plates"):
        mi.MutualInformationELBO(max_plate_nesting=1).loss(model, guide, values)


@pytest.mark.parametrize("nesting", [1, math.inf])
def test_batch_without_a_plate_is_found_by_validation(values, nesting):
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x, 1.0))

    objective = mi.MutualInformationELBO(max_plate_nesting=nesting)
    with pytest.raises(ValueError, match="invalid log_prob shape"):
        objective.loss(model, guide, values)


def test_nothing_to_learn_is_no_error(values):
    objective = mi.MutualInformationELBO()
    assert math.isfinite(objective.loss_and_grads(simple_model, simple_guide, values))


def test_learned_prior_and_constrained_parameters(values):
    class Prior(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = PyroParam(torch.tensor(2.0), dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, self.scale))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    model = Prior()
    svi = SVI(model, simple_guide, pyro.optim.Adam({"lr": 0.1}), mi.MutualInformationELBO())
    before = model.scale.item()
    svi.step(values)
    assert model.scale.item() != before
