"""Only what is ours is deleted, and each folder holds one kind of thing."""

from pathlib import Path

import pytest

from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.report.pictures import PICTURES, listed_pictures, write_pictures
from pyro_mivae.runs import RunConfig, sweep_run, train_run, train_seeds
from pyro_mivae.runs.run_folder import (
    check_target,
    clear_run,
    clear_sweep,
    held,
    prepare,
    runs_of_seeds,
)

CONFIG = 'version = "1"\nvariant = "vae"\n'
OURS = "checkpoint.pt checkpoint.previous.pt history.csv metrics.json report.html config.toml"
KINDS = ("a run", "the runs of several seeds", "a sweep")


def make(folder, *files):
    """Makes files; configurations are those of runs."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIG if path.name in ("config.toml", "sweep.toml") else "x")
    return folder


def names(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in (".lock", ".owner"))
    return sorted(str(path.relative_to(folder)) for path in files)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([], None),
        ([".lock", ".DS_Store", "seed-3/.lock", "models/.lock"], None),
        (["notes.txt"], "files, but no run"),
        (["seed-3/photo.png"], "files, but no run"),
        (["sweep.csv"], "files, but no run"),
        ([".lock", "config.toml"], "a run"),
        (["seed-3/config.toml", "seed-10/history.csv"], "the runs of several seeds"),
        (["seeds.json"], "the runs of several seeds"),
        (["sweep.toml"], "a sweep"),
        (["sweep.json", "models/beta=1.0,seed=0/checkpoint.pt"], "a sweep"),
    ],
)
def test_one_function_says_what_a_folder_holds(tmp_path, files, what):
    folder = make(tmp_path / "folder", *files)
    assert held(folder) == what
    for kind in KINDS:
        for how in ({"resume": True}, {"overwrite": True}, {}):
            how = {"resume": False, "overwrite": False} | how
            if what is None or (what == kind and any(how.values())):
                check_target(folder, kind, **how)
            else:
                with pytest.raises(RunError, match=rf"folder holds {what}.*choose another --run"):
                    check_target(folder, kind, **how)


def test_a_configuration_of_another_program_is_no_run(tmp_path):
    (tmp_path / "config.toml").write_text('title = "my site"\n')
    assert held(tmp_path) == "files, but no run"
    (tmp_path / "checkpoint.pt").touch()  # a run's, damaged
    assert held(tmp_path) == "a run"


def test_a_file_in_place_of_a_folder(tmp_path):
    make(tmp_path, "file", "seeds/seed-1")
    for kind in KINDS:
        with pytest.raises(RunError, match="file is a file"):
            check_target(tmp_path / "file", kind, resume=False, overwrite=False)
        with pytest.raises(OptionError, match="allowed is one of them"):
            check_target(tmp_path, kind, resume=True, overwrite=True)


def test_a_seed_does_not_move_into_other_files(tmp_path):
    make(tmp_path, "seed-1/config.toml", "seed-2/photo.png")
    runs = [tmp_path / f"seed-{seed}" for seed in (1, 2)]
    with pytest.raises(RunError, match="seed-2 holds files, but no run"):
        check_target(tmp_path, KINDS[1], resume=False, overwrite=True, runs=runs)


def test_no_kind_moves_into_the_folder_of_another(tmp_path):
    config = RunConfig("beta", training={"epochs": 1})
    writes = {
        "a run": lambda folder: train_run(config, folder, overwrite=True),
        KINDS[1]: lambda folder: train_seeds(config, folder, 1, overwrite=True),
        "a sweep": lambda folder: sweep_run(config, folder, {"beta": (1.0,)}, overwrite=True),
    }
    holds = {"a run": "config.toml", KINDS[1]: "seed-0/config.toml", "a sweep": "sweep.toml"}
    for kind, write in writes.items():
        for other, file in holds.items():
            folder = make(tmp_path / kind / other, file)
            if kind != other:
                with pytest.raises(
                    RunError, match=f"holds {other}, which only pyro-mivae .* continues"
                ):
                    write(folder)
            assert names(folder) == [file]


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_what_another_process_makes_meanwhile_is_not_thrown_away(tmp_path, monkeypatch, how):
    folder, load = tmp_path / "run", RunConfig.load_dataset

    def loads(config):
        make(folder, "config.toml", "checkpoint.pt")
        return load(config)

    monkeypatch.setattr(RunConfig, "load_dataset", loads)
    with pytest.raises(RunError, match="run holds a run already"):
        train_run(RunConfig("vae", training={"epochs": 1}), folder, **how)
    assert names(folder) == ["checkpoint.pt", "config.toml"]


def test_files_of_the_user_outlive_a_run(tmp_path):
    ours = [*OURS.split(), "tensorboard/events.out.tfevents.1.host.2.0.pyro-mivae"]
    theirs = ["grid.png", "notes.txt", "tensorboard/events.out.tfevents.1.host.2.0"]
    make(tmp_path, *ours, *theirs, ".lock")
    write_pictures(tmp_path, {"samples.png": b"ours"})
    clear_run(tmp_path)
    assert names(tmp_path) == sorted(theirs)
    assert (tmp_path / ".lock").exists()


def test_a_run_is_made_anew_in_its_folder(tmp_path):
    make(tmp_path, *OURS.split(), "grid.png")
    prepare(tmp_path, "a run", {tmp_path / "config.toml": RunConfig("beta")})
    assert names(tmp_path) == ["config.toml", "grid.png"]
    assert "beta" in (tmp_path / "config.toml").read_text()


def test_files_of_the_user_outlive_seeds(tmp_path):
    make(tmp_path, "seeds.json", "notes.txt", "seed-1/config.toml", "seed-2/config.toml")
    make(tmp_path, "seed-2/checkpoint.pt", "seed-3/config.toml", "seed-3/grid.png")
    prepare(tmp_path, KINDS[1], {tmp_path / "seed-4/config.toml": RunConfig("vae")}, resume=True)
    left = ["notes.txt", "seed-2/checkpoint.pt", "seed-2/config.toml", "seed-3/grid.png"]
    assert names(tmp_path) == [*left, "seed-4/config.toml"]
    assert [path.name for path in runs_of_seeds(tmp_path)] == ["seed-2", "seed-4"]


def test_files_of_the_user_outlive_a_sweep(tmp_path):
    kept = [f"models/beta=1.0,seed=0/{name}" for name in OURS.split()[:3]]
    theirs = ["models/a=b/history.csv", "notes.txt", "own.csv"]
    make(tmp_path, "sweep.toml", "sweep.json", "sweep.csv", "sweep.png", *kept, *theirs)
    clear_sweep(tmp_path)
    assert names(tmp_path) == theirs
    assert not (tmp_path / "models" / "beta=1.0,seed=0").exists()


def test_pictures_that_are_not_drawn_any_more_go(tmp_path):
    make(tmp_path, "grid.png")
    write_pictures(tmp_path, {"a.png": b"1", "b.png": b"1"})
    write_pictures(tmp_path, {"b.png": b"2", "c.png": b"2"})
    assert names(tmp_path) == [PICTURES, "b.png", "c.png", "grid.png"]
    assert [path.name for path in listed_pictures(tmp_path)] == ["b.png", "c.png"]
    assert (tmp_path / "b.png").read_bytes() == b"2"


def test_every_picture_is_listed_whenever_writing_stops(tmp_path, monkeypatch):
    write_pictures(tmp_path, {"a.png": b"1", "b.png": b"1"})
    written, write = [], Path.write_bytes

    def stops(path, content):
        if path.suffix == ".png":  # and not their list
            if written:
                raise KeyboardInterrupt
            written.append(path)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", stops)
    with pytest.raises(KeyboardInterrupt):
        write_pictures(tmp_path, {"c.png": b"2", "d.png": b"2"})
    assert [path.name for path in listed_pictures(tmp_path)] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize(
    "name", ["../x.png", "{folder}/x.png", "..", "sub/x.png", "a\0.png", "x.txt", "", ".x.png"]
)
def test_a_list_that_was_tampered_with_deletes_nothing_elsewhere(tmp_path, name):
    run = make(tmp_path / "run", "config.toml", "sub/x.png", "x.txt", ".x.png")
    make(tmp_path, "x.png")
    (run / PICTURES).write_text(name.format(folder=tmp_path) + "\n")
    before = names(tmp_path)
    write_pictures(run, {})
    assert names(tmp_path) == before
    (run / PICTURES).write_text(name.format(folder=tmp_path) + "\n")
    clear_run(run)
    assert names(tmp_path) == [
        n for n in before if n not in (f"run/{PICTURES}", "run/config.toml")
    ]


def test_a_list_that_cannot_be_read_lists_nothing(tmp_path):
    (tmp_path / PICTURES).write_bytes(b"\xff\xfe\n")
    make(tmp_path, "grid.png")
    assert listed_pictures(tmp_path) == []
