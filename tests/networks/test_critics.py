"""Critics score pairs on their own, and all pairs as they score each."""

import pytest
import torch
from torch import nn

from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.networks import CRITICS, Critic, MutualInfoChain, build_critic, critics


class Distance(Critic):
    """A critic of a user's own, with `forward` alone."""

    largest = 0

    def forward(self, x, code):
        self.check_pairs(x, code)
        self.largest = max(self.largest, len(x))
        return -(x.flatten(1).sum(1) - code.sum(1)).square()


def any_critic(name, data_shape, code_dim=3):
    if name == "own":
        return Distance(data_shape, code_dim)
    return build_critic(name, data_shape, code_dim, (16, 12)).double()


def data_and_codes(n, data_shape, code_dim=3):
    x = torch.randn(n, *data_shape, dtype=torch.float64)
    return x, torch.randn(n, code_dim, dtype=torch.float64)


@pytest.mark.parametrize("data_shape", [(5,), (2, 3), (1, 8, 8), (3, 9, 13)])
@pytest.mark.parametrize("name", [*CRITICS, "own"])
def test_all_pairs_are_those_of_the_pairs(name, data_shape, monkeypatch):
    critic = any_critic(name, data_shape)
    n = 7
    x, code = data_and_codes(n, data_shape)
    scores = critic.all_pairs(x, code)
    assert scores.shape == (n, n)
    assert torch.allclose(scores.diagonal(), critic(x, code), atol=1e-12)
    for j in range(n):  # codes in order beside datum j
        column = critic(x[j].expand(n, *data_shape), code)
        assert torch.allclose(scores[:, j], column, atol=1e-12)
    monkeypatch.setattr(critics, "PAIRS_AT_ONCE", 15)  # two rows at once, and one left over
    assert torch.allclose(critic.all_pairs(x, code), scores, atol=1e-12)


def test_all_pairs_come_some_at_a_time(monkeypatch):
    monkeypatch.setattr(critics, "PAIRS_AT_ONCE", 15)
    critic = Distance((5,), 3)
    critic.all_pairs(*data_and_codes(7, (5,)))
    assert critic.largest == 14
    critic.all_pairs(*data_and_codes(20, (5,)))  # one row at least
    assert critic.largest == 20


@pytest.mark.parametrize("name", [*CRITICS, "distance"])
def test_both_pairs_are_two_passes_in_one(name):
    critic = Distance((5,), 3) if name == "distance" else any_critic(name, (5,))
    x, code = data_and_codes(6, (5,))
    partner = torch.tensor([3, 4, 5, 0, 2, 1])
    together, apart = critic.both_pairs(x, code, partner)
    assert torch.allclose(together, critic(x, code), atol=1e-12)
    assert torch.allclose(apart, critic(x, code[partner]), atol=1e-12)


