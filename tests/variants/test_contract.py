"""One contract for all variants and their options."""

import copy
import functools
import io
import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI

import pyro_mivae as mi
from pyro_mivae.terms import Particle
from pyro_mivae.traces import TracePair

SHAPE = (1, 3, 4)
pytestmark = pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
GAUSSIAN = {"likelihood": mi.GaussianLikelihood(0.5, learn_scale=True)}
MIXTURE = {"num_categories": 3, "latent_dim": 6}
CASES = {
    "vae": ("vae", {"latent_dim": 3}),
    "vae one dimension": ("vae", {"latent_dim": 1}),
    "vae gaussian": ("vae", {"latent_dim": 3, "likelihood": "gaussian"}),
    "vae continuous": ("vae", {"likelihood": "continuous-bernoulli"}),
    "beta": ("beta", {"latent_dim": 3, "beta": 2.0}),
    "beta scheduled": ("beta", {"latent_dim": 3, "beta": mi.linear_warmup(2, 0.5)}),
    "beta zero": ("beta", {"latent_dim": 3, "beta": 0.0}),
    "mmd": ("mmd", {"latent_dim": 3}),
    "mmd weighted": ("mmd", {"latent_dim": 1, "mi_weight": 0.5, "kernel": "imq"}),
    "critic": ("critic-infomax", {"latent_dim": 3}),
    "critic chain": ("critic-infomax", {"latent_dim": 1, "critic": "chain"}),
    "critic infonce": ("critic-infomax", {"bound": "infonce", "critic": "separable"}),
    "critic mine": ("critic-infomax", {"bound": "mine", "critic": "bilinear", "beta": 2.0}),
    "infomax": ("infomax", {"latent_dim": 3}),
    "infomax two codes": ("infomax", {"latent_dim": 3, "code_dim": 2}),
    "infomax deterministic": ("infomax", {"latent_dim": 3, "deterministic": True}),
    "infomax least": ("infomax", {"latent_dim": 2, "deterministic": True}),
    "cat": ("cat", MIXTURE),
    "cat one category": ("cat", {"num_categories": 1, "latent_dim": 1}),
    "cat one dimension each": ("cat", {"num_categories": 3, "latent_dim": 3}),
    "cat sample": ("cat", MIXTURE | {"categorical": "sample"}),
    "cat soft": ("cat", MIXTURE | {"categorical": "soft"}),
    "cat gumbel": ("cat", MIXTURE | {"categorical": "gumbel"}),
    "infocat": ("infocat", MIXTURE),
    "infocat one category": ("infocat", {"num_categories": 1, "latent_dim": 1}),
    "infocat sample": ("infocat", MIXTURE | {"categorical": "sample", "num_decodes": 3}),
    "infocat soft": ("infocat", MIXTURE | {"categorical": "soft"}),
    "infocat gumbel": ("infocat", MIXTURE | {"categorical": "gumbel", "temperature": 0.9}),
    "vmi": ("vmi", {"latent_dim": 4}),
    "vmi all": ("vmi", {"latent_dim": 3, "code_dim": 2, "sites": "all"}),
    "vmi sampled": ("vmi", {"latent_dim": 4, "generated": "relaxed"}),
    "vmi scheduled": ("vmi", {"latent_dim": 4, "mi_weight": mi.linear_warmup(3)}),
    "vmi uniform": ("vmi", lambda: {"prior": mi.UniformPrior(3, 2)}),
    "infogan": ("infogan", {"latent_dim": 5, "num_categories": 3}),
    "infogan saturating": ("infogan", {"num_categories": 2, "code_dim": 0, "saturating": True}),
    "infogan without category": ("infogan", {"latent_dim": 2, "code_dim": 1, "num_categories": 0}),
    "infogan scheduled": ("infogan", {"num_categories": 3, "mi_weight": mi.linear_warmup(3)}),
    "infocat scheduled": ("infocat", MIXTURE | {"mi_weight": mi.cyclic_warmup(3, start=0.1)}),
}
# One of each variant, of each way to treat the category, and of each critic with a state.
LOCAL = ["vae gaussian", "beta scheduled", "mmd", "critic chain", "critic mine", "infomax", "cat"]
LOCAL += [f"infocat {way}" for way in ("one category", "sample", "soft", "gumbel", "scheduled")]
LOCAL += ["vmi", "vmi sampled", "infogan", "infogan without category"]


