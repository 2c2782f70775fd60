"""The critics' bounds by hand, by brute force, and at the ends of the number range."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import softplus

from pyro_mivae.bounds import (
    MovingAverage,
    club_bound,
    donsker_varadhan_bound,
    infonce_bound,
    interpolated_bound,
    jensen_shannon_estimate,
    leave_one_out_bound,
    mine_bound,
    nwj_bound,
    off_diagonal,
    smile_estimate,
    tuba_bound,
)
from pyro_mivae.errors import OptionError, ShapeError

JOINT = torch.tensor([1.0, 2.0], dtype=torch.float64)
MARGINAL = torch.tensor([0.0, math.log(3.0), -1.0], dtype=torch.float64)  # e^T: 1, 3, 1/e


def random_scores(n=5, seed=0, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, n, generator=generator, dtype=torch.float64)


def test_small_cases_by_hand():
    partition = (1 + 3 + math.exp(-1)) / 3
    value = donsker_varadhan_bound(JOINT, MARGINAL)
    assert math.isclose(value, 1.5 - math.log(partition))
    assert math.isclose(mine_bound(JOINT, MARGINAL, MovingAverage()), value)
    assert math.isclose(nwj_bound(JOINT, MARGINAL), 1.5 - partition / math.e)
    joint_baseline = torch.tensor([0.5, 0.0], dtype=torch.float64)
    marginal_baseline = torch.tensor([0.0, math.log(6.0), -1.0], dtype=torch.float64)
    value = tuba_bound(JOINT, MARGINAL, joint_baseline, marginal_baseline)
    assert math.isclose(value, 1 + (0.5 + 2.0) / 2 - (1 + 0.5 + 1) / 3)
    value = jensen_shannon_estimate(JOINT, MARGINAL)
    assert math.isclose(value, 1 + 1.5 - partition)
    value = smile_estimate(JOINT, MARGINAL, clip=0.5)
    clipped = (1 + math.exp(0.5) + math.exp(-0.5)) / 3
    assert math.isclose(value, 1.5 - math.log(clipped))
    unclipped = smile_estimate(JOINT, MARGINAL, clip=math.inf)
    assert math.isclose(unclipped, donsker_varadhan_bound(JOINT, MARGINAL))


def test_off_diagonal_is_what_the_mask_leaves():
    scores = random_scores(4)
    assert torch.equal(off_diagonal(scores), scores[~torch.eye(4, dtype=torch.bool)])


def test_club_rows_are_those_of_the_loops():
    densities = random_scores(4)
    rows = club_bound(densities, reduction="none")
    for i in range(4):
        others = [densities[i, j].item() for j in range(4) if j != i]
        assert math.isclose(rows[i], densities[i, i].item() - sum(others) / 3)
    assert torch.isclose(club_bound(densities), rows.mean())
    assert (leave_one_out_bound(densities, reduction="none") <= rows).all()


def test_tuba_with_baseline_e_is_nwj():
    scores = random_scores()
    joint, marginal = scores.diagonal(), off_diagonal(scores)
    assert nwj_bound(joint, marginal) == tuba_bound(joint, marginal, 1.0, torch.tensor(1.0))
    ones = torch.ones_like(scores)
    per_pair = tuba_bound(joint, marginal, ones.diagonal(), off_diagonal(ones))
    assert torch.isclose(nwj_bound(joint, marginal), per_pair)


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.4, 1.0])
def test_interpolated_bound_is_that_of_the_loops(alpha):
    n = 5
    scores, baseline = random_scores(n), random_scores(n, seed=1)[0]
    together, apart = [], []
    for i in range(n):
        for left_out in set(range(n)) - {i}:
            kept = [k for k in range(n) if k != left_out]
            mean = sum(scores[i, k].exp() for k in kept) / (n - 1)
            mixed = alpha * mean + (1 - alpha) * baseline[i].exp()
            together.append((scores[i, i].exp() / mixed).log())
            # the code i is independent of all data but its own
            kept = [k for k in range(n) if k != i]
            mean = sum(scores[i, k].exp() for k in kept) / (n - 1)
            mixed = alpha * mean + (1 - alpha) * baseline[i].exp()
            apart.append(scores[i, left_out].exp() / mixed)
    expected = 1 + torch.stack(together).mean() - torch.stack(apart).mean()
    assert torch.isclose(interpolated_bound(scores, baseline, alpha=alpha), expected, atol=1e-12)


def test_interpolated_bound_has_its_two_ends():
    n = 6
    scores, baseline = random_scores(n), random_scores(n, seed=1)[0]
    joint, marginal = scores.diagonal(), off_diagonal(scores)
    per_pair = off_diagonal(baseline[:, None].expand(n, n))
    tuba = tuba_bound(joint, marginal, baseline, per_pair)
    assert torch.isclose(interpolated_bound(scores, baseline, alpha=0.0), tuba)
    nwj = nwj_bound(joint, marginal)
    assert torch.isclose(interpolated_bound(scores, 1.0, alpha=0.0), nwj)
    kept = [[k for k in range(n) if k != left_out] for left_out in range(n)]
    nce = torch.stack([infonce_bound(scores[k][:, k]) for k in kept]).mean()
    assert torch.isclose(interpolated_bound(scores, baseline, alpha=1.0), nce)
    for alpha, end in ((1e-9, tuba), (1 - 1e-9, nce)):
        near = interpolated_bound(scores, baseline, alpha=alpha)
        assert torch.isclose(near, end, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0])
def test_interpolated_bound_has_a_ceiling(alpha):
    for seed in range(20):
        scores = random_scores(8, seed, scale=50.0)
        value = interpolated_bound(scores, -200.0, alpha=alpha)
        assert value <= 1 + math.log(7 / alpha) + 1e-9
    best = torch.full((8, 8), -1e4, dtype=torch.float64).fill_diagonal_(1e4)
    reached = interpolated_bound(best, -5e3, alpha=alpha)
    margin = 0.0 if alpha < 1 else 1.0  # InfoNCE's ceiling is log(n - 1), without the 1
    assert math.isclose(reached, 1 + math.log(7 / alpha) - margin, abs_tol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_infonce_never_exceeds_log_n_whatever_the_scores(n):
    for seed in range(20):
        for scale in (0.1, 10.0, 1e4):
            assert infonce_bound(random_scores(n, seed, scale)) <= math.log(n)
    best = torch.full((n, n), -1e4, dtype=torch.float64).fill_diagonal_(1e4)
    assert math.isclose(infonce_bound(best), math.log(n))


DIFFERENTIABLE = {
    "donsker_varadhan": lambda s: donsker_varadhan_bound(s.diagonal(), off_diagonal(s)),
    "mine at rate 1": lambda s: mine_bound(s.diagonal(), off_diagonal(s), MovingAverage(1.0)),
    "nwj": lambda s: nwj_bound(s.diagonal(), off_diagonal(s)),
    "tuba": lambda s: tuba_bound(s.diagonal(), off_diagonal(s), s[0], 0.3),
    "interpolated 0": lambda s: interpolated_bound(s, s[:, 0], alpha=0.0),
    "interpolated 0.3": lambda s: interpolated_bound(s, s[:, 0], alpha=0.3),
    "interpolated 1": lambda s: interpolated_bound(s, 0.0, alpha=1.0),
    "club": club_bound,
    "leave-one-out": leave_one_out_bound,
    "infonce": infonce_bound,
}


@pytest.mark.parametrize("bound", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_gradients_are_those_of_finite_differences(bound):
    assert gradcheck(bound, random_scores(4).requires_grad_())


@pytest.mark.parametrize(
    "estimate",
    [jensen_shannon_estimate, lambda j, m: smile_estimate(j, m, clip=0.7)],
    ids=["jensen-shannon", "smile"],
)
def test_estimates_have_the_divergences_gradient(estimate):
    joint, marginal = JOINT.clone().requires_grad_(), MARGINAL.clone().requires_grad_()
    found = torch.autograd.grad(estimate(joint, marginal), (joint, marginal))
    divergence = -softplus(-joint).mean() - softplus(marginal).mean()
    expected = torch.autograd.grad(divergence, (joint, marginal))
    assert torch.allclose(found[0], expected[0])
    assert torch.allclose(found[1], expected[1])


def test_mine_gradient_is_that_of_its_formula():
    rate, steps = 0.25, 6
    average = MovingAverage(rate).double()
    partitions = []
    for step in range(steps):
        scores = random_scores(4, seed=step).requires_grad_()
        joint, marginal = scores.diagonal(), off_diagonal(scores)
        value = mine_bound(joint, marginal, average)
        assert torch.isclose(value, donsker_varadhan_bound(joint, marginal))
        partitions.append(marginal.exp().mean().item())
        weights = [rate * (1 - rate) ** (step - s) for s in range(step + 1)]
        denominator = sum(w * p for w, p in zip(weights, partitions)) / sum(weights)
        expected = torch.eye(4, dtype=torch.float64) / 4
        off = ~torch.eye(4, dtype=torch.bool)
        expected[off] = -(marginal.exp() / 12 / denominator).detach()
        assert torch.allclose(torch.autograd.grad(value, scores)[0], expected)


def test_moving_average_moves_in_training_alone():
    average = MovingAverage(0.1)
    marginal = MARGINAL.clone().requires_grad_()
    mine_bound(JOINT, marginal, average)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    assert set(before) == {"log_sum", "log_weight"}
    with torch.no_grad():
        mine_bound(JOINT, marginal, average)
    average.eval()
    value = mine_bound(JOINT, 2 * marginal, average)
    (found,) = torch.autograd.grad(value, marginal)
    (plain,) = torch.autograd.grad(donsker_varadhan_bound(JOINT, 2 * marginal), marginal)
    assert torch.equal(found, plain)
    assert all(torch.equal(average.state_dict()[name], before[name]) for name in before)
    average.train()
    places = [buffer.data_ptr() for buffer in average.buffers()]
    mine_bound(JOINT, 2 * marginal, average)
    assert [buffer.data_ptr() for buffer in average.buffers()] == places  # as captured graphs need
    assert not torch.equal(average.log_sum, before["log_sum"])
    copy = MovingAverage(0.1)
    copy.load_state_dict(average.state_dict())
    assert copy.update(torch.tensor(0.3)) == average.update(torch.tensor(0.3))


def test_moving_average_leaves_out_what_is_no_number():
    average = MovingAverage(0.5)
    average.update(torch.tensor(1.0))
    for bad in (torch.inf, torch.nan):
        assert average.update(torch.tensor(bad)) == 1.0
    assert average.update(torch.tensor(-torch.inf)) < 1.0  # a mean of 0 is a number
    assert repr(average) == "MovingAverage(rate=0.5)"
    for rate in (0.0, 1.1, -1.0):
        with pytest.raises(OptionError, match="above 0 and up to 1"):
            MovingAverage(rate)


EXTREMES = {
    "random": torch.randn(16, 16, generator=torch.Generator().manual_seed(0)) * 1e4,
    "joint high": torch.full((16, 16), -1e4).fill_diagonal_(1e4),
    "joint low": torch.full((16, 16), 1e4).fill_diagonal_(-1e4),
    "all high": torch.full((16, 16), 1e4),
    "all low": torch.full((16, 16), -1e4),
}
FINITE = {
    "donsker_varadhan": lambda s: donsker_varadhan_bound(s.diagonal(), off_diagonal(s)),
    "mine": lambda s: mine_bound(s.diagonal(), off_diagonal(s), MovingAverage(0.01)),
    "infonce": infonce_bound,
    "smile": lambda s: smile_estimate(s.diagonal(), off_diagonal(s), clip=5.0),
    "interpolated 0.01": lambda s: interpolated_bound(s, 1.0, alpha=0.01),
    "interpolated 1": lambda s: interpolated_bound(s, 0.0, alpha=1.0),
}
OVERFLOWING = {
    "nwj": lambda s: nwj_bound(s.diagonal(), off_diagonal(s)),
    "tuba": lambda s: tuba_bound(s.diagonal(), off_diagonal(s), 0.0, 0.0),
    "jensen-shannon": lambda s: jensen_shannon_estimate(s.diagonal(), off_diagonal(s)),
    "interpolated 0": lambda s: interpolated_bound(s, 0.0, alpha=0.0),
}


@pytest.mark.parametrize("scores", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("bound", [*FINITE, *OVERFLOWING])
def test_extreme_scores_in_single_precision(bound, scores):
    scores = scores.clone().requires_grad_()
    value = (FINITE | OVERFLOWING)[bound](scores)
    value.backward()
    assert scores.grad.isfinite().all()
    assert value.isfinite() or (bound in OVERFLOWING and value == -torch.inf)


def test_a_moving_average_far_below_the_batch_keeps_the_gradient_small():
    average = MovingAverage(0.01)
    mine_bound(torch.zeros(3), torch.full((3,), -1e4, requires_grad=True), average)
    marginal = torch.full((3,), 1e4, requires_grad=True)
    mine_bound(torch.zeros(3), marginal, average).backward()
    assert marginal.grad.abs().sum() <= 1 / 0.01


def test_nwj_goes_on_without_a_jump_where_its_exponential_ends():
    values = [
        nwj_bound(torch.zeros(1), torch.tensor([score])).item() for score in (88.9, 89.05, 89.5)
    ]
    assert values[0] > values[1] > values[2]
    assert math.isfinite(values[1])
    assert nwj_bound(torch.zeros(1), torch.tensor([95.0])) == -torch.inf


def test_bad_input_is_named():
    two = torch.zeros(2)
    for bound in (
        donsker_varadhan_bound,
        nwj_bound,
        jensen_shannon_estimate,
        lambda j, m: mine_bound(j, m, MovingAverage()),
        lambda j, m: tuba_bound(j, m, 0.0, 0.0),
        lambda j, m: smile_estimate(j, m, clip=1.0),
    ):
        with pytest.raises(ShapeError, match=r"joint_scores has shape \(2, 2\).*diagonal\(\)"):
            bound(torch.zeros(2, 2), two)
        with pytest.raises(ShapeError, match=r"marginal_scores has shape \(0,\)"):
            bound(two, torch.zeros(0))
    with pytest.raises(ShapeError, match=r"marginal_log_baseline has shape \(3,\).*m = 2"):
        tuba_bound(two, two, 0.0, torch.zeros(3))
    with pytest.raises(ShapeError, match=r"log_baseline has shape \(2,\).*n = 3; give a scalar"):
        interpolated_bound(torch.zeros(3, 3), two, alpha=0.5)
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(OptionError, match="alpha=.*from 0 to 1"):
            interpolated_bound(torch.zeros(3, 3), 0.0, alpha=alpha)
    for clip in (0.0, -1.0, math.nan):
        with pytest.raises(OptionError, match="clip=.*above 0"):
            smile_estimate(two, two, clip=clip)
    for function in (off_diagonal, club_bound):
        with pytest.raises(ShapeError, match="n 2 or more"):
            function(torch.zeros(1, 1))
