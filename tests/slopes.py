"""Gradients beside finite differences, on fixed noise."""

import pytest
import torch


def check_slope(parameters, loss, step, told):
    """Moves parameters along a random direction; returns the slope, by their gradients."""
    directions = [torch.randn_like(p) for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, directions))
    ends = []
    with torch.no_grad():
        for size in (step, -2 * step):
            for p, d in zip(parameters, directions):
                p.add_(size * d)
            ends.append(float(loss()))
        for p, d in zip(parameters, directions):
            p.add_(step * d)
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6), told
    return slope
