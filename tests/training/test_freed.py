"""What a training held is freed when it returns, before the collector comes."""

import gc
import weakref

import pytest
import torch

from pyro_mivae.engine.cuda_graphs import Recording
from pyro_mivae.training import fit, trainer


@pytest.fixture
def held(monkeypatch):
    """References to trainers, to the data that they held, and to what took their steps."""
    references = {}

    def noted(self):
        for name in ("x", "objective", "optimiser"):
            references[name] = weakref.ref(getattr(self, name))
        if self.recorded is not None:
            references["epoch"] = weakref.ref(self.recorded)
        references["trainer"] = weakref.ref(self)

    monkeypatch.setattr(trainer.Trainer, "restore_best", noted)
    return references


@pytest.mark.parametrize("means", ["eager", "staged", "recorded"])
def test_nothing_is_kept(x, make, held, monkeypatch, means):
    if means == "recorded":
        monkeypatch.setattr(trainer, "recorder_for", Recording)
    engine = "staged" if means == "recorded" else means
    vae = make("beta", beta=lambda step: 1.0 + step)
    torch.optim.Adam(make().parameters())  # torch's first one keeps the frames that made it
    gc.collect()
    gc.disable()
    try:
        fit(vae, x, epochs=5, batch_size=20, engine=engine, validation=0.3, lr_schedule="cosine")
        kept = [name for name, reference in held.items() if reference() is not None]
    finally:
        gc.enable()
    assert ("epoch" in held) == (means == "recorded")
    assert kept == []
