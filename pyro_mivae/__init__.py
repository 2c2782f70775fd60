"""Mutual-information autoencoders as Pyro programs."""

from pyro_mivae import interrupts  # noqa: F401, I001  # first, as the next lines take seconds

from pyro_mivae.data import binarize, load_dataset
from pyro_mivae.diagnostics import diagnose, information
from pyro_mivae.elbo import (
    InfoGANLoss,
    MutualInformationELBO,
    RelaxedCategoricalELBO,
    SampledCategoricalELBO,
    explain,
)
from pyro_mivae.engine import SVI
from pyro_mivae.evidence import annealed_log_likelihood, bidirectional_monte_carlo
from pyro_mivae.guides import AmortizedGuide, MeanFieldGuide, MixtureGuide, RecognitionGuide
from pyro_mivae.handlers import weigh_sites
from pyro_mivae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DeltaLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    HeteroscedasticGaussianLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    StudentTLikelihood,
)
from pyro_mivae.metrics import evaluate
from pyro_mivae.networks import Critic, MutualInfoChain, build_critic
from pyro_mivae.pairs import check
from pyro_mivae.priors import (
    FlowPrior,
    HierarchicalPrior,
    InfoGANPrior,
    LaplacePrior,
    MixturePrior,
    SphericalPrior,
    StandardNormalPrior,
    StickBreakingPrior,
    StudentTPrior,
    UniformPrior,
)
from pyro_mivae.runs import Comparison, SweepTable, compare, load, save, sweep
from pyro_mivae.schedules import cyclic_warmup, linear_warmup
from pyro_mivae.terms import (
    BarberAgakov,
    CriticBound,
    MaximumMeanDiscrepancy,
    Penalty,
    InvariantInformation,
    LabelledCategory,
    RegularizedInformation,
    observe_category,
)
from pyro_mivae.training import fit, fit_many
from pyro_mivae.variants import (
    MMDVAE,
    VAE,
    VARIANTS,
    VMIVAE,
    BetaVAE,
    CategoryStart,
    CatVAE,
    CriticInfomaxVAE,
    InfoCatVAE,
    InfoGAN,
    InfomaxVAE,
    Variant,
)

__all__ = [
    "MMDVAE",
    "VAE",
    "SVI",
    "VARIANTS",
    "VMIVAE",
    "AmortizedGuide",
    "BarberAgakov",
    "BernoulliLikelihood",
    "BetaVAE",
    "CatVAE",
    "CategoricalLikelihood",
    "CategoryStart",
    "FlowPrior",
    "HierarchicalPrior",
    "InfoGANPrior",
    "LaplacePrior",
    "Comparison",
    "ContinuousBernoulliLikelihood",
    "Critic",
    "CriticBound",
    "CriticInfomaxVAE",
    "DeltaLikelihood",
    "DiscretizedLogisticLikelihood",
    "GaussianLikelihood",
    "HeteroscedasticGaussianLikelihood",
    "InfoCatVAE",
    "InfoGAN",
    "InfoGANLoss",
    "InfomaxVAE",
    "Likelihood",
    "MaximumMeanDiscrepancy",
    "MeanFieldGuide",
    "MixtureGuide",
    "MixturePrior",
    "MutualInfoChain",
    "MutualInformationELBO",
    "NegativeBinomialLikelihood",
    "Penalty",
    "PoissonLikelihood",
    "RecognitionGuide",
    "InvariantInformation",
    "LabelledCategory",
    "RegularizedInformation",
    "RelaxedCategoricalELBO",
    "SampledCategoricalELBO",
    "SphericalPrior",
    "StandardNormalPrior",
    "StickBreakingPrior",
    "StudentTLikelihood",
    "StudentTPrior",
    "SweepTable",
    "UniformPrior",
    "Variant",
    "annealed_log_likelihood",
    "bidirectional_monte_carlo",
    "binarize",
    "build_critic",
    "check",
    "compare",
    "cyclic_warmup",
    "diagnose",
    "evaluate",
    "explain",
    "fit",
    "fit_many",
    "information",
    "linear_warmup",
    "load",
    "load_dataset",
    "observe_category",
    "save",
    "sweep",
    "weigh_sites",
]
