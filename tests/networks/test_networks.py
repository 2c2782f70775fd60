"""Networks: shapes for any image, and what they refuse."""

import pytest
import torch
from torch import nn

from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.networks import (
    NETWORKS,
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
    build_networks,
    default_network,
    mlp,
    output_dim,
)
from pyro_mivae.networks.layers import BatchNorm1d, BatchNorm2d

IMAGES = [(1, 8, 8), (1, 9, 13), (1, 28, 28), (1, 28, 20), (3, 48, 48), (1, 105, 105)]
CODE_DIM = 5


@pytest.mark.parametrize("data_shape", IMAGES, ids=str)
@pytest.mark.parametrize("kind", [*NETWORKS, "auto"])
def test_encoder_and_decoder_of_any_image(kind, data_shape):
    encoder, decoder = build_networks(kind, data_shape, CODE_DIM)
    features = encoder(torch.rand(2, *data_shape))
    assert features.shape == (2, output_dim(encoder, data_shape))
    assert decoder(torch.rand(2, CODE_DIM)).shape == (2, *data_shape)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("leading", [(), (3,), (4, 3), (2, 4, 3)])
def test_any_leading_dimensions(kind, leading):
    encoder, decoder = (net.eval() for net in build_networks(kind, (2, 8, 9), CODE_DIM))
    x, code = torch.rand(*leading, 2, 8, 9), torch.rand(*leading, CODE_DIM)
    features, decoded = encoder(x), decoder(code)
    assert features.shape[:-1] == leading
    assert decoded.shape == (*leading, 2, 8, 9)
    flat = encoder(x.reshape(-1, 2, 8, 9)), decoder(code.reshape(-1, CODE_DIM))
    torch.testing.assert_close(features.reshape(flat[0].shape), flat[0])
    torch.testing.assert_close(decoded.reshape(flat[1].shape), flat[1])


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_training_batch_of_one(kind):
    """The smallest image leaves one pixel per map, which batch normalisation cannot normalise."""
    encoder, decoder = build_networks(kind, (1, 8, 8), CODE_DIM)
    features, decoded = encoder(torch.rand(1, 1, 8, 8)), decoder(torch.rand(1, CODE_DIM))
    (features.sum() + decoded.sum()).backward()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_parameter_matters(kind):
    encoder, decoder = build_networks(kind, (1, 16, 16), CODE_DIM)
    outputs = encoder(torch.rand(8, 1, 16, 16)), decoder(torch.rand(8, CODE_DIM))
    sum((output**2).sum() for output in outputs).backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("data_shape", "kind"),
    [
        ((1, 8, 8), "mlp"),
        ((1, 28, 28), "mlp"),
        ((1, 32, 32), "mlp"),
        ((1, 32, 33), "conv"),
        ((3, 32, 32), "conv"),
        ((3, 48, 48), "conv"),
        ((5000,), "mlp"),
        ((3, 7, 100), "mlp"),
        ((64, 64), "mlp"),
    ],
)
def test_default_by_size(data_shape, kind):
    assert default_network(data_shape) == kind
    encoder, _ = build_networks("auto", data_shape, CODE_DIM)
    assert isinstance(encoder, ConvEncoder if kind == "conv" else MLPEncoder)


@pytest.mark.parametrize("kind", NETWORKS)
def test_presets_without_batch_normalisation(kind):
    def normalised(**options):
        networks = nn.ModuleList(build_networks(kind, (1, 8, 8), CODE_DIM, **options))
        return any(isinstance(part, BatchNorm1d | BatchNorm2d) for part in networks.modules())

    assert normalised()
    assert not normalised(batch_norm=False)


def test_reference_of_infomax_vae():
    encoder, _ = build_networks("conv-deep", (3, 48, 48), CODE_DIM)
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256]
    assert {(layer.kernel_size, layer.stride) for layer in convolutions} == {((5, 5), (2, 2))}
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in encoder.modules()) == 3


def test_mlp_layers_and_activations():
    network = mlp((3, 4, 5), nn.Softplus)
    assert [type(layer) for layer in network] == [nn.Linear, nn.Softplus, nn.Linear]
    decoder = MLPDecoder(3, (2, 2), (4,), nn.Tanh)
    assert isinstance(decoder.layers[1], nn.Tanh)
    encoder = MLPEncoder((2, 2), (4, 6), nn.Tanh, batch_norm=True)
    assert output_dim(encoder, (2, 2)) == 6


def test_output_dim_leaves_random_numbers_as_they_were():
    class Noisy(nn.Flatten):
        def forward(self, x):
            return super().forward(x + torch.rand_like(x))

    state = torch.get_rng_state()
    assert output_dim(Noisy(), (1, 8, 8)) == 64
    assert torch.equal(torch.get_rng_state(), state)


def test_output_dim_leaves_the_encoder_as_it_was():
    encoder = build_networks("conv-deep", (1, 8, 8), CODE_DIM)[0].double()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    output_dim(encoder, (1, 8, 8))
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert output_dim(nn.Flatten(), (2, 3)) == 6


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ConvEncoder((1, 7, 8)), ShapeError, "at least 8 x 8; use MLPEncoder"),
        (lambda: ConvDecoder(3, (28, 28)), ShapeError, r"data_shape=\(28, 28\): convolutions"),
        (lambda: ConvEncoder((1, 8, 8))(torch.zeros(2, 1, 9, 8)), ShapeError, "1, 8, 8. needed"),
        (lambda: MLPEncoder((4,))(torch.zeros(2, 5)), ShapeError, r"shape \(2, 5\) given"),
        (lambda: build_networks("vit", (1, 8, 8), 2), OptionError, "allowed are auto, mlp, conv"),
        (lambda: build_networks("conv", (64,), 2), ShapeError, r"data_shape=\(64,\)"),
        (lambda: mlp((3,)), OptionError, "sizes holds 1; give 2 or more"),
        (lambda: mlp((3, 0)), OptionError, "=0; allowed are whole"),
        (lambda: ConvEncoder((1, 8, 8), channels=()), OptionError, "channels"),
        (lambda: MLPDecoder(0, (4,)), OptionError, "=0; allowed are whole"),
        (lambda: MLPEncoder((4,), ()), OptionError, "hidden_dims"),
        (lambda: MLPEncoder((4,), (3, 0)), OptionError, r"hidden_dims\[1\]=0; allowed"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()