@pytest.mark.parametrize("name", CRITICS)
def test_a_score_depends_on_its_own_pair_alone(name):
    critic = any_critic(name, (1, 8, 8))
    x, code = data_and_codes(6, (1, 8, 8))
    together = critic(x, code)
    alone = torch.cat([critic(x[i : i + 1], code[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-12)


@pytest.mark.parametrize("data_shape", [(5,), (2, 8, 8)])
@pytest.mark.parametrize("name", CRITICS)
def test_every_parameter_and_both_inputs_get_gradient(name, data_shape):
    critic = any_critic(name, data_shape)
    x, code = data_and_codes(9, data_shape)
    scores = critic.all_pairs(x.requires_grad_(), code.requires_grad_())
    (scores.diagonal().sum() - scores.logsumexp((0, 1))).backward()
    assert x.grad.abs().sum() > 0
    assert code.grad.abs().sum() > 0
    for parameter_name, parameter in critic.named_parameters():
        # what shifts all scores alike cancels in this objective, up to rounding
        if parameter_name not in ("head.1.2.bias", "head.2.bias"):
            assert parameter.grad.abs().sum() > 1e-8, parameter_name


def test_a_joint_critic_is_a_perceptron_of_both_in_one_vector():
    critic = any_critic("joint", (2, 2))
    x, code = data_and_codes(5, (2, 2))
    first = nn.Linear(4 + 3, 16).double()
    with torch.no_grad():
        first.weight.copy_(torch.cat([critic.data_layer[1].weight, critic.latent_layer.weight], 1))
        first.bias.copy_(critic.data_layer[1].bias)
    whole = nn.Sequential(first, critic.head)
    expected = whole(torch.cat([x.flatten(1), code], 1)).squeeze(1)
    assert torch.allclose(critic(x, code), expected, atol=1e-12)


def test_a_chain_takes_layers_of_ones_own():
    layers = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 5))
    critic = MutualInfoChain(
        (1, 4, 4),
        2,
        data_layer=layers,
        latent_layer=nn.Identity(),
        head=nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 1)),
    )
    assert layers.training
    assert layers[1].training
    critic.eval()
    x, code = torch.randn(4, 1, 4, 4), torch.randn(4, 2)
    by_hand = critic.head(torch.cat([critic.data_layer(x), code], 1))[:, 0]
    assert torch.allclose(critic(x, code), by_hand)
    assert critic.all_pairs(x, code).shape == (4, 4)
    empty = MutualInfoChain((3,), 2, data_layer=nn.Sequential(), latent_layer=nn.Sequential())
    assert len(empty.data_layer) == 0
    assert empty.head[0].in_features == 5


def test_images_go_through_convolutions():
    def convolves(name, data_shape):
        return any(isinstance(m, nn.Conv2d) for m in any_critic(name, data_shape).modules())

    for name in ("separable", "bilinear", "chain"):
        assert convolves(name, (3, 8, 8))
        assert not convolves(name, (3, 7, 8))
    assert not convolves("joint", (3, 8, 8))


def test_bad_input_is_named():
    critic = build_critic("joint", (2, 3), 4)
    with pytest.raises(ShapeError, match=r"codes of shape \(5, 3\) given, .* \(n, 4\) needed"):
        critic(torch.zeros(5, 2, 3), torch.zeros(5, 3))
    with pytest.raises(ShapeError, match=r"codes of shape \(4, 4\)"):
        critic.all_pairs(torch.zeros(5, 2, 3), torch.zeros(4, 4))
    with pytest.raises(ShapeError, match="flatten other batch dimensions"):
        critic(torch.zeros(2, 5, 2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"\(5, 3, 2\) given"):
        critic(torch.zeros(5, 3, 2), torch.zeros(5, 4))
    with pytest.raises(OptionError, match="name='bilnear'; allowed are joint, separable"):
        build_critic("bilnear", (2,), 1)
    with pytest.raises(OptionError, match="code_dim=0; allowed"):
        build_critic("joint", (2,), 0)
    for name in CRITICS:
        with pytest.raises(OptionError, match="hidden_dims holds 0; give"):
            build_critic(name, (2,), 1, ())
        with pytest.raises(OptionError, match=r"hidden_dims\[\d\]=0; allowed"):
            build_critic(name, (2,), 1, (8, 0))
    with pytest.raises(OptionError, match="hidden_dims holds 1; give 2 or more"):
        build_critic("chain", (2,), 1, (8,))
    with pytest.raises(ShapeError, match="head: 2 outputs per pair given, 1 needed"):
        MutualInfoChain((2,), 1, (4, 4), head=nn.Linear(8, 2))
    with pytest.raises(ShapeError, match=r"head does not take data of shape \(2, 8\)"):
        MutualInfoChain((2,), 1, (4, 4), head=nn.Linear(7, 1))
    with pytest.raises(ShapeError, match=r"data_layer returns \(2, 3, 4\) .* nn.Flatten"):
        MutualInfoChain((3, 2), 1, data_layer=nn.Linear(2, 4))
