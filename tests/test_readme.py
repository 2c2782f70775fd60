"""The README's script runs as it stands, only shorter."""

import re
from pathlib import Path

import pytest

import pyro_mivae as mi

README = Path(__file__).parents[1] / "README.md"
PAGES = [README, *sorted((README.parent / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def text():
    return README.read_text(encoding="utf-8")


def test_the_script_runs_and_learns(text, few_digits, quick, encoder_side):
    (script,) = re.findall(r"```python\n(import pyro\n.*?)```", text, flags=re.S)
    quick = script.replace("epochs = 80", "epochs = 2").replace(
        "mi.InfoCatVAE(digits.data_shape)", "mi.InfoCatVAE(digits.data_shape, warm_start=20)"
    )
    assert quick.count("epochs = 2") == quick.count("warm_start=20") == 1
    names = {}
    exec(compile(quick, str(README), "exec"), names)
    assert set(names["objective"].ledger) >= {"elbo", "kl_z", "kl_c", "mi_c_mean"}
    assert names["objective"].kl_weights["z"]() == 1.0
    (critic,) = re.findall(r"```python\n(critic = .*?)```", text, flags=re.S)
    exec(compile(critic, str(README), "exec"), names)
    vae = mi.VAE(names["digits"].data_shape)
    names["elbo"].loss_and_grads(vae.model, vae.guide, names["digits"].x_train[:64])
    assert all(p.grad is not None for p in names["critic"].parameters())
    page = (README.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for written in (text, page):
        (report,) = re.findall(r"```python\n(report = .*?)```", written, flags=re.S)
        exec(compile(report, str(README), "exec"), names)
        assert names["results"]["elbo"] == names["report"]["elbo"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    for link in links:
        assert (page.parent / link).is_file()
        if link.endswith(".png"):
            assert (page.parent / link).read_bytes().startswith(b"\x89PNG")
    assert links or page is not README
