"""`fit` in several processes: one writes, all end alike, and errors reach every one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pyro.optim import Adam

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning
from pyro_mivae.networks import presets
from pyro_mivae.ranks import Ranks
from pyro_mivae.training import fit, fit_many, read_checkpoint, resolve_device

from .processes import in_ranks, start

MAKE = """
import pyro, pyro_mivae as mi
from pyro_mivae.training import fit, fit_many

SHAPE = (1, 4, 4)
x = torch.rand(150, *SHAPE, generator=torch.Generator().manual_seed(0))

def make(name="vae", seed=3, **options):
    torch.manual_seed(seed)
    return mi.VARIANTS[name](SHAPE, **{"latent_dim": 3, **options})

def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"
"""
HOW = {"epochs": 4, "batch_size": 64}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of `MAKE` in this process."""
    monkeypatch.setattr(presets, "_mlp_widths", lambda data_shape: (7, 7))
    names: dict[str, Any] = {"torch": torch}
    exec(MAKE, names)
    return names


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_all_processes_end_alike_and_the_first_one_writes(
    tmp_path: Path, make: dict[str, Any]
) -> None:
    source = f"""{MAKE}
how, seen = {HOW}, []
vae = make()
vae.model.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
rows = []
history = fit(vae, x, run=folder + "/run", on_epoch=rows.append, validation=0.2, **how)
later = make()
fit(later, x, run=folder + "/later", validation=0.2, **how | {{"epochs": 2}})
extended = fit(later, x, run=folder + "/later", resume=True, validation=0.2, **how)
stopped = fit(make(), x, validation=0.2, patience=1, lr=0.3, **how | {{"epochs": 30}})
result = {{
    "rows": [{{**row, "seconds": 0}} for row in history],
    "told": len(rows),
    "weights": vae.state_dict(),
    "later": later.state_dict(),
    "extended": len(extended),
    "stopped": stopped["epoch"],
    "codes": [codes for codes in seen if codes.requires_grad is False][-1],
    "taken": error_of(lambda: fit(make(), x, run=folder + "/run", **how)),
    "callback": error_of(lambda: fit(make(), x, on_epoch=lambda row: 1 / 0, **how)),
}}
"""
    first, second = in_ranks(source, tmp_path)
    assert first["rows"] == second["rows"]
    assert (first["told"], second["told"]) == (4, 0)
    assert first["extended"] == second["extended"] == 4
    assert first["stopped"] == second["stopped"]
    assert len(first["stopped"]) < 30
    for weights in (second["weights"], first["later"], second["later"]):
        assert_same(first["weights"], weights)
    kept = read_checkpoint(tmp_path / "run")
    assert_same(first["weights"], kept["weights"])
    assert first["taken"] == second["taken"]
    assert "holds a run already" in first["taken"]
    assert "ZeroDivisionError" in first["callback"]
    assert "ZeroDivisionError" in second["callback"]
    # One process continues where two ended.
    alone, more = make["make"](), HOW | {"epochs": 5}
    history = fit(alone, make["x"], run=tmp_path / "run", resume=True, validation=0.2, **more)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert [{**row, "seconds": 0} for row in history[:4]] == first["rows"]


def test_a_process_that_ends_stops_the_others(tmp_path: Path, make: dict[str, Any]) -> None:
    source = f"""{MAKE}
import os
calls, vae = [], make()

def die(module, args):
    calls.append(0)
    if rank == 1 and len(calls) == 12:
        os._exit(9)

vae.model.decoder.register_forward_pre_hook(die)
told = error_of(lambda: fit(vae, x, run=folder + "/run", **{HOW}))
torch.save(told, folder + "/told.pt")
os._exit(0)
"""
    processes = start(source, tmp_path)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 9]
    told = torch.load(tmp_path / "told.pt")
    assert told.startswith("RankError: rank 0 of 2 processes stopped after step")
    assert read_checkpoint(tmp_path / "run")["epoch"] in (1, 2, 3)
    fit(make["make"](), make["x"], run=tmp_path / "one", **HOW | {"epochs": 2})
    source = f"""{MAKE}
resumed, whole, one = make(), make(), make()
fit(resumed, x, run=folder + "/run", resume=True, **{HOW})
fit(whole, x, **{HOW})
history = fit(one, x, run=folder + "/one", resume=True, **{HOW})
result = resumed.state_dict(), whole.state_dict(), one.state_dict(), history["epoch"]
"""
    first, second = in_ranks(source, tmp_path)
    for own in (first, second):
        assert_same(own[0], own[1])
        assert own[3] == [1, 2, 3, 4]  # two processes continue where one ended
    assert_same(first[2], second[2])


def test_noise_differs_between_processes_and_repeats_with_the_epoch() -> None:
    def drawn(rank: int, epoch: int) -> torch.Tensor:
        torch.manual_seed(0)
        Ranks(rank, 3).seed(7, epoch)
        return torch.rand(4)

    torch.manual_seed(0)
    alone = torch.rand(4)
    assert torch.equal(drawn(0, 1), alone)
    assert torch.equal(drawn(2, 1), drawn(2, 1))
    values = [drawn(*place) for place in ((0, 1), (1, 1), (2, 1), (1, 2))]
    assert len({float(value[0]) for value in values}) == len(values)