@functools.cache
def built(case, module_local_params):
    name, options = CASES[case]
    torch.manual_seed(1)
    options = options() if callable(options) else options
    return mi.VARIANTS[name](SHAPE, **options)


def build(case):
    """Copies the variant of a case, which costs a tenth of building it."""
    return copy.deepcopy(built(case, pyro.settings.get("module_local_params")))


@pytest.fixture(params=CASES)
def vae(request):
    return build(request.param)


@pytest.fixture
def x():
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def weights(module):
    return {name: value.clone() for name, value in module.named_parameters()}


def changed(module, before):
    return {name for name, value in module.named_parameters() if (value != before[name]).any()}


def stock_svi(vae, **options):
    return SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), vae.objective(), **options)


def seeded_loss(vae, x):
    torch.manual_seed(7)
    vae.eval()
    return vae.objective().loss(vae.model, vae.guide, x)


def test_every_variant_has_a_case():
    assert {name for name, _ in CASES.values()} == set(mi.VARIANTS)
    assert all(cls.name == name for name, cls in mi.VARIANTS.items())


def test_model_and_guide_sample_the_same_sites_in_the_plate(vae, x):
    model, guide = (poutine.trace(program).get_trace(x) for program in (vae.model, vae.guide))
    latent = {name for name in model.stochastic_nodes if name != "data"}
    assert latent == {name for name in guide.stochastic_nodes if name != "data"} == set(vae.sites)
    assert model.observation_nodes == ["x"]
    for trace in (model, guide):
        for name in (*latent, *trace.observation_nodes):
            site = trace.nodes[name]
            assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
            assert site["fn"].batch_shape == (len(x),)
    for name in latent:
        assert model.nodes[name]["fn"].event_shape == guide.nodes[name]["fn"].event_shape
    assert model.nodes["x"]["value"] is x


def look(vae, x):
    """Codes and pictures of a variant, whose shapes are checked."""
    n, codes = len(x), vae.encode(x)
    assert {name: tuple(code.shape) for name, code in codes.items()} == {
        name: (n, size) for name, size in vae.sites.items()
    }
    assert vae.latent_dim == sum(s for name, s in vae.sites.items() if name != vae.category)
    if vae.num_categories:
        torch.testing.assert_close(codes["c"].sum(-1), torch.ones(n))
    pictures = [vae.reconstruct(x), vae.sample(n), vae.decode({}, n)]
    pictures += [vae.sample(n, category=vae.num_categories - 1)] if vae.num_categories else []
    pictures += [vae.reconstruct(x, keep={name}) for name in vae.sites]
    for picture in pictures:
        assert picture.shape == (n, *SHAPE)
        assert not picture.requires_grad
        assert picture.isfinite().all()
    return codes


def test_looking_gives_the_shapes_and_changes_nothing(vae, x):
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    vae.train()
    first = look(vae, x)
    assert vae.training
    assert not pyro.get_param_store().keys()
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name]), name
    second = vae.encode(x)
    for name in first:
        assert torch.equal(first[name], second[name])


@pytest.mark.parametrize("case", LOCAL)
def test_looking_at_one_datum(case, x):
    look(build(case), x[:1])


# Which parameter learns from what


