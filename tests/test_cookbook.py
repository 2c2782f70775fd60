"""Every page of the cookbook runs, can be imported for nothing, and plugs in as it says."""

import ast
import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.cli import run_command
from pyro_mivae.options import flags_of
from pyro_mivae.runs import load

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "guides").glob("[!0-9]*.py"))  # that are not chapters
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def commands(path):
    """The ``pyro-mivae`` commands that a page tells its readers to give."""
    text = re.sub(r"\\\n#\s*", "", path.read_text())
    return [shlex.split(line) for line in re.findall(r"^#     pyro-mivae (.*)$", text, re.M)]


def plugs(path):
    """The names that a page's commands plug in, by ``FILE.py:NAME``."""
    return {word.split(":")[1] for line in commands(path) for word in line if ".py:" in word}


def import_page(path):
    spec = importlib.util.spec_from_file_location(f"page_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images on which a command runs in a moment."""
    file = tmp_path_factory.mktemp("data") / "noise.npz"
    generator = np.random.default_rng(0)
    images = generator.random((60, 8, 8)).astype(np.float32)
    np.savez(file, images=images, labels=np.arange(60) % 3)
    return file


@each_page
def test_page_runs(path, monkeypatch, tmp_path, capsys):
    figure = tmp_path / "figures" / "page.png"
    monkeypatch.setattr(sys, "argv", [path.name, "--smoke", "--out", str(figure)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    out = capsys.readouterr().out
    assert str(figure) in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    sections = re.findall(r"^# ## (\d+)\. ", path.read_text(), re.M)
    assert sections == [str(n) for n in range(1, len(sections) + 1)]


@each_page
def test_import_runs_nothing(path, capsys):
    state = torch.get_rng_state()
    import_page(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not pyro.get_param_store().keys()
    assert capsys.readouterr() == ("", "")


@each_page
def test_plugs_in_as_it_says(path, data, monkeypatch, tmp_path, quick, encoder_side):
    monkeypatch.chdir(ROOT)
    assert commands(path)
    for number, command in enumerate(commands(path)):
        run = tmp_path / str(number)
        options = ["--data", str(data), "--epochs", "1", "--run", str(run)]
        if "start_weight" in flags_of(mi.VARIANTS[command[1]].options()):
            options += ["--warm-start", "2"]
        assert run_command([*command, *options]) == 0
        vae = load(run)
        parts = {type(vae.guide).__name__, type(vae.prior).__name__}
        assert {word.split(":")[1] for word in command if ".py:" in word} <= parts


@each_page
def test_what_plugs_in_knows_nothing_of_the_library(path):
    source = path.read_text()
    parts = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    assert plugs(path)
    for name in plugs(path):
        assert not re.search(r"\bmi\b|pyro_mivae", ast.get_source_segment(source, parts[name]))


@each_page
def test_cells_alternate_text_and_code(path):
    cells = re.findall(r"^# %%(.*)$", path.read_text(), re.M)
    assert cells[0] == " [markdown]"
    assert cells[-1] == " [markdown]"
    assert all(a != b for a, b in zip(cells, cells[1:]))
