"""Ways to train the same variant, each as a callable that trains for one epoch, a turn, at a time.

Whoever trains by a call of its own for all epochs (`mi.fit`, pythae's trainer) runs in a thread
that waits at the end of each epoch for its next turn, so that all can be timed in turns.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from threading import Semaphore, Thread
from typing import Any

import pyro
import torch
from pyro.infer import TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

import pyro_mivae as mi
from benchmarks.handwritten import HANDWRITTEN, make_adam, train

EPOCHS = 100_000  # never reached
Turn = Callable[[], object]


class Paced:
    """A training of many epochs that waits after each for its next turn.

    Args:
        run: Trains; what it is given is to be called at the end of each epoch.
    """

    def __init__(self, run: Callable[[Callable[..., None]], object]) -> None:
        self._run = run
        self._go, self._done = Semaphore(0), Semaphore(0)
        self._closing = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._main, args=(torch.get_num_threads(),), daemon=True)
        self._thread.start()

    def __call__(self) -> None:
        """Trains for one epoch."""
        if self._error is None:
            self._go.release()
            self._done.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the training."""
        self._closing = True
        self._go.release()
        self._thread.join()

    def _main(self, threads: int) -> None:
        torch.set_num_threads(threads)  # OpenMP's own for each thread
        self._go.acquire()
        try:
            if not self._closing:
                self._run(self._wait)
                self._error = RuntimeError("the training is over, and a turn was asked for")
        except _Closed:
            pass
        except BaseException as error:
            self._error = error
        self._done.release()

    def _wait(self, *_: object) -> None:
        self._done.release()
        self._go.acquire()
        if self._closing:
            raise _Closed


class _Closed(Exception):
    """Ends a training from within."""


def ours(vae: Any, x: Tensor, batch_size: int, **options: Any) -> Paced:
    """Trains by `mi.fit`, as it is by default or with options."""
    options = {"epochs": EPOCHS, "batch_size": batch_size, "device": x.device, **options}
    return Paced(lambda wait: mi.fit(vae, x, on_epoch=wait, **options))


def stock_svi(vae: Any, x: Tensor, batch_size: int) -> Turn:
    """Trains by Pyro's SVI and Adam on the variant's objective, checks as they are by default."""
    return _by_svi(pyro.infer.SVI, vae, x, batch_size)


def pyros_elbo(vae: Any, x: Tensor, batch_size: int) -> Turn:
    """Trains by Pyro's SVI and Pyro's ELBO; where c is summed out that one samples z's KL."""
    vae = vae.to(x.device).train()
    model, guide = (mi.weigh_sites(part, _weights(vae)) for part in (vae.model, vae.guide))
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if vae.category else TraceMeanField_ELBO()
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam(vae.optim_args), loss=elbo)
    return _in_own_store(lambda: _step_through(svi.step, x, batch_size))


def _weights(vae: Any) -> dict[str, float]:
    """The weights of the sites' KL divergences of a variant that is nothing but these."""
    return {"z": vae.beta} if isinstance(vae, mi.BetaVAE) else WITH_PYROS_ELBO[vae.name]


def our_svi(vae: Any, x: Tensor, batch_size: int, engine: str = "compiled") -> Turn:
    """Trains by `mi.SVI`, and is in all else as `stock_svi`."""
    return _by_svi(partial(mi.SVI, engine=engine), vae, x, batch_size)


def _by_svi(make: Callable[..., Any], vae: Any, x: Tensor, batch_size: int) -> Turn:
    vae = vae.to(x.device).train()
    objective = vae.objective().to(x.device)
    svi = make(vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), loss=objective)
    return _in_own_store(lambda: _step_through(svi.step, x, batch_size))


def by_hand(
    vae: Any,
    x: Tensor,
    batch_size: int,
    handwritten: type[nn.Module] | None = None,
    **compiling: Any,
) -> Turn:
    """Trains by the hand-written loss and loop, compiled if ``torch.compile`` is given options."""
    vae = vae.to(x.device).train()
    loss: Any = (handwritten or HANDWRITTEN[vae.name])(vae)
    optimiser = make_adam(vae)
    if compiling:
        loss = torch.compile(loss, **compiling)
    return lambda: train(loss, optimiser, x, batch_size)


