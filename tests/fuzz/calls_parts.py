"""Parts of models: priors, guides, networks, critics, likelihoods, handlers."""

import torch
from torch import nn

import pyro_mivae as mi
from pyro_mivae import guides, handlers, networks
from pyro_mivae.priors import prior_sites

from .calls import Call

X = torch.linspace(0, 1, 3 * 64).reshape(3, 1, 8, 8)
SHAPE = {"data_shape": (1, 8, 8)}
WIDTHS = {"hidden_dims": (4, 3), "activation": nn.ReLU}
MAPS = {"channels": (2, 3), "hidden_dim": 4}
MODEL, GUIDE = mi.VAE((1, 8, 8)).model, mi.MixtureGuide((1, 8, 8))


def encodes(network):
    return network(X)


def decodes(network):
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Linear))
    return network(torch.zeros(3, first.in_features))


def scores_two(likelihood):
    return likelihood(torch.zeros(3, 2, 2)).log_prob(torch.zeros(3, 2))


def scores(critic):
    return critic(X, torch.zeros(3, 2))


CALLS = [
    Call(
        "StandardNormalPrior",
        mi.StandardNormalPrior,
        lambda: {"latent_dim": 2, "code_dim": 1},
        after=prior_sites,
    ),
    Call(
        "UniformPrior",
        mi.UniformPrior,
        lambda: {"latent_dim": 2, "code_dim": 1},
        after=prior_sites,
    ),
    Call(
        "MixturePrior",
        mi.MixturePrior,
        lambda: {"num_categories": 3, "latent_dim": 6, "radius": 1.0},
        after=prior_sites,
    ),
    Call(
        "InfoGANPrior",
        mi.InfoGANPrior,
        lambda: {
            **{"noise_dim": 2, "num_categories": 3, "uniform_dim": 1},
            **{"sites": ("a", "b", "d")},
        },
        after=prior_sites,
    ),
    Call(
        "StudentTPrior",
        mi.StudentTPrior,
        lambda: {"latent_dim": 2, "code_dim": 1, "df": 3.0, "sites": ("a", "b")},
        after=prior_sites,
    ),
    Call(
        "MixturePrior options",
        mi.MixturePrior,
        lambda: {
            **{"num_categories": 3, "latent_dim": 2, "radius": 1.0, "learn": ("means",)},
            **{"means": "random", "category": "k", "site": "a"},
        },
        after=prior_sites,
    ),
    Call(
        "StickBreakingPrior",
        mi.StickBreakingPrior,
        lambda: {"num_categories": 3, "learn": ("weights",), "concentration": 2.0},
        after=prior_sites,
    ),
    Call(
        "FlowPrior",
        mi.FlowPrior,
        lambda: {
            **{"latent_dim": 2, "flow": "coupling", "transforms": 2},
            **{"hidden_dims": (4,), "site": "a"},
        },
        after=prior_sites,
    ),
    Call(
        "HierarchicalPrior",
        mi.HierarchicalPrior,
        lambda: {
            **{"latent_dim": 2, "top_dim": 1, "hidden_dims": (4,)},
            **{"skip": True, "sites": ("a", "b")},
        },
        after=prior_sites,
    ),
    Call(
        "VampPrior",
        mi.VampPrior,
        lambda: {
            **SHAPE,
            **{"latent_dim": 2, "num_components": 3, "learn_weights": True, "site": "a"},
        },
        after=prior_sites,
    ),
    Call(
        "SphericalPrior",
        mi.SphericalPrior,
        lambda: {"latent_dim": 2, "site": "a"},
        after=prior_sites,
    ),
    Call("prior_sites", prior_sites, lambda: {"prior": mi.StandardNormalPrior(2)}),
    Call(
        "MeanFieldGuide",
        mi.MeanFieldGuide,
        lambda: {
            **SHAPE,
            "sites": {"z": 2, "c": 1},
            "encoder": None,
            "deterministic": (),
            "bounded": ("c",),
        },
        after=encodes,
    ),
    Call(
        "MixtureGuide",
        mi.MixtureGuide,
        lambda: {**SHAPE, "num_categories": 3, "latent_dim": 2, "encoder": None},
        after=encodes,
    ),
    Call(
        "RecognitionGuide",
        mi.RecognitionGuide,
        lambda: {
            **SHAPE,
            "sites": prior_sites(mi.InfoGANPrior(2, 3, 1))[0],
            "encoder": None,
            "noise": ("z",),
            "hidden_dim": 4,
        },
        after=encodes,
    ),
    Call(
        "CorruptedGuide",
        guides.CorruptedGuide,
        lambda: {"guide": GUIDE, "corrupt": torch.zeros_like},
        after=encodes,
    ),
    Call(
        "AmortizedGuide",
        mi.AmortizedGuide,
        lambda: {
            **SHAPE,
            "sites": prior_sites(mi.MixturePrior(3, 6))[0],
            "encoder": None,
            "family": "low-rank",
            "deterministic": (),
        },
        after=encodes,
    ),
    Call(
        "AmortizedGuide family",
        mi.AmortizedGuide,
        lambda: {
            **SHAPE,
            "sites": prior_sites(mi.StandardNormalPrior(2, 1))[0],
            "family": guides.FullCovariance,
            "deterministic": ("z",),
        },
        after=encodes,
    ),
    Call(
        "CouplingFlow",
        guides.CouplingFlow,
        lambda: {"size": 2, "num_layers": 1, "hidden_dim": 3, "context_dim": 2},
    ),
    Call("MeanField", guides.MeanField, lambda: {"size": 2}),
    Call("LowRank", guides.LowRank, lambda: {"size": 2, "rank": 1}),
    Call("GaussianMixture", guides.GaussianMixture, lambda: {"size": 2, "num_components": 2}),
    Call("NormalHead", guides.NormalHead, lambda: {"in_features": 2, "size": 3}, after=decodes),
    Call(
        "mlp",
        networks.mlp,
        lambda: {"sizes": (2, 3, 1), "activation": nn.ReLU, "batch_norm": True},
        after=decodes,
    ),
    Call(
        "MLPEncoder",
        networks.MLPEncoder,
        lambda: {**SHAPE, **WIDTHS, "batch_norm": True},
        after=encodes,
    ),
    Call(
        "ConditionalEncoder",
        networks.ConditionalEncoder,
        lambda: {**SHAPE, "encoder": nn.Flatten(), "given_shape": (2,)},
        after=lambda encoder: encoder(torch.rand(2, 1, 8, 8), torch.rand(2, 2)),
    ),
    Call(
        "MLPDecoder",
        networks.MLPDecoder,
        lambda: {**SHAPE, **WIDTHS, "code_dim": 2, "batch_norm": False, "num_outputs": 2},
        after=decodes,
    ),
    Call(
        "ConvEncoder",
        networks.ConvEncoder,
        lambda: {**SHAPE, **MAPS, "batch_norm": True},
        after=encodes,
    ),
    Call(
        "ConvDecoder",
        networks.ConvDecoder,
        lambda: {**SHAPE, **MAPS, "code_dim": 2, "batch_norm": False, "num_outputs": 2},
        after=decodes,
    ),
    Call(
        "RandomAffine",
        networks.RandomAffine,
        lambda: {"degrees": 9.0, "scale": 0.2, "shift": 0.1},
        after=lambda affine: affine(torch.rand(2, 1, 8, 8)),
    ),
    Call("ConvTrunk", networks.ConvTrunk, lambda: {**SHAPE, **MAPS}, after=encodes),
    Call(
        "ConvGenerator",
        networks.ConvGenerator,
        lambda: {**SHAPE, **MAPS, "code_dim": 2},
        after=decodes,
    ),
    Call(
        "Discriminator", networks.Discriminator, lambda: {"trunk": nn.Flatten(), "in_features": 64}
    ),
    *(
        Call(critic.__name__, critic, lambda: {**SHAPE, **WIDTHS, "code_dim": 2}, after=scores)
        for critic in networks.CRITICS.values()
    ),
    Call(
        "MutualInfoChain layers",
        mi.MutualInfoChain,
        lambda: {
            **SHAPE,
            "code_dim": 2,
            "data_layer": nn.Flatten(),
            "latent_layer": nn.Identity(),
            "head": nn.Linear(66, 1),
        },
        after=scores,
    ),
    Call(
        "SeparableCritic embed",
        networks.SeparableCritic,
        lambda: {**SHAPE, "code_dim": 2, "embed_dim": 3},
        after=scores,
    ),
    Call(
        "critic", networks.JointCritic((1, 8, 8), 2), lambda: {"x": X, "code": torch.zeros(3, 2)}
    ),
    Call(
        "all_pairs",
        networks.JointCritic((1, 8, 8), 2).all_pairs,
        lambda: {"x": X, "code": torch.zeros(3, 2)},
    ),
    Call(
        "build_critic",
        mi.build_critic,
        lambda: {**SHAPE, "name": "joint", "code_dim": 2, "hidden_dims": (4, 3)},
        after=scores,
    ),
    Call(
        "build_networks",
        networks.build_networks,
        lambda: {
            **{**SHAPE, "kind": "mlp", "code_dim": 2, "batch_norm": True},
            "num_outputs": 2,
        },
    ),
    Call(
        "build_adversarial_networks",
        networks.build_adversarial_networks,
        lambda: {**SHAPE, "kind": "auto", "code_dim": 2},
    ),
    Call("default_network", networks.default_network, lambda: SHAPE),
    Call("output_dim", networks.output_dim, lambda: {**SHAPE, "encoder": nn.Flatten()}),
    Call(
        "GaussianLikelihood",
        mi.GaussianLikelihood,
        lambda: {"scale": 1.0, "learn_scale": False},
        after=encodes,
    ),
    Call(
        "HeteroscedasticGaussianLikelihood",
        mi.HeteroscedasticGaussianLikelihood,
        lambda: {"least_scale": 0.1},
        after=scores_two,
    ),
    Call(
        "StudentTLikelihood",
        mi.StudentTLikelihood,
        lambda: {"df": 3.0, "learn_df": True, "least_scale": 0.1},
        after=scores_two,
    ),
    Call("CategoricalLikelihood", mi.CategoricalLikelihood, lambda: {"num_levels": 4}),
    Call(
        "DiscretizedLogisticLikelihood",
        mi.DiscretizedLogisticLikelihood,
        lambda: {"num_levels": 4},
        after=scores_two,
    ),
    *(
        Call(f"{kind.__name__}", kind, lambda: {"zero_inflated": False})
        for kind in (mi.PoissonLikelihood, mi.NegativeBinomialLikelihood)
    ),
    Call("counts are checked", mi.PoissonLikelihood().check, lambda: {"x": X.round()}),
    Call("Likelihood.check", mi.BernoulliLikelihood().check, lambda: {"x": X}),
    Call(
        "weigh_sites",
        mi.weigh_sites,
        lambda: {"fn": GUIDE, "weights": {"z": 0.5}},
        after=encodes,
    ),
    Call(
        "push_forward",
        handlers.push_forward,
        lambda: {"fn": MODEL},
        after=encodes,
    ),
    Call(
        "decode_means",
        handlers.decode_means,
        lambda: {"fn": MODEL, "values": {"z": torch.zeros(3, 20)}},
        after=encodes,
    ),
]