DECODER, LIKELIHOOD, ENCODER = "model.decoder", "model.likelihood", "guide.encoder"
CATEGORY, CODE = HEAD_Z, HEAD_C = "guide.heads.0", "guide.heads.1"
LEARNS_FROM = {
    "vae": {
        "distortion": {DECODER, ENCODER, HEAD_Z},
        "z": {ENCODER, HEAD_Z},
    },
    "infomax": {
        "distortion": {DECODER, ENCODER, HEAD_Z, HEAD_C},
        "z": {ENCODER, HEAD_Z},
        "c": {ENCODER, HEAD_C},
    },
    "vmi": {
        "distortion": {DECODER, ENCODER, HEAD_Z, HEAD_C},
        "z": {ENCODER, HEAD_Z},
        "c": {ENCODER, HEAD_C},
        "term": {DECODER, ENCODER, HEAD_C},
    },
    "infocat": {
        "distortion": {DECODER, ENCODER, CATEGORY, CODE},
        "z": {ENCODER, CATEGORY, CODE},
        "c": {ENCODER, CATEGORY},
        "term": {DECODER, ENCODER, CATEGORY},
    },
}


@pytest.mark.parametrize("name", LEARNS_FROM)
def test_every_parameter_learns_from_its_terms_and_no_other(name, x):
    options = GAUSSIAN | (MIXTURE if name == "infocat" else {"latent_dim": 3})
    vae = mi.VARIANTS[name](SHAPE, **options)
    expected = copy.deepcopy(LEARNS_FROM[name])
    expected["distortion"].add(LIKELIHOOD)

    def traces():
        return TracePair.run(vae.model, vae.guide, (x,), {}, max_plate_nesting=1)

    def of(part):
        pair = traces()
        if part == "distortion":
            return pair.expectation(pair.log_likelihood("x"), pair.model.nodes["x"])
        if part == "term":
            return mi.BarberAgakov("c")(Particle(vae.model, vae.guide, (x,), {}, pair))
        return pair.rate(part)

    names, parameters = zip(*vae.named_parameters())
    for part, prefixes in expected.items():
        slopes = torch.autograd.grad(of(part), parameters, allow_unused=True)
        learning = {n for n, slope in zip(names, slopes) if slope is not None and slope.any()}
        assert learning == {n for n in names if n.startswith(tuple(prefixes))}, part


def test_what_is_left_out_learns_from_the_reconstruction_alone(x):
    vae = build("infomax")
    head = list(vae.guide.heads[1].parameters())
    torch.manual_seed(7)
    loss = vae.objective().differentiable_loss(vae.model, vae.guide, x)
    torch.manual_seed(7)
    pair = TracePair.run(vae.model, vae.guide, (x,), {}, max_plate_nesting=1)
    distortion = -pair.expectation(pair.log_likelihood("x"), pair.model.nodes["x"])
    for ours, theirs in zip(
        torch.autograd.grad(loss, head), torch.autograd.grad(distortion, head)
    ):
        torch.testing.assert_close(ours, theirs)


# Training, several times, in both of Pyro's modes


@pytest.fixture(params=["global", "local"])
def train(request):
    """Stock SVI with Pyro's global parameters, or a torch optimiser with the modules' own."""
    with pyro.settings.context(module_local_params=request.param == "local"):
        yield train_globally if request.param == "global" else train_locally


def least(vae):
    """How small a batch may be."""
    return 2 if vae.objective().needs_batch else 1


def train_globally(vae, x):
    svi = stock_svi(vae)
    for n in (4, 4, least(vae), 3):
        assert math.isfinite(svi.step(x[:n]))


def train_locally(vae, x):
    objective = vae.objective()
    loss_of = objective(vae.model, vae.guide)
    optimiser = torch.optim.Adam(loss_of.parameters())
    for n in (4, 4, least(vae), 3):
        optimiser.zero_grad()
        loss_of(x[:n]).backward()
        optimiser.step()
        objective.advance()


@pytest.mark.parametrize("case", ["vae", "infocat", "infogan"])
def test_a_second_model_trains_and_leaves_the_first_alone(case, train, x):
    first, second = build(case), build(case)
    train(first, x)
    trained, before = weights(first), weights(second)
    train(second, x)
    assert not changed(first, trained)
    assert changed(second, before) == set(before)


