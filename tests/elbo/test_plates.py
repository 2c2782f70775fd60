"""The objective under plates, masks and scales, and with several particles."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyro_mivae as mi

from .by_hand import (
    BATCH,
    TOLERANCE,
    K,
    Pair,
    build,
    cat_by_hand,
    mean_of,
    noise,
    normal_kl,
    seeded_loss,
)

pytestmark = pytest.mark.usefixtures("double")


class Conjugate(Pair):
    """One Normal per datum, with whatever plate, mask or scale the test asks for."""

    def __init__(self):
        super().__init__(w=torch.tensor(0.7), v=torch.tensor(0.4))
        self.size = None
        self.mask = None

    def plate(self, x):
        size = self.size or len(x)
        return pyro.plate("data", size, subsample=torch.arange(len(x)))

    def model(self, x):
        with self.plate(x), poutine.mask(mask=self.hidden(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.w * z, 1.0), obs=x)

    def guide(self, x):
        with self.plate(x), poutine.mask(mask=self.hidden(x)):
            pyro.sample("z", dist.Normal(self.v * x, 0.6))

    def hidden(self, x):
        return torch.ones(len(x), dtype=torch.bool) if self.mask is None else self.mask

    def by_hand(self, x, eps):
        loc = self.v * x
        log_x = dist.Normal(self.w * (loc + 0.6 * eps), 1.0).log_prob(x)
        return normal_kl(loc[:, None], torch.tensor([0.6])) - log_x


def test_subsampled_plate_scales_the_loss(values):
    pair = Conjugate()
    pair.size = 40
    objective = mi.MutualInformationELBO(max_plate_nesting=1)
    loss = seeded_loss(objective, pair.model, pair.guide, values)
    expected = 8 * pair.by_hand(values, *noise((5,))).sum()
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    entries = objective.ledger
    torch.testing.assert_close(entries["distortion"] + entries["kl_z"], expected.detach())


def test_mask_leaves_data_out(values):
    pair = Conjugate()
    pair.mask = torch.tensor([True, False, True, True, False])
    objective = mi.MutualInformationELBO([], {"z": 2.0}, max_plate_nesting=1)
    loss = seeded_loss(objective, pair.model, pair.guide, values)
    entries = objective.ledger
    (eps,) = noise((5,))
    kl = normal_kl((pair.v * values)[:, None], torch.tensor([0.6]))
    expected = (pair.by_hand(values, eps) + kl)[pair.mask].sum()
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(entries["kl_z"], kl[pair.mask].sum().detach())
    elbo = -pair.by_hand(values, eps)[pair.mask].sum().detach()
    torch.testing.assert_close(entries["elbo"], elbo)


def test_scale_of_the_users_is_no_weight_of_ours(values):
    pair = Conjugate()
    model, guide = (poutine.scale(fn, 3.0) for fn in (pair.model, pair.guide))
    objective = mi.MutualInformationELBO(kl_weights={"z": 0.5}, max_plate_nesting=1)
    loss = seeded_loss(objective, model, guide, values)
    (eps,) = noise((5,))
    kl = normal_kl((pair.v * values)[:, None], torch.tensor([0.6])).sum()
    expected = 3 * (pair.by_hand(values, eps).sum() - 0.5 * kl)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(objective.ledger["kl_z"], 3 * kl.detach())


def test_particles_in_turn_are_the_mean_of_the_draws(x):
    vae = build("cat", num_categories=K)
    draws = noise(*[(K, BATCH, 6)] * 3)
    expected = sum(cat_by_hand(vae, x, eps, K) for eps in draws) / 3
    objective = mi.MutualInformationELBO(num_particles=3, max_plate_nesting=1)
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(objective.ledger["elbo"], -expected.detach(), **TOLERANCE)


@pytest.mark.parametrize(("nesting", "weight"), [(1, 1.0), (math.inf, 1.0), (1, 2.0), (1, 0.0)])
def test_particles_along_a_plate_equal_particles_in_turn(x, nesting, weight):
    vae = build("cat", num_categories=K)
    many = x.repeat(10, 1, 1)  # as many draws at once
    options = {"num_particles": 5, "kl_weights": {"z": weight}, "max_plate_nesting": nesting}
    one, other = (
        mi.MutualInformationELBO(vectorize_particles=v, **options) for v in (True, False)
    )
    losses = {e: [e.loss(vae.model, vae.guide, many) for _ in range(8)] for e in (one, other)}
    (a, s), (b, t) = (mean_of(values) for values in losses.values())
    assert abs(a - b) < 4 * math.hypot(s, t) < 0.05 * b
    for key in ("kl_c", "kl_z"):  # in closed form, so the same whatever is drawn
        torch.testing.assert_close(one.ledger[key], other.ledger[key], **TOLERANCE)


@pytest.mark.parametrize("vectorize", [True, False])
def test_particles_beside_an_information_term(x, vectorize):
    vae = build("cat", num_categories=K)
    term = mi.BarberAgakov("c", weight=2.0)
    objective = mi.MutualInformationELBO(
        [term], num_particles=3, vectorize_particles=vectorize, max_plate_nesting=1
    )
    loss = seeded_loss(objective, vae.model, vae.guide, x)
    entries = objective.ledger
    torch.testing.assert_close(loss.detach(), -entries["elbo"] - 2 * entries["mi_c_mean"])
    assert entries["mi_c_mean"].abs() < BATCH * 20
