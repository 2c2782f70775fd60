"""A model on a pretended device: codes, figures and the page are those of the CPU."""

import copy

import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.report import ReportData, write_report

FEW = {"iwae_samples": 8, "iwae_items": 8, "generative_items": 8, "subset": 16}


@pytest.fixture
def labels():
    return torch.arange(30) % 2


@pytest.mark.parametrize(
    "name", [*mi.VARIANTS, "soft", "uniform", "gaussian", "continuous-bernoulli"]
)
def test_looking_into_a_model(pretended, build, x, name):
    vae = build(name).to("cuda").eval()
    on_cpu = copy.deepcopy(vae).to("cpu")
    for images in (x, x.to("cuda")):
        for site, code in vae.encode(images).items():
            assert code.device.type == "cuda"
            torch.testing.assert_close(code.cpu(), on_cpu.encode(x)[site])
        assert vae.reconstruct(images, keep=[next(iter(vae.sites))]).device.type == "cuda"
    assert vae.sample(3).device.type == "cuda"
    if vae.num_categories:
        vae.sample(3, category=1)


def test_figures_wherever_the_data_are(pretended, quick, build, x, labels):
    vae = build("vae").eval()
    on_cpu = mi.evaluate(vae, x, labels, **FEW)
    vae.to("cuda")
    for data in ((x, labels), (x.to("cuda"), labels.to("cuda"))):
        assert dict(mi.evaluate(vae, *data, **FEW)) == pytest.approx(dict(on_cpu), nan_ok=True)


@pytest.mark.parametrize("name", ["infocat", "infogan"])
def test_figures_and_the_page(pretended, quick, build, x, labels, name, tmp_path):
    vae = build(name).to("cuda").eval()
    metrics = mi.evaluate(vae, x, labels, (x, labels, None), **FEW)
    data = ReportData(vae, x.double(), labels, mi.training.History(), dict(metrics))
    write_report(tmp_path, data, protocol=metrics.protocol)
    assert (tmp_path / "report.html").exists()