def test_models_are_divided_among_the_processes(tmp_path: Path, make: dict[str, Any]) -> None:
    source = f"""{MAKE}
vaes, told = [make(seed=seed) for seed in range(3)], []
runs = [folder + f"/{{seed}}" for seed in range(3)]
histories = fit_many(vaes, x, runs=runs, on_epoch=lambda number, row: told.append(number), **{HOW})
again = fit_many([make(seed=seed) for seed in range(3)], x, runs=runs, resume=True, **{HOW})
result = {{
    "weights": [vae.state_dict() for vae in vaes],
    "losses": [history["loss"] for history in histories],
    "again": [history["loss"] for history in again],
    "told": told,
    "jobs": error_of(lambda: fit_many(vaes, x, jobs=2, **{HOW})),
}}
"""
    found = in_ranks(source, tmp_path)
    vaes = [make["make"](seed=seed) for seed in range(3)]
    histories = fit_many(vaes, make["x"], **HOW)
    for own in found:
        assert own["losses"] == own["again"] == [history["loss"] for history in histories]
        assert own["jobs"].startswith("OptionError: jobs=2 in 2 processes")
        for vae, weights in zip(vaes, own["weights"], strict=True):
            assert_same(vae.state_dict(), weights)
    assert [sorted(own["told"]) for own in found] == [[0] * 4 + [2] * 4, [1] * 4]


def test_the_figures_of_an_evaluation_are_those_of_one_process(
    tmp_path: Path, make: dict[str, Any]
) -> None:
    evaluate = """
from pyro_mivae.ranks import Ranks, working
labels = torch.arange(150) % 3
vae = make("cat", num_categories=3, warm_start=2).eval()
few = {"iwae_samples": 4, "generative_items": 20, "samples_per_category": 20}
with working(Ranks.of_group()):
    found = mi.evaluate(vae, x, labels, **few)
result = dict(found), found.protocol, sorted(found.seconds)
"""
    first, second = in_ranks(MAKE + evaluate, tmp_path)
    exec(evaluate, make)
    values, protocol, parts = make["result"]
    for own in (first, second):
        assert list(own[0]) == list(values)
        assert own[0] == pytest.approx(values, rel=1e-6, nan_ok=True)
        assert own[1] == protocol
    assert not set(first[2]) & set(second[2]) - {"codes"}
    assert set(first[2]) | set(second[2]) == set(parts)


def test_pairs_that_cannot_be_divided_are_refused(tmp_path: Path) -> None:
    source = f"""{MAKE}
from torch import nn
import pyro.distributions as dist
from pyro_mivae.terms import InformationTerm

class Global(nn.Module):
    "A guide of one draw for the whole batch, or of a plate that sub-samples."
    def __init__(self, inner, size):
        super().__init__()
        self.inner, self.size = inner, size
    def forward(self, x):
        if self.size is None:
            with pyro.plate("features", 3):  # as many as data of a check
                pyro.sample("w", dist.Normal(0.0, 1.0), infer={{"is_auxiliary": True}})
            return self.inner(x)
        with pyro.plate("data", self.size, subsample=torch.arange(len(x))):
            return pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1))

class Spread(InformationTerm):
    name, formula, needs_batch = "spread_z", "var z", True
    def __call__(self, particle):
        return particle.traces.guide.nodes["z"]["value"].var(0).sum() * len(particle.args[0])

def spoilt(size):
    vae = make()
    vae.guide = Global(vae.guide, size)
    return vae

result = {{
    "site": error_of(lambda: fit(spoilt(None), x, **{HOW})),
    "plate": error_of(lambda: fit(spoilt(500), x, **{HOW})),
    "term": error_of(
        lambda: fit(make(), x, objective=mi.MutualInformationELBO([Spread("z")]), **{HOW})
    ),
    "batch": error_of(lambda: fit(make(), x, epochs=1, batch_size=3)),
    "data": error_of(lambda: fit(make(), x[:3], epochs=1)),
}}
"""
    for found in in_ranks(source, tmp_path):
        assert found["site"].startswith("SiteError: the site 'w' is not drawn for each of")
        assert found["plate"].startswith("SiteError: the plate 'data'")
        assert found["term"].startswith("OptionError: Spread compares the data of a batch")
        assert found["batch"].startswith("OptionError: batch_size: 3, divided among 2 processes")
        assert found["data"].startswith("OptionError: number of training data: 3")


def test_processes_without_a_group_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.warns(PyroMivaeWarning, match="no process group"):
        assert Ranks.of_group().size == 1


def test_svi_in_several_processes_says_that_each_trains_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ranks, "of_group", lambda: Ranks(0, 2))
    vae = mi.VAE((1, 4, 4), latent_dim=2)
    with pytest.warns(PyroMivaeWarning, match="each trains a model of its own"):
        mi.SVI(vae.model, vae.guide, Adam({"lr": 1e-3}), vae.objective())


def test_the_device_is_that_of_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = lambda size, device: SimpleNamespace(device=torch.device(device))  # noqa: E731
    monkeypatch.setattr(torch, "empty", made)
    assert resolve_device("auto") == torch.device("cuda:3")
