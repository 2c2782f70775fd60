"""Runs, read from their folders."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyro_mivae.data import Dataset
from pyro_mivae.errors import PyroMivaeWarning, RunError
from pyro_mivae.inputs import fingerprint_all
from pyro_mivae.metrics import how_measured
from pyro_mivae.metrics.summary import summarise
from pyro_mivae.runs.build import approve, build_variant
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.run_folder import CONFIG, METRICS, runs_of_seeds
from pyro_mivae.training import (
    History,
    Identity,
    TrainingOptions,
    describe_model,
    differences,
    has_checkpoint,
    in_words,
    read_checkpoint,
    versions,
)
from pyro_mivae.training.checkpoint import Checkpoint, kept_weights
from pyro_mivae.variants import Variant
from pyro_mivae.variants.checks import check_weights


@dataclass(frozen=True)
class Run:
    """A training run: its folder, configuration and model, in ``eval`` mode, with its history."""

    folder: Path
    config: RunConfig
    vae: Variant
    history: History
    finished: bool  # True if training came to its end

    def __repr__(self) -> str:
        model = f"{self.config.variant} on {self.config.data}"
        return f"Run({self.folder}: {model}, {len(self.history)} epochs)"

    def dataset(self, root: str | Path | None = None) -> Dataset:
        """Loads the data that it was trained on."""
        dataset = self.config.load_dataset(root)
        check_same_data(self.config, dataset, self.folder)
        return dataset

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the weights."""
        return fingerprint_all(self.vae.state_dict())

    def measured(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Reads the measured figures and their protocol."""
        metrics, protocol = read_metrics(self.folder / METRICS)
        if protocol.get("weights", self.weights) != self.weights:
            raise RunError(
                f"{self.folder / METRICS} was measured with other weights than the checkpoint's; "
                "measure again with pyro-mivae evaluate"
            )
        return metrics, protocol

    def summary(self) -> str:
        """Formats the main figures as a small table."""
        metrics, protocol = self.measured()
        return summarise(metrics, self.vae.num_categories, notes_of(protocol), self.vae.noise)


def notes_of(protocol: Mapping[str, Any]) -> list[str]:
    """Returns remarks on measured figures: pixels, likelihood, condition, labels, annealing."""
    pixels = protocol.get("binarize", "none")
    told = "" if pixels.startswith("none") else f"binarize {pixels}"
    annealed = "ais" in protocol.get("information", {})
    gap = f"gap: {how_measured(protocol, 'log_px_ais_gap')}" if annealed else ""
    own = (protocol.get(name, "") for name in ("likelihood", "condition", "labels"))
    remarks = told, *own, gap
    return [remark for remark in remarks if remark]


def open_run(folder: str | Path, *, trust: bool = False) -> Run:
    """Opens a run folder; its checkpoint is read with ``weights_only=True``.

    A prior or guide from a file is code. It runs if a training of this user ran the same file
    before, and otherwise only with ``trust``.

    Example:
        >>> open_run("runs/infocat-digits").history["loss"][-1]  # doctest: +SKIP
    """
    folder = Path(folder)
    return read_run(folder, approve(read_config(folder), folder, trust=trust))


def read_run(folder: Path, config: RunConfig) -> Run:
    """Reads a run from its folder."""
    if not has_checkpoint(folder):
        raise RunError(
            f"{folder} holds no checkpoint yet; train it first, with pyro-mivae train "
            f"{config.variant} --resume --run {folder}"
        )
    state = read_checkpoint(folder)
    vae = build_variant(config, config.data_shape or ())
    check_belongs(config, vae, state, folder)
    try:
        vae.load_state_dict(kept_weights(state))
    except Exception as error:  # torch raises a dozen kinds on weights that do not fit
        reason = " ".join(str(error).split())
        raise RunError(
            f"the checkpoint in {folder} does not fit its configuration: {reason}; restore a "
            "copy, or train again"
        ) from error
    check_weights(vae)
    return Run(
        folder,
        config,
        vae.eval(),
        History(state["history"]),
        finished=state["finished"],
    )


def check_belongs(config: RunConfig, vae: Variant, state: Checkpoint, folder: Path) -> None:
    """Checks that a checkpoint belongs to the training of a configuration."""
    trained = Identity.from_state(state)
    options = asdict(TrainingOptions(**config.training))
    ours: dict[str, Any] = {name: options.get(name) for name in trained.options}
    ours["training images"] = config.fingerprints["training images"]
    theirs = {**trained.options, "training images": trained.data["training images"]}
    differing = [*differences(ours, theirs), *trained.other_model(describe_model(vae))]
    if differing:
        raise RunError(
            f"{CONFIG} and {state['file'].name} in {folder} are not of one run: "
            f"{in_words(differing)} (here is {CONFIG}); restore the replaced file, or train again"
        )
    if config.versions["pyro-mivae"] != versions()["pyro-mivae"]:
        warnings.warn(
            f"the run in {folder} was made by pyro-mivae {config.versions['pyro-mivae']}, and "
            f"this is {versions()['pyro-mivae']}",
            PyroMivaeWarning,
            stacklevel=3,
        )


def read_config(folder: Path) -> RunConfig:
    """Reads a run folder's configuration."""
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        raise RunError(f"cannot read {folder}: Permission denied")
    if not os.path.isdir(folder):
        raise RunError(f"there is no run folder {folder}; make one with pyro-mivae train")
    if not (folder / CONFIG).is_file():
        runs = runs_of_seeds(folder)
        if runs:
            names = ", ".join(map(str, runs))
            raise RunError(f"{folder} holds the runs of several seeds; give one of them: {names}")
        raise RunError(
            f"{folder} is not a run folder: it has no {CONFIG}; pyro-mivae train writes one. For "
            "a folder of fit, build the model and call mi.load(folder, into=vae)"
        )
    return RunConfig.read(folder / CONFIG)


def check_same_data(config: RunConfig, dataset: Dataset, folder: Path) -> None:
    """Checks that data are those of a run."""
    then = config.fingerprints
    changed = [name for name, print_ in dataset.fingerprints.items() if then.get(name) != print_]
    if dataset.data_shape != config.data_shape:
        changed = [f"shape {dataset.data_shape} for {config.data_shape}"]
    if changed:
        files = config.data if config.given is None else f"{config.data} or {config.given}"
        raise RunError(
            f"{files} has changed since {folder} was made: other {', '.join(changed)}; "
            "restore the data, or train again"
        )


def read_metrics(path: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Reads ``metrics.json``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = {k: math.nan if v is None else float(v) for k, v in content["metrics"].items()}
        return metrics, dict(content["protocol"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"it holds no {error}" if isinstance(error, KeyError) else error
        raise RunError(f"cannot read {path}: {told}; make it with pyro-mivae evaluate") from error
