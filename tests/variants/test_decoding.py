"""Codes that are decoded: kept sites, centres of categories, samples."""

import pytest
import torch

import pyro_mivae as mi

SHAPE = (1, 3, 4)


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_parts_of_the_code_are_swapped_for_their_prior_means(x):
    vae = mi.InfomaxVAE(SHAPE, latent_dim=3)
    codes = vae.encode(x)
    zeros = {name: torch.zeros_like(code) for name, code in codes.items()}
    for kept in ({"z"}, {"c"}, {"z", "c"}, set()):
        mixed = {name: (codes if name in kept else zeros)[name] for name in codes}
        expected = vae.decode(mixed, len(x))
        torch.testing.assert_close(vae.reconstruct(x, keep=kept), expected)
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(codes, len(x)))


def test_a_kept_category_is_decoded_at_its_centre(x):
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=6)
    best = vae.encode(x)["c"].argmax(-1)
    expected = vae.decode({"z": vae.prior.means[best]}, len(x))
    torch.testing.assert_close(vae.reconstruct(x, keep={"c"}), expected)


def test_samples_of_a_category_come_from_it():
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=6)
    vae.prior.means.mul_(1e4)
    vae.model.decoder = torch.nn.Sequential(
        torch.nn.Linear(6, 12, bias=False), torch.nn.Unflatten(-1, SHAPE)
    )
    one, same, other = vae.sample(2, 0), vae.sample(2, 0), vae.sample(2, 1)
    torch.testing.assert_close(one, same, atol=1e-2, rtol=0)
    assert (one - other).abs().max() > 0.5


class Batched(torch.nn.Module):
    """A decoder that knows of one leading dimension, and insists on it."""

    def __init__(self, size, shape):
        super().__init__()
        self.linear, self.norm, self.shape = torch.nn.Linear(size, 12), torch.nn.Identity(), shape

    def forward(self, code):
        assert code.dim() == 2
        return self.norm(self.linear(code)).view(len(code), *self.shape)


def normalised(size, shape):
    """A decoder whose batch norm takes the second dimension for the features."""
    decoder = Batched(size, shape)
    decoder.norm = torch.nn.BatchNorm1d(12)
    return decoder


def leading(size, shape):
    """A decoder that keeps any leading dimensions."""
    return torch.nn.Sequential(torch.nn.Linear(size, 12), torch.nn.Unflatten(-1, shape))


@pytest.mark.parametrize("categorical", ["enumerate", "sample", "soft", "gumbel"])
@pytest.mark.parametrize("make", [Batched, normalised])
def test_a_decoder_of_batches_gets_categories_and_particles_as_rows(make, categorical, x):
    """The steps are those of a decoder that takes leading dimensions."""
    losses = []
    for build in (make, leading):
        torch.manual_seed(0)
        options = {"num_categories": 3, "latent_dim": 6, "categorical": categorical}
        vae = mi.InfoCatVAE(SHAPE, decoder=build(6, SHAPE), **options).eval()
        loss = vae.objective()
        if categorical == "enumerate":
            loss.num_particles, loss.vectorize_particles, loss.max_plate_nesting = 2, True, 2
        torch.manual_seed(1)
        losses.append(loss.differentiable_loss(vae.model, vae.guide, x).item())
        names = set(vae.model.decoder.state_dict())
        assert {"linear.weight", "0.weight"} & names
        assert vae.sample(2, 1).shape == (2, *SHAPE)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("variant", mi.VARIANTS)
def test_every_variant_takes_a_decoder_of_batches(variant, x):
    quick = {"warm_start": 2} if issubclass(mi.VARIANTS[variant], mi.CatVAE) else {}
    usual = mi.VARIANTS[variant](SHAPE)
    code_dim = next(p for p in usual.model.decoder.parameters() if p.dim() == 2).shape[1]
    vae = mi.VARIANTS[variant](SHAPE, decoder=normalised(code_dim, SHAPE), **quick)
    mi.fit(vae, x.repeat(32, 1, 1, 1), epochs=1, batch_size=64)
    assert vae.reconstruct(x).shape == x.shape


def test_a_decoder_of_leading_dimensions_is_called_with_them(x):
    seen = []
    decoder = leading(6, SHAPE)
    vae = mi.CatVAE(SHAPE, num_categories=3, latent_dim=6, decoder=decoder)
    decoder.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    vae.objective().differentiable_loss(vae.model, vae.guide, x)
    assert seen == [(3, 4, 6)]
