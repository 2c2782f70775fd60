"""Runs, read from their folders."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyro_mivae.data import Dataset
from pyro_mivae.diagnostics import diagnose
from pyro_mivae.errors import PyroMivaeWarning, RunError
from pyro_mivae.figures import (
    CRITIC,
    DIGITS,
    FIGURES,
    LOWER,
    UPPER,
    error_of,
    interval,
    key,
    label,
    parsed,
    sites_of,
)
from pyro_mivae.inputs import fingerprint_all
from pyro_mivae.metrics import how_measured
from pyro_mivae.runs.build import approve, build_variant
from pyro_mivae.runs.config import RunConfig
from pyro_mivae.runs.run_folder import CONFIG, METRICS, runs_of_seeds
from pyro_mivae.tables import align, write_error, write_interval, write_number
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

Row = tuple[str, str, str]  # label, figure and standard error


def summarise(
    metrics: Mapping[str, float],
    num_categories: int | None = None,
    notes: Collection[str] = (),
    noise: Collection[str] = (),
) -> str:
    """Formats the main figures as a small table, followed by notes and the diagnoses.

    Each has its standard error over the images; for an interval the larger one of its ends.

    Example:
        >>> print(summarise({"distortion": 20.0, "kl_z": 5.0, "rate": 5.0, "elbo": -25.0}))
        nats per test image
          distortion, -E log p(x|code)    20.00
          KL of z                          5.00
          rate, sum of the KLs             5.00
          ELBO                           −25.00
    """
    lines = ["nats per test image", *_indented(_nats(metrics))]
    lines += [f"  ({note})" for note in notes]
    parts = [] if num_categories else list(parsed(metrics, "reconstruction_r2"))
    if len(parts) > 1:
        alone = [(f"{k.site} alone" if k.site else "the whole code", str(k)) for k, _ in parts]
        lines.append("share of the variance reconstructed")
        lines += _indented((name, *_row(metrics, k, digits=2)[1:]) for name, k in alone)
    for about in ("labels", "factors"):
        shown = [f.name for f in FIGURES.values() if (f.about, f.tables) == (about, "summary")]
        rows = [_row(metrics, k) for k in shown if not math.isnan(metrics.get(k, math.nan))]
        if rows:
            seen = about == "labels" and "classification_accuracy" in metrics
            told = "of which training saw some" if seen else "which training did not see"
            lines += [f"against {about}, {told}", *_indented(rows)]
    used = metrics.get("categories_used", math.nan)
    if not math.isnan(used):
        of = f" of {num_categories}" if num_categories else ""
        lines.append(f"{label('categories_used')}: {used:.0f}{of}")
    stands_out = diagnose(metrics, noise=noise)
    if stands_out:
        lines += ["what stands out", *(f"  {diagnosis}" for diagnosis in stands_out)]
    return "\n".join(lines)


def _nats(metrics: Mapping[str, float]) -> Iterator[Row]:
    sites = sites_of(metrics)
    costs = [key("kl", site) for site in sites]
    for name in ("distortion", *costs, "rate", "elbo", "log_px", "log_px_ais", "log_px_ais_gap"):
        if name in metrics:
            yield _row(metrics, name)
    for name in ("mi", *["fitted_mi"] * bool(metrics.get("saturated")), "generative_mi"):
        whole = write_interval(*interval(metrics, name))
        for site in ("", *sites):
            ends = [key(name, site, side) for side in (LOWER, UPPER)]
            told = write_interval(*interval(metrics, name, site))
            news = name == "mi" or not site or told not in (whole, write_number(math.nan))
            if news and all(end in metrics for end in ends):
                errors = filter(math.isfinite, (error_of(metrics, end) for end in ends))
                margin = write_error(max(errors, default=math.nan))
                yield f"information {label(key(name, site))}", told, margin
    for k, _ in parsed(metrics):
        if k.side == CRITIC or k.name == "barber_agakov":
            name, number, margin = _row(metrics, str(k))
            yield f"information {name}", "≥ " * (k.side != CRITIC) + number, margin


def _row(metrics: Mapping[str, float], name: str, digits: int | None = None) -> Row:
    """A figure, with the digits of its unit."""
    found = next(k for k, _ in parsed({name: 0.0}))
    digits = DIGITS[found.figure.unit] if digits is None else digits
    margin = write_error(error_of(metrics, name), digits)
    return found.label, write_number(metrics[name], digits), margin


def _indented(rows: Iterable[Row]) -> list[str]:
    return [f"  {line}" for line in align(list(rows))]


@dataclass(frozen=True)
class Run:
    """A training run: its folder, configuration and model, in ``eval`` mode, with its history."""

    folder: Path
    config: RunConfig
    vae: Variant
    history: History
    finished: bool  # True if training came to its end

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
    """Returns remarks on measured figures: pixels, labels in training, annealed data."""
    pixels = protocol.get("binarize", "none")
    told = "" if pixels.startswith("none") else f"binarize {pixels}"
    annealed = "ais" in protocol.get("information", {})
    gap = f"gap: {how_measured(protocol, 'log_px_ais_gap')}" if annealed else ""
    remarks = told, protocol.get("likelihood", ""), protocol.get("labels", ""), gap
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
            f"the checkpoint in {folder} does not fit its configuration: {reason}"
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
        raise RunError(
            f"{config.data} has changed since {folder} was made: other {', '.join(changed)}; "
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
