"""The priors and guides of the chapters plug into the command line, as the chapters say."""

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from pyro_mivae.cli import run_command
from pyro_mivae.runs import load

GUIDES = Path(__file__).parents[2] / "guides"
COMMAND = re.compile(r"^#     pyro-mivae (train .* own\.py:.*)$", re.M)
CHAPTERS = [path for path in sorted(GUIDES.glob("[0-9]*.py")) if COMMAND.search(path.read_text())]


def imports_and_classes(path):
    """The source of a chapter's imports and classes, and of the classes alone."""
    source = path.read_text()
    kept = (ast.Import, ast.ImportFrom, ast.ClassDef)
    nodes = [node for node in ast.parse(source).body if isinstance(node, kept)]
    parts = [(node, ast.get_source_segment(source, node)) for node in nodes]
    classes = [text for node, text in parts if isinstance(node, ast.ClassDef)]
    return "\n".join(text for _, text in parts), "\n".join(classes)


@pytest.mark.slow
@pytest.mark.usefixtures("quick", "encoder_side")
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_what_a_chapter_builds_plugs_in(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    source, classes = imports_and_classes(path)
    assert not re.search(r"\bmi\b|pyro_mivae", classes)  # it needs nothing of the library
    Path("own.py").write_text(source)
    generator = np.random.default_rng(0)
    np.savez("noise.npz", images=generator.random((40, 8, 8)).astype(np.float32))
    for number, line in enumerate(COMMAND.findall(path.read_text())):
        command = shlex.split(line)
        short = ["--data", "noise.npz", "--epochs", "1", "--run", f"run{number}"]
        short += ["--warm-start", "2"] if command[1] == "infocat" else []
        assert run_command([*command, *short]) == 0
        vae = load(Path(f"run{number}"))
        parts = {type(vae.prior).__name__, type(vae.guide).__name__}
        assert {word.split(":")[1] for word in command if ".py:" in word} <= parts
