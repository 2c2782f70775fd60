"""The code of the README and of the documentation runs, with fewer epochs."""

import re
import runpy
import shlex
import textwrap
from pathlib import Path

import pytest

import pyro_mivae as mi
from pyro_mivae.cli import run_command

README = Path(__file__).parents[1] / "README.md"
PAGES = [README, *sorted((README.parent / "docs").rglob("*.md"))]
OF_DATA = ("own_data", "colour_images", "tables", "series")  # blocks write what commands read
OTHERS = ("log", "processes", *OF_DATA)  # loggers of others; a script under torchrun
HOW_TO = [p for p in PAGES if p.parent.name == "how_to" and p.stem not in OTHERS]


@pytest.fixture(scope="module")
def text():
    return README.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_blocks_run_and_the_script_learns(text, few_digits, quick, encoder_side):
    lines, script, swap = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    names = {}
    for block in (lines, script):
        short = block.replace("40", "2").replace("data_shape)", "data_shape, warm_start=20)", 1)
        assert short.count("warm_start=20") == 1
        exec(compile(short, str(README), "exec"), names)
    exec(compile(swap.replace("40", "2"), str(README), "exec"), names)
    assert type(names["vae"].prior).__name__ == "VampPrior"
    assert len(names["history"]) == 2
    assert set(names["objective"].ledger) >= {"elbo", "kl_z", "kl_c", "mi_c_mean"}
    assert names["objective"].kl_weights["z"]() == 1.0
    (report,) = re.findall(r"```python\n(report = .*?)```", page("evaluation"), flags=re.S)
    exec(compile(report, "evaluation.md", "exec"), names)
    assert names["results"]["elbo"] == names["report"]["elbo"]
    (critic,) = re.findall(r"```python\n(critic = .*?)```", page("own_parts"), flags=re.S)
    exec(compile(critic, "own_parts.md", "exec"), names)
    vae = mi.VAE(names["digits"].data_shape)
    names["elbo"].loss_and_grads(vae.model, vae.guide, names["digits"].x_train[:64])
    assert all(p.grad is not None for p in names["critic"].parameters())


def page(name):
    return (README.parent / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_of_a_page_lead_to_files(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    for link in links:
        assert (path.parent / link).is_file()
        if link.endswith(".png"):
            assert (path.parent / link).read_bytes().startswith(b"\x89PNG")
    assert links or path is not README


def test_the_page_on_pairs_prints_what_it_shows(capsys):
    parts = re.findall(r"```python\n(.*?)```\n\n((?:    [^\n]*\n|\n)+)", page("pairs"), flags=re.S)
    assert len(parts) == 2
    names = {}
    for code, shown in parts:
        exec(compile(code, "pairs.md", "exec"), names)
        assert capsys.readouterr().out.strip() == textwrap.dedent(shown).strip()


@pytest.mark.slow
@pytest.mark.parametrize("path", HOW_TO, ids=lambda path: path.stem)
def test_the_blocks_of_a_how_to_run(path, few_digits, quick, encoder_side, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S):
        short = re.sub(r"epochs=(\d)0", r"epochs=\1", block)
        exec(compile(short, str(path), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_prior", "own_guide", "own_network"])
def test_the_file_of_a_how_to_is_a_part_by_name(name, few_digits, quick, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = page(f"how_to/{name}")
    (command,) = re.findall(r"^    pyro-mivae (train .*\.py:.*)$", text, flags=re.M)
    file, code = re.search(r"```python\n# (\w+\.py)\n(.*?)```", text, flags=re.S).groups()
    Path(file).write_text(code, encoding="utf-8")
    assert "vae" not in runpy.run_path(file)  # a command that reads the file trains once
    assert run_command([*command.split(), "--epochs", "1"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_DATA)
def test_the_blocks_and_commands_of_a_kind_of_data_run(
    name, quick, encoder_side, unmeasured, monkeypatch, tmp_path, capfd
):
    monkeypatch.chdir(tmp_path)
    short = re.sub(r"(epochs[= ])\d+", r"\g<1>2", page(f"how_to/{name}"))
    short = re.sub(r"(max_patches=|names, )500", r"\g<1>40", short).replace("32, 32", "12, 12")
    names, commands = {"__name__": "page"}, 0
    for block, line in re.findall(
        r"```python\n(.*?)```|^    (pyro-mivae [^\n]+)", short, re.S | re.M
    ):
        if block:
            if own := re.match(r"# (\w+\.py)\n", block):
                (tmp_path / own[1]).write_text(block, encoding="utf-8")
            exec(compile(block, name, "exec"), names)
        else:
            few = ["--epochs", "1"] if " train " in line else []
            assert run_command([*shlex.split(line)[1:], *few]) == 0, capfd.readouterr().err
            commands += 1
    assert commands
