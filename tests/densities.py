"""The density of a flow at a draw, by the whole matrix of derivatives."""

import torch
from torch.distributions import Normal, normal


def check_flow(make, dims, monkeypatch):
    """A flow has the density of its noise over the change of volume, in any dimension.

    Returns the derivatives of a draw by its noise.
    """
    noise = torch.randn(dims)

    def draw(u):
        with monkeypatch.context() as patch:
            patch.setattr(normal, "_standard_normal", lambda shape, **_: u.expand(shape))
            return make()()

    slopes = torch.autograd.functional.jacobian(draw, noise)
    z = draw(noise)
    assert (z - noise).abs().min() > 1e-3
    expected = Normal(0.0, 1.0).log_prob(noise).sum() - slopes.slogdet().logabsdet
    torch.testing.assert_close(make().log_prob(z), expected)
    return slopes
