"""Models that are saved in a file and loaded back."""

import json

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, RunError

SHAPE = (1, 3, 4)
PLAIN = {
    "vae": {"latent_dim": 3, "likelihood": "gaussian"},
    "beta": {"beta": mi.linear_warmup(3, 0.5)},
    "mmd": {"latent_dim": 2, "kernel": "imq"},
    "infomax": {"latent_dim": 4, "deterministic": True},
    "vmi": {"latent_dim": 4, "sites": ("z", "c")},
    "critic-infomax": {"latent_dim": 2, "critic": "separable", "bound": "infonce"},
    "cat": {"num_categories": 3, "warm_start": mi.CategoryStart(5, warmup=0.1)},
    "infocat": {"num_categories": 3, "mi_weight": mi.cyclic_warmup(4)},
    "infogan": {"num_categories": 3, "latent_dim": 5},
}


def same_codes(first, second):
    x = torch.rand(5, *SHAPE, dtype=first.dtype)
    names = [name for name in first.sites if name not in first.noise]
    a, b = first.eval().encode(x), second.encode(x)
    return all(torch.equal(a[name], b[name]) for name in names)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("name", mi.VARIANTS)
def test_every_variant_is_rebuilt_from_its_file(tmp_path, name, ending):
    vae = mi.VARIANTS[name](SHAPE, **PLAIN[name])
    for value in vae.parameters():
        value.data += 0.1 * torch.rand_like(value)
    state = torch.get_rng_state()
    path = tmp_path / f"vae.{ending}"
    mi.save(vae, path)
    assert torch.equal(torch.get_rng_state(), state)
    loaded = mi.load(path)
    assert type(loaded) is type(vae)
    assert not loaded.training
    assert same_codes(vae, loaded)
    assert str(mi.explain(loaded.objective())) == str(mi.explain(vae.objective()))
    assert list(tmp_path.iterdir()) == [path]


def test_safetensors_are_read_by_their_own_library_and_damage_is_named(tmp_path):
    from safetensors import safe_open

    vae, path = mi.BetaVAE(SHAPE, latent_dim=2, beta=3.0), tmp_path / "vae.safetensors"
    mi.save(vae, path)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["options"])["beta"] == 3.0
        assert set(file.keys()) == set(vae.state_dict())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match=r"cannot read .*vae.safetensors: it is damaged"):
        mi.load(path)


class OwnVAE(mi.VAE):
    pass


def with_own(part):
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 7))
    return {
        "prior": lambda: mi.VMIVAE(SHAPE, prior=mi.UniformPrior(3, 2)),
        "encoder": lambda: mi.VAE(SHAPE, latent_dim=2, encoder=encoder),
        "likelihood": lambda: mi.VAE(SHAPE, likelihood=mi.GaussianLikelihood(0.2)),
        "class": lambda: OwnVAE(SHAPE, latent_dim=2),
    }[part]()


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("prior", "a VMIVAE with prior=UniformPrior"),
        ("encoder", "a VAE with encoder=Sequential"),
        ("likelihood", "a VAE with likelihood=GaussianLikelihood"),
        ("class", "a OwnVAE with the class OwnVAE of your own"),
    ],
)
def test_parts_of_ones_own_are_loaded_into_a_model_built_as_before(tmp_path, part, told):
    torch.manual_seed(0)
    vae, path = with_own(part).double(), tmp_path / "vae.pt"
    mi.save(vae, path)
    with pytest.raises(RunError, match=rf"{told}.* no file holds; .*into=vae\)"):
        mi.load(path)
    torch.manual_seed(1)
    other = with_own(part)
    assert mi.load(path, into=other) is other
    assert other.dtype == torch.float64
    assert same_codes(vae, other)


def test_what_was_changed_after_building_needs_a_model(tmp_path):
    changed = mi.BetaVAE(SHAPE, latent_dim=2)
    changed.beta = 2.0
    swapped = mi.VAE(SHAPE, latent_dim=2)
    swapped.guide.encoder = torch.nn.Flatten()
    for vae, told in ((changed, "objective is - 2"), (swapped, ".*encoder")):
        mi.save(vae, tmp_path / "vae.pt")
        with pytest.raises(RunError, match=rf"changes after it was built \({told}"):
            mi.load(tmp_path / "vae.pt")


def test_models_that_do_not_fit(tmp_path):
    path = tmp_path / "vae.pt"
    mi.save(mi.VAE(SHAPE, latent_dim=2), path)
    with pytest.raises(RunError, match="class is BetaVAE here and VAE there"):
        mi.load(path, into=mi.BetaVAE(SHAPE))
    other = mi.VAE(SHAPE, latent_dim=3)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(RunError, match="latent_dim is 3 here and 2 there"):
        mi.load(path, into=other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    with pytest.raises(OptionError, match="into=a Linear; allowed are instances of Variant"):
        mi.load(path, into=torch.nn.Linear(1, 1))
    with pytest.raises(OptionError, match="vae=a Linear; allowed are instances of Variant"):
        mi.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(RunError, match="cannot write"):
        mi.save(other, tmp_path / "nowhere" / "vae.pt")


class Spy:
    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_are_something_else(tmp_path, capsys):
    path = tmp_path / "vae.pt"
    for content, told in (({"weights": {}}, "was not written by mi.save"), (Spy(), "cannot read")):
        torch.save(content, path)
        with pytest.raises(RunError, match=told):
            mi.load(path)
    path.write_bytes(b"no archive")
    with pytest.raises(RunError, match="cannot read"):
        mi.load(path)
    assert not capsys.readouterr().out
    with pytest.raises(RunError, match="there is no run folder"):
        mi.load(tmp_path / "nowhere")


def test_what_fit_kept_is_loaded_into_a_model(tmp_path):
    x = torch.rand(8, *SHAPE)
    vae, other = mi.VAE(SHAPE, latent_dim=2), mi.VAE(SHAPE, latent_dim=2)
    mi.fit(vae, x, epochs=1, run=tmp_path, engine="eager")
    with pytest.raises(RunError, match=r"mi.load\(folder, into=vae\)"):
        mi.load(tmp_path)
    assert same_codes(vae, mi.load(tmp_path, into=other))
