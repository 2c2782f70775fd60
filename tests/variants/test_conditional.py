"""Variants with a condition of each datum."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae import traces
from pyro_mivae.errors import DataError, OptionError, ShapeError, SiteError
from pyro_mivae.guides import CorruptedGuide
from pyro_mivae.networks import ConditionalEncoder, MLPEncoder

SHAPE, N, K = (1, 2, 3), 12, 3
PARTS = {
    "vae": {"latent_dim": 2},
    "beta": {"latent_dim": 2},
    "infomax": {"latent_dim": 3},
    "vmi": {"latent_dim": 4, "code_dim": 2},
    "cat": {"num_categories": 2, "warm_start": 0},
    "infocat": {"num_categories": 2, "warm_start": 0},
}


@pytest.fixture
def x():
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def labels():
    return torch.arange(N) % K


@pytest.fixture
def build():
    def build(name="vae", **options):
        torch.manual_seed(1)
        options = PARTS[name] | {"given_shape": (K,), "likelihood": "gaussian"} | options
        return mi.VARIANTS[name](SHAPE, **options).double()

    return build


def gradients(elbo, vae, args):
    torch.manual_seed(3)
    vae.zero_grad()
    elbo.loss_and_grads(vae.model, vae.guide, *args)
    return {name: p.grad.clone() for name, p in vae.named_parameters()}


@pytest.mark.parametrize(
    ("prior", "reference"),
    [
        (mi.StandardNormalPrior(2), TraceMeanField_ELBO),
        (mi.priors.StudentTPrior(2), Trace_ELBO),  # its KL is taken from the draw
    ],
    ids=["closed form", "draw"],
)
def test_gradient_is_that_of_pyros_own_elbo(prior, reference, build, x, labels, monkeypatch):
    # With the score, which has the expectation 0 (see `test_path_gradients`).
    monkeypatch.setattr(traces, "log_density_of_draw", lambda _, log_q: log_q)
    vae = build(prior=prior)
    args = vae.arguments(x, labels)
    own, theirs = (gradients(e, vae, args) for e in (vae.objective(), reference()))
    assert own.keys() == theirs.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, theirs[name], msg=name)
        assert name.endswith("bias") or bool(gradient.abs().sum() > 0), name


def test_model_and_guide_read_the_condition(build, x, labels):
    vae, other = build().eval(), labels.roll(1)
    assert not torch.equal(vae.encode(x, given=labels)["z"], vae.encode(x, given=other)["z"])
    codes = vae.encode(x, given=labels)
    first, second = (vae.decode(codes, N, given=u) for u in (labels, other))
    assert not torch.equal(first, second)
    losses = []
    for u in (labels, other):
        torch.manual_seed(2)
        losses.append(vae.objective().loss(vae.model, vae.guide, *vae.arguments(x, u)))
    assert losses[0] != losses[1]
    assert torch.equal(vae.reconstruct(x, given=labels), first)
    torch.testing.assert_close(vae.reconstruct(x[:4], given=labels[:4]), first[:4])


@pytest.mark.parametrize("name", PARTS)
def test_codes_of_every_category_and_particle_are_decoded_with_their_datums_condition(
    name, build, x, labels
):
    vae = build(name).eval()
    u = vae.arguments(x, labels)[1]
    code = torch.randn(3, 1, N, vae.model.decoder.layers[0].in_features - K).double()
    decoded = vae.model.decode(vae.model._with_condition(code, u, N))
    for row in range(N):
        alone = vae.model._with_condition(code[2, 0, row : row + 1], u[row : row + 1], 1)
        torch.testing.assert_close(decoded[2, 0, row : row + 1], vae.model.decode(alone))


@pytest.mark.parametrize("categorical", ["enumerate", "sample", "soft"])
def test_treatments_of_a_category(categorical, build, x, labels):
    vae = build("cat", categorical=categorical)
    found = gradients(vae.objective(), vae, vae.arguments(x, labels))
    assert all(bool(g.isfinite().all()) for g in found.values())


def test_labels_are_one_hot_vectors(build, x, labels):
    vae = build()
    one_hot = nn.functional.one_hot(labels, K)
    for given in (labels.numpy(), one_hot, one_hot.float(), one_hot.bool()):
        assert torch.equal(vae.arguments(x, given)[1], one_hot.double())
    assert torch.equal(vae.arguments(x, 2)[1], one_hot[[2] * N].double())
    assert vae.sample(4, given=1).shape == (4, *SHAPE)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        (None, OptionError, r"given is missing; the model was built with given_shape=\(3,\)"),
        (torch.zeros(N - 1).long(), ShapeError, "given holds 11 labels for 12 data"),
        (torch.arange(N), DataError, r"range over 0 to 11; allowed are 0 to 2: .*\(12,\)"),
        (torch.arange(N) % 4, DataError, r"range over 0 to 3; allowed are 0 to 2: .*\(4,\)"),
        (torch.zeros(N, K + 1), ShapeError, r"shape \(12, 4\); allowed is \(12, 3\)"),
        (torch.zeros(N), ShapeError, r"float32 and shape \(12,\); allowed is \(12, 3\)"),
        (torch.full((N, K), torch.nan), DataError, "given contains NaN or infinity"),
        ("labels", DataError, "a str given as given"),
    ],
)
def test_conditions_that_do_not_fit(given, error, told, build, x):
    vae = build()
    for use in (
        lambda: vae.encode(x, given=given),
        lambda: vae.sample(N, given=given),
        lambda: mi.fit(vae, x, given=given, epochs=1),
        lambda: (
            mi.information(vae.model, vae.guide, x, given=given)
            if given is not None
            else vae.reconstruct(x)
        ),
    ):
        with pytest.raises(error, match=told):
            use()


def test_programs_refuse_what_is_no_condition(build, x, labels):
    vae = build()
    for program in (vae.model, vae.guide):
        for others in ((), (labels,), (torch.zeros(N - 1, K),)):
            with pytest.raises(ShapeError, match=r"take conditions of shape \(12, 3\) after 12"):
                program(x, *others)
    with pytest.raises(ShapeError, match=r"take conditions of shape .* none given"):
        mi.information(vae.model, vae.guide, x)
    plain = build(given_shape=None)
    with pytest.raises(ShapeError, match="model was built without a condition"):
        plain.model(x, torch.zeros(N, K))
    with pytest.raises(ShapeError, match="guide's encoder MLPEncoder takes none"):
        plain.guide(x, torch.zeros(N, K))
    with pytest.raises(OptionError, match="given is passed, but the model has no condition"):
        plain.encode(x, given=labels)


@pytest.mark.parametrize("name", ["mmd", "critic-infomax", "infogan"])
def test_variants_that_compare_data_of_different_conditions(name):
    with pytest.raises(OptionError, match="takes no condition, because"):
        mi.VARIANTS[name](SHAPE, given_shape=(K,))
    assert set(PARTS) | {"mmd", "critic-infomax", "infogan"} == set(mi.VARIANTS)


def test_parts_that_take_no_condition(build, x, labels):
    with pytest.raises(OptionError, match="VampPrior reads the guide at inputs of its own"):
        build(prior=mi.VampPrior(SHAPE, 2, 4))
    with pytest.raises(ShapeError, match="guide's encoder MLPEncoder takes none; wrap it"):
        build(guide=mi.MeanFieldGuide(SHAPE, {"z": 2}))

    class Alone(PyroModule):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(OptionError, match=r"Alone is called with data and their condition"):
        build(guide=Alone())
    vae = build()
    critic = mi.build_critic("separable", SHAPE, 2)
    vae.critic = critic.double()
    elbo = mi.MutualInformationELBO([mi.CriticBound("z", critic=critic)])
    with pytest.raises(SiteError, match="CriticBound compares codes of data of different cond"):
        mi.fit(vae, x, given=labels, objective=elbo, epochs=1)


def test_parts_of_ones_own(build, x, labels):
    class Both(nn.Module):
        given_shape = (K,)

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6 + K, 5)

        def forward(self, x, given):
            return self.linear(torch.cat([x.flatten(1), given], 1))

    for encoder in (Both(), nn.Sequential(nn.Flatten(), nn.Linear(6, 4))):
        decoder = nn.Sequential(nn.Linear(2 + K, 6), nn.Unflatten(-1, SHAPE))
        vae = build(encoder=encoder, decoder=decoder)
        kind = Both if isinstance(encoder, Both) else ConditionalEncoder
        assert isinstance(vae.guide.encoder, kind)
        found = gradients(vae.objective(), vae, vae.arguments(x, labels))
        assert all(bool(g.abs().sum() > 0) for g in found.values())
    for wrap in (lambda guide: guide, lambda guide: CorruptedGuide(guide, torch.zeros_like)):
        encoder = ConditionalEncoder(MLPEncoder(SHAPE, [4]), SHAPE, (K,))
        vae = build(guide=wrap(mi.MeanFieldGuide(SHAPE, {"z": 2}, encoder)))
        assert vae.encode(x, given=labels)["z"].shape == (N, 2)


def test_conditions_of_any_shape(build, x):
    vae = build(given_shape=(2, 2))
    u = torch.randn(N, 2, 2)
    assert vae.encode(x, given=u)["z"].shape == (N, 2)
    assert vae.sample(3, given=u[:3], what="data").shape == (3, *SHAPE)


def test_svi_takes_both_and_goes_on_as_the_engine_does(build, x, labels):
    histories = []
    for kind in (SVI, mi.SVI):
        vae = build("vmi")
        torch.manual_seed(5)
        with pyro.get_param_store().scope():
            svi = kind(vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), vae.objective())
            histories.append([svi.step(*vae.arguments(x, labels)) for _ in range(5)])
    assert histories[0] == pytest.approx(histories[1], rel=1e-9)


def test_check_finds_nothing(build, x, labels):
    vae = build("vmi")
    assert not mi.check(vae, x, labels)
    assert not mi.check(vae, x, given=labels)


@pytest.mark.parametrize(
    ("has", "given", "found", "remedy"),
    [
        (True, None, "given is missing", "pass the condition of each datum"),
        (True, torch.arange(N - 1) % K, "11 labels for 12 data", "give one for each"),
        (True, torch.zeros(N, K).log(), "contains NaN or infinity", "allowed are finite numbers"),
        (False, torch.arange(N) % K, "given is passed", "build it with given_shape"),
    ],
)
def test_check_says_what_is_wrong_with_a_condition(has, given, found, remedy, build, x):
    vae = build() if has else build(given_shape=None)
    for report in (mi.check(vae, x, given=given), mi.check(vae.model, vae.guide, x, given)):
        (finding,) = report
        assert (finding.kind, finding.site) == ("data", "given")
        assert found in finding.found
        assert remedy in finding.remedy


def test_a_file_holds_the_shape(build, x, labels, tmp_path):
    vae = build()
    mi.save(vae, tmp_path / "vae.pt")
    loaded = mi.load(tmp_path / "vae.pt")
    assert loaded.given_shape == (K,)
    both = (one.encode(x, given=labels)["z"] for one in (vae, loaded))
    torch.testing.assert_close(*both)


def test_a_term_reads_the_condition_of_the_data_that_it_generates():
    u = 100.0 * torch.arange(6.0)

    def model(x, u):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(c + u, 0.1), obs=x)

    def guide(x, u):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Normal(x - u, 0.1))

    term = mi.BarberAgakov("c", weight=1.0)
    elbo = mi.MutualInformationELBO([term])
    elbo.loss(model, guide, u.clone(), u)
    exact = torch.tensor(10.0).log() + 0.5  # log q(c | c) at the mean, plus H(c)
    torch.testing.assert_close(elbo.ledger[term.name] / 6, exact)