def pythae(vae: Any, x: Tensor, batch_size: int) -> Paced:
    """Trains pythae's VAE by pythae's trainer, around networks of the same layers."""
    from benchmarks.pythae_vae import train_by_pythae

    return Paced(lambda wait: train_by_pythae(vae, x, batch_size, EPOCHS, wait))


def pyroved(vae: Any, x: Tensor, batch_size: int) -> Turn:
    """Trains pyroVED's VAE by pyroVED's trainer; the same widths, but no batch norm."""
    import pyroved as pv

    widths = [layer.out_features for layer in vae.guide.encoder.layers[::3]]
    device = x.device.type

    def build() -> Any:
        model = pv.models.iVAE(
            tuple(x.shape[-2:]),
            latent_dim=vae.latent_dim,
            hidden_dim_e=widths,
            hidden_dim_d=widths[::-1],
            activation="relu",
            device=device,
        )
        return pv.trainers.SVItrainer(model, device=device)

    with torch.random.fork_rng(), pyro.get_param_store().scope():
        trainer = build()
    loader = pv.utils.init_dataloader(x.squeeze(1), batch_size=batch_size)
    return _in_own_store(lambda: trainer.step(loader))


COMPILED = {"fullgraph": True, "dynamic": False}
ENGINES: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, staged": {"engine": "staged"},
    "ours, eager": {"engine": "eager"},
}
BASELINES = ("hand-written", "hand-written, compiled")
ALWAYS = (*BASELINES, *ENGINES, "ours, mi.SVI", "ours, stock SVI")
WITH_PYROS_ELBO: dict[str, dict[str, float]] = {
    "vae": {},
    "beta": {},
    "infomax": {"c": 0.0},
    "cat": {},
}
"""Variants whose loss Pyro's own ELBOs are, with the weights of their sites."""
PACKAGES = {"pythae": pythae, "pyroved": pyroved}
"""Other packages, which have a VAE alone."""


def missing_packages() -> list[str]:
    """Names the other packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def contenders_for(variant: str) -> tuple[str, ...]:
    """Names who can train a variant here; other packages only where they are installed."""
    others = set(PACKAGES) - set(missing_packages()) if variant == "vae" else ()
    pyros = ("Pyro's SVI and ELBO",) if variant in WITH_PYROS_ELBO else ()
    return (*ALWAYS, *pyros, *sorted(others))


def build(name: str, vae: Any, handwritten: type[nn.Module], x: Tensor, batch_size: int) -> Turn:
    """Builds a contender on a copy of the variant.

    Args:
        name: One of `contenders_for`.
        vae: The variant.
        handwritten: Its loss by hand.
        x: Images, on the device that is to train; as many as a turn trains on.
        batch_size: Images per step.
    """
    builders: dict[str, Callable[..., Turn]] = {
        "hand-written": partial(by_hand, handwritten=handwritten),
        "hand-written, compiled": partial(by_hand, handwritten=handwritten, **COMPILED),
        "ours, mi.SVI": our_svi,
        "ours, stock SVI": stock_svi,
        "Pyro's SVI and ELBO": pyros_elbo,
        **{name: partial(ours, **options) for name, options in ENGINES.items()},
        **PACKAGES,
    }
    return builders[name](copy.deepcopy(vae), x, batch_size)


def _step_through(step: Callable[[Tensor], object], x: Tensor, batch_size: int) -> None:
    for index in torch.randperm(len(x), device=x.device).split(batch_size):
        step(x[index])


def _in_own_store(turn: Turn) -> Turn:
    """Gives a turn a parameter store that the other contenders do not touch, and all checks."""
    state: dict[str, Any] = {"params": {}, "constraints": {}}

    @contextlib.contextmanager
    def own_world() -> Iterator[None]:
        with pyro.get_param_store().scope(state), pyro.validation_enabled(True):
            yield

    def own_turn() -> None:
        with own_world():
            turn()

    return own_turn
