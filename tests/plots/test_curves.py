"""Curves draw every value, name their lines and keep the scale of the later epochs."""

import math

import pytest

from pyro_mivae import plots
from pyro_mivae.errors import ShapeError
from pyro_mivae.plots.style import PALETTE
from pyro_mivae.training import History

from .drawn import texts


def history(**columns):
    return History(
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    )


def legend(ax):
    return texts(ax.get_legend().get_texts())


def test_curves_draw_every_value_and_dash_the_held_out(ax):
    plots.plot_curves(ax, {"loss": [3.0, math.nan, 1.0], "val_loss": [4.0, 3.0, 2.0]})
    train, held_out = ax.lines
    assert list(train.get_xdata()) == [1, 2, 3]
    assert list(held_out.get_ydata()) == [4.0, 3.0, 2.0]
    assert (train.get_linestyle(), held_out.get_linestyle()) == ("-", "--")
    assert train.get_color() == held_out.get_color()
    assert "nats" in ax.get_ylabel()


def test_curves_of_another_length_than_the_epochs(ax):
    with pytest.raises(ShapeError, match="'loss' has 2 values for 3 epochs"):
        plots.plot_curves(ax, {"loss": [1.0, 2.0]}, epochs=[1, 2, 3])


def test_one_epoch_has_one_tick(ax):
    plots.plot_curves(ax, {"loss": [3.0]})
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]


def test_a_wild_start_does_not_flatten_the_rest(ax):
    plots.plot_curves(ax, {"loss": [1e6] * 9 + [30 - i / 10 for i in range(40)]})
    assert ax.get_ylim()[1] < 40
    steady = plots.new_figure()[1]
    plots.plot_curves(steady, {"loss": [60 - i for i in range(40)]})
    assert steady.get_ylim()[1] > 59


def test_the_last_epoch_is_always_in_sight(ax):
    plots.plot_curves(ax, {"loss": [1000.0, 10.0, 9.0, 8.0, 30.0]})
    low, high = ax.get_ylim()
    assert low < 8
    assert 30 < high < 1000


@pytest.mark.parametrize("epochs", [0, 1])
def test_curves_of_no_epoch_or_one(ax, epochs):
    plots.plot_loss_curves(ax, history(epoch=[1][:epochs], loss=[2.0][:epochs]))
    assert len(ax.lines) == epochs


def test_loss_curves_turn_the_elbo_and_join_it_with_an_equal_loss(ax):
    columns = {"loss": [9.0, 8.0], "elbo": [-7.0, -6.0], "distortion": [5.0, 4.0]}
    plots.plot_loss_curves(ax, history(epoch=[1, 2], **columns, val_elbo=[-8.0, -7.0]))
    assert legend(ax) == ["loss", "−ELBO", "distortion", "held out"]
    assert list(ax.lines[1].get_ydata()) == [7.0, 6.0]
    other = plots.new_figure()[1]
    plots.plot_loss_curves(other, history(loss=[9.0, 8.0], elbo=[-9.0, -8.0]))
    assert legend(other) == ["loss (−ELBO)"]


def test_information_on_several_sites_names_them(ax):
    plots.plot_information_curves(ax, history(epoch=[1, 2], mi_z_c_mean=[0.5, 2.0]))
    assert legend(ax) == ["I(x; z_c), read from the mean"]


def test_information_curves_draw_sites_and_terms_and_the_ceiling_of_c(ax):
    columns = {"rate": [4.0, 4.0], "kl_z": [3.0, 3.0], "kl_c": [1.0, 1.0], "mi_c_mean": [0.5, 2.0]}
    columns |= {"kl_w": [math.nan, math.nan], "val_kl_c": [1.0, 1.1]}
    plots.plot_information_curves(ax, history(epoch=[1, 2], **columns), num_categories=10)
    names = ["KL of z", "KL of c", "I(x; c), read from the mean", "held out"]
    assert legend(ax) == names
    assert texts(ax.texts) == ["log 10 = 2.30"]
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(math.log(10))
    wild = history(kl_c=[2e3] * 7 + [0.1 * i for i in range(22)])
    other = plots.plot_information_curves(plots.new_figure()[1], wild, num_categories=100)
    assert math.log(100) < other.get_ylim()[1] < 10


def test_runs_have_a_colour_each_and_a_line_per_seed(ax):
    seeds = [([1, 2, 3], [4.0, 3.0, 2.0]), ([1, 2, 3], [5.0, 3.0, 1.0])]
    plots.plot_runs(ax, {"a": seeds, "b": [([2, 4], [2.0, 1.0])]})
    assert [list(line.get_xdata()) for line in ax.lines] == [[1, 2, 3], [1, 2, 3], [2, 4]]
    colors = [line.get_color() for line in ax.lines]
    assert colors == [PALETTE[0], PALETTE[0], PALETTE[1]]
    assert legend(ax) == ["a", "b"]
    with pytest.raises(ShapeError, match="'c' has 1 values for 2 epochs"):
        plots.plot_runs(ax, {"c": [([1, 2], [1.0])]})