@pytest.mark.parametrize("case", LOCAL)
def test_a_batch_of_one_and_a_last_batch(case, x):
    """With the modules' own parameters; every case has the global ones in the next test."""
    with pyro.settings.context(module_local_params=True):
        vae = build(case)
        train_locally(vae, x)
        vae.encode(x)
        vae.sample(2)
        train_locally(vae, x[:3])
    assert all(value.isfinite().all() for value in vae.parameters())


def test_every_parameter_learns_and_state_comes_back(vae, x, request):
    before = weights(vae)
    train_globally(vae, x)
    idle = set(before) - changed(vae, before)
    if vae.num_categories == 1:  # there is nothing to tell apart
        idle = {name for name in idle if not name.startswith(CATEGORY)}
    assert not idle
    vae.encode(x)
    stock_svi(vae).step(x[:3])
    assert all(value.isfinite().all() for value in vae.parameters())
    buffer = io.BytesIO()
    torch.save(vae.state_dict(), buffer)
    buffer.seek(0)
    pyro.clear_param_store()
    other = build(request.node.callspec.params["vae"])
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert seeded_loss(other, x) == seeded_loss(vae, x)


@pytest.mark.parametrize("case", ["vae", "infocat", "infocat gumbel", "infogan"])
def test_stock_svi_goes_on_after_looking(case, x):
    vae = build(case)
    svi = stock_svi(vae)
    svi.step(x)
    vae.encode(x)
    vae.sample(2)
    vae.reconstruct(x)
    before = weights(vae)
    svi.step(x)
    assert changed(vae, before) == set(before)


@pytest.mark.parametrize("case", ["vae", "infocat", "infogan"])
def test_stock_svi_goes_on_after_fit_and_fit_after_it(case, x):
    vae = build(case)
    vae.start = mi.CategoryStart(0)
    for train in (train_globally, fit, train_globally):
        before = weights(vae)
        train(vae, x)
        assert changed(vae, before) == set(before)


def fit(vae, x):
    from pyro_mivae.training import fit

    fit(vae, x, epochs=1, batch_size=2, device="cpu")


@pytest.mark.parametrize("case", ["vae", "infocat", "infogan"])
def test_a_copy_trains_on_its_own(case, train, x):
    vae = build(case)
    train(vae, x)
    copied = copy.deepcopy(vae)
    assert seeded_loss(copied, x) == seeded_loss(vae, x)
    trained, before = weights(vae), weights(copied)
    copied.train()
    train(copied, x)
    assert not changed(vae, trained)
    assert changed(copied, before) == set(before)


def test_optimiser_options_by_parameter(x):
    vae = build("infocat")
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), vae.objective())
    before = weights(vae)
    svi.step(x)
    assert changed(vae, before) == set(before)


# Printing


def test_prints_and_explains_itself(vae):
    assert type(vae).__name__ in repr(vae)
    assert "decoder" in repr(vae)
    text = mi.explain(vae.objective())
    assert text.startswith("J =")
    for site in set(vae.sites) - vae.noise:
        if isinstance(vae, mi.InfoGAN):  # a game, and no ELBO
            assert f"E_p[log q({site}|x')] + H({site})" in text
        else:
            assert f"KL(q({site}|x) || p({site}))" in text


def test_objectives_are_new_ones_at_the_start_of_their_schedules(x):
    vae = build("beta scheduled")
    first = vae.objective()
    first.loss_and_grads(vae.model, vae.guide, x)
    assert first.kl_weights["z"]() == 0.75
    assert vae.objective().kl_weights["z"]() == 0.5


@pytest.mark.parametrize(
    "case", ["vae", "infocat", "infocat soft", "infomax deterministic", "infogan"]
)
def test_in_double_precision_under_a_single_default(case, x):
    vae, x = build(case).double(), x.double()
    assert vae.encode(x)["z"].dtype == torch.float64
    pictures = [vae.reconstruct(x), vae.sample(2), vae.reconstruct(x, keep=set())]
    assert {picture.dtype for picture in pictures} == {torch.float64}
    assert vae.objective().differentiable_loss(vae.model, vae.guide, x).dtype == torch.float64
