r"""Batched Hamiltonian Monte Carlo along an annealed path, with step sizes from a pilot run."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_mivae.evidence.annealing_path import AnnealingPath, Point

KNOTS = 20  # temperatures of the pilot run, besides 0
POWER = 3  # by which they crowd towards 0, where most changes
SETTLE, ADAPT = 20, 6  # transitions of the pilot run at temperature 0, and at each other one
RATE = 0.5  # how far one transition moves the logarithm of a step size
FIRST_STEP = 0.3
SHORTEST = 0.5  # of a step: paths of one length can come back to where they began
FLOOR = 0.1  # of the mean speed, which every temperature keeps
SPREADS = 8  # draws of each chain that give the coordinates their scale


def transition(
    path: AnnealingPath,
    point: Point,
    temperature: Tensor,
    step: Tensor,
    scale: Tensor,
    leapfrogs: int,
) -> tuple[Point, Tensor]:
    r"""Moves every chain by one step of Hamiltonian Monte Carlo, which keeps its density.

    References:
        Neal (2011), MCMC using Hamiltonian dynamics, section 3. https://arxiv.org/abs/1206.1901
    """
    stride = step * scale * torch.empty_like(step).uniform_(SHORTEST, 1)
    momentum = torch.randn_like(point.place)
    before = point.height(temperature) - 0.5 * momentum.square().sum(1)
    there = point
    momentum = momentum + 0.5 * stride * there.slope(temperature)
    for left in reversed(range(leapfrogs)):
        there = path.at(there.place + stride * momentum)
        momentum = momentum + (1.0 if left else 0.5) * stride * there.slope(temperature)
    after = there.height(temperature) - 0.5 * momentum.square().sum(1)
    chance = (after - before).exp().clamp(max=1.0).nan_to_num(0.0)
    return point.where(torch.rand_like(chance) < chance, there), chance


class Plan(NamedTuple):
    """Temperatures and step sizes of annealing, fixed before it starts."""

    temperatures: Tensor  # from 0 to 1, (num_temperatures + 1,)
    knots: Tensor  # temperatures at which step sizes are known, ascending from 0 to 1
    log_steps: Tensor  # their logarithms for every chain, (knots, rows)
    scale: Tensor  # of each coordinate, (rows, dims)
    leapfrogs: int  # leapfrog steps of one transition

    def step(self, temperature: Tensor) -> Tensor:
        """Interpolates the step sizes, shape ``(rows, 1)``."""
        above = int(torch.searchsorted(self.knots, temperature).clamp(1, len(self.knots) - 1))
        low, high = self.knots[above - 1], self.knots[above]
        share = ((temperature - low) / (high - low)).to(self.log_steps.dtype)
        return torch.lerp(self.log_steps[above - 1], self.log_steps[above], share).exp()[:, None]


def make_plan(
    path: AnnealingPath,
    num_chains: int,
    num_temperatures: int,
    leapfrogs: int,
    target_acceptance: float,
) -> Plan:
    r"""Runs the path once to see how large steps may be and where it needs many temperatures.

    The steps of each datum, shared by its chains, move towards an acceptance rate. Temperatures
    are spread so that :math:`\int \sqrt{\mathrm{Var}_\beta[\log p(x, z) - \log q(z)]}\,d\beta`
    grows by the same amount between any two, with the variance of the median datum.

    References:
        Gelman & Meng (1998), Simulating Normalizing Constants, section 4.2 (the spread of
        temperatures of least variance).
    """
    draws = torch.stack([path.draw().unflatten(0, (num_chains, -1)) for _ in range(SPREADS)])
    spread = draws.flatten(0, 1).std(0)  # (n, dims)
    scale = torch.where(spread > 0, spread, 1.0).repeat(num_chains, 1)
    knots = torch.linspace(0, 1, KNOTS + 1, dtype=torch.float64, device=scale.device) ** POWER
    log_step = torch.full((len(spread),), math.log(FIRST_STEP), device=scale.device)
    point = path.at(path.draw())
    log_steps, speeds = [], []
    for place, knot in enumerate(knots):
        gains, found = [], []
        for _ in range(ADAPT if place else SETTLE):
            step = log_step.exp().repeat(num_chains)[:, None].to(scale.dtype)
            point, chance = transition(path, point, knot, step, scale, leapfrogs)
            rate = chance.unflatten(0, (num_chains, -1)).mean(0)
            found.append(log_step)
            log_step = log_step + RATE * (rate - target_acceptance).to(log_step.dtype)
            gains.append(point.gain.unflatten(0, (num_chains, -1)))
        log_steps.append(torch.stack(found[-3:]).mean(0).repeat(num_chains))
        speeds.append(torch.cat(gains).std(0).nan_to_num(0.0, posinf=0.0).median())
    temperatures = _spread(knots, torch.stack(speeds), num_temperatures)
    return Plan(temperatures, knots, torch.stack(log_steps).to(scale.dtype), scale, leapfrogs)


def _spread(knots: Tensor, speeds: Tensor, count: int) -> Tensor:
    """Temperatures between which the integral of the speed grows evenly, ``(count + 1,)``."""
    floor = FLOOR * torch.trapezoid(speeds, knots)
    speeds = speeds + torch.where(floor > 0, floor, 1.0)
    length = torch.cat([knots[:1], torch.cumulative_trapezoid(speeds, knots)])
    wanted = length[-1] * torch.linspace(0, 1, count + 1, dtype=knots.dtype, device=knots.device)
    above = torch.searchsorted(length, wanted).clamp(1, len(knots) - 1)
    share = (wanted - length[above - 1]) / (length[above] - length[above - 1])
    temperatures = torch.lerp(knots[above - 1], knots[above], share)
    temperatures[0], temperatures[-1] = 0.0, 1.0
    return temperatures
