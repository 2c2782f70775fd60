"""Bounds on information and estimates of it."""

import torch

from pyro_mivae import bounds

from .calls import Call


def pairs():
    return {"joint_scores": torch.linspace(0, 1, 5), "marginal_scores": torch.linspace(-1, 0, 7)}


def densities():
    return {"log_densities": torch.eye(4), "reduction": "mean"}


CALLS = [
    Call("donsker_varadhan_bound", bounds.donsker_varadhan_bound, pairs),
    Call(
        "mine_bound",
        bounds.mine_bound,
        lambda: pairs() | {"average": bounds.MovingAverage(rate=0.5)},
    ),
    Call("nwj_bound", bounds.nwj_bound, pairs),
    Call(
        "tuba_bound",
        bounds.tuba_bound,
        lambda: pairs() | {"joint_log_baseline": torch.zeros(5), "marginal_log_baseline": 0.0},
    ),
    Call(
        "interpolated_bound",
        bounds.interpolated_bound,
        lambda: {"scores": torch.eye(4), "log_baseline": torch.zeros(4), "alpha": 0.5},
    ),
    Call(
        "infonce_bound",
        bounds.infonce_bound,
        lambda: {"scores": torch.eye(4), "reduction": "none"},
    ),
    Call("leave_one_out_bound", bounds.leave_one_out_bound, densities),
    Call("club_bound", bounds.club_bound, densities),
    Call(
        "barber_agakov_bound",
        bounds.barber_agakov_bound,
        lambda: {"log_recognition": torch.zeros(5), "entropy": torch.ones(5), "reduction": "mean"},
    ),
    Call(
        "rate",
        bounds.rate,
        lambda: {"log_posterior": torch.ones(5), "log_prior": torch.zeros(5), "reduction": "none"},
    ),
    Call("jensen_shannon_estimate", bounds.jensen_shannon_estimate, pairs),
    Call("smile_estimate", bounds.smile_estimate, lambda: pairs() | {"clip": 5.0}),
    Call("off_diagonal", bounds.off_diagonal, lambda: {"scores": torch.eye(4)}),
    Call(
        "MovingAverage",
        bounds.MovingAverage,
        lambda: {"rate": 0.5},
        after=lambda average: average.update(torch.tensor(1.0)),
    ),
    Call(
        "MovingAverage.update",
        lambda log_value: bounds.MovingAverage().update(log_value),
        lambda: {"log_value": torch.tensor(0.5)},
    ),
]
