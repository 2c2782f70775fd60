"""Outputs of a trained run: figures, report page, samples and codes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.data import (
    PROTOCOLS,
    Dataset,
    RawImages,
    read_given,
    read_images,
    split_indices,
)
from pyro_mivae.data.binarize import TRAIN_SEED, settled_pixels
from pyro_mivae.errors import DataError, OptionError, RunError, WriteError
from pyro_mivae.inputs import fingerprint_all
from pyro_mivae.metrics.summary import summarise
from pyro_mivae.plots import grid_figure, plot_samples, render_png
from pyro_mivae.plots.grids import as_pixels
from pyro_mivae.progress import bars
from pyro_mivae.ranks import workers
from pyro_mivae.runs.run import Run, notes_of
from pyro_mivae.runs.run_folder import METRICS, write_json
from pyro_mivae.training import (
    Writer,
    atomic_path,
    read_checkpoint,
    resolve_device,
    suitable_threads,
    write_file,
)
from pyro_mivae.training.checkpoint import kept_weights
from pyro_mivae.variants import Variant
from pyro_mivae.variants.encoding import Generated, What, encoded

CELL = 32  # smaller images are enlarged to at least this many pixels
ENCODE_BATCH = 512
OF_NUMPY = ("file", "allow_pickle")  # no names of arrays in `numpy.savez`
EVALUATION_BATCH = 128  # what its work per image compares with


def evaluate_run(
    run: Run,
    dataset: Dataset,
    *,
    device: str = "auto",
    full: bool = False,
    progress: bool = False,
    say: Callable[[str], object] = lambda text: None,
    **options: Any,
) -> dict[str, float]:
    """Measures a run's model on the test data and writes ``metrics.json``.

    Example:
        >>> run = mi.runs.open_run("runs/infocat-digits")  # doctest: +SKIP
        >>> evaluate_run(run, run.dataset())["elbo"]  # doctest: +SKIP
    """
    from pyro_mivae.metrics import duration, evaluate, forecast

    vae = run.vae.to(resolve_device(device))
    x_train = settled_pixels(dataset.x_train, dataset.binarize, TRAIN_SEED)
    options = {name: value for name, value in options.items() if value is not None}
    what: dict[str, Any] = {
        "labels": dataset.y_test,
        "train": (x_train, dataset.y_train, dataset.factors_train, dataset.given_train),
        "factors": dataset.factors_test,
        "given": dataset.given_test,
        "full": full,
        **options,
    }
    with ExitStack() as held, suitable_threads(vae, EVALUATION_BATCH):
        if workers().is_first:
            with suppress(WriteError):  # the figures can still be printed
                held.enter_context(Writer(run.folder))
        if full or options:
            seconds = forecast(vae, dataset.x_test, **what)
            say(f"evaluating on the test data: this will take {duration(seconds)}")
        num_labels = run.config.labels or 0
        metrics = evaluate(vae, dataset.x_test, progress=progress, num_labels=num_labels, **what)
        if not workers().is_first:
            return dict(metrics)
        pixels = f"{dataset.binarize}: {PROTOCOLS[dataset.binarize]}"
        protocol = {**metrics.protocol, "binarize": pixels, "weights": run.weights}
        if run.config.given is not None:
            protocol["condition"] = (
                f"given the condition u of each datum, {Path(run.config.given).name}: log p(x) "
                "is log p(x | u), and I(x; code) is I(x; code | u)"
            )
        if num_labels:
            protocol["labels"] = (
                f"training used {num_labels} of {len(dataset.x_train)} labels, equally many of "
                f"each class, drawn by the run's seed, {run.config.training['seed']}"
            )
        try:
            if fingerprint_all(kept_weights(read_checkpoint(run.folder))) != run.weights:
                raise RunError(f"{run.folder} was trained again meanwhile; measure it again")
            write_json(run.folder / METRICS, {"metrics": dict(metrics), "protocol": protocol})
        except WriteError:
            say(summarise(metrics, vae.num_categories, notes_of(protocol), vae.noise))
            raise
    return dict(metrics)


def report_run(
    run: Run, dataset: Dataset, *, device: str = "auto", progress: bool = False
) -> Path:
    """Writes a run's pictures and ``report.html``; evaluates it first if needed.

    ``progress`` shows bars on a terminal.

    Example:
        >>> run = mi.runs.open_run("runs/infocat-digits")  # doctest: +SKIP
        >>> report_run(run, run.dataset())  # doctest: +SKIP
    """
    from pyro_mivae.report import ReportData, write_report

    vae = run.vae.to(resolve_device(device))
    with Writer(run.folder), suitable_threads(vae, EVALUATION_BATCH):
        if not (run.folder / METRICS).exists():
            evaluate_run(run, dataset, device=device, progress=progress)
        metrics, protocol = run.measured()
        data = ReportData(
            vae,
            dataset.x_test,
            dataset.y_test,
            run.history,
            metrics,
            class_names=dataset.class_names or None,
            factors=dataset.factors_test,
            factor_names=dataset.factor_names,
            column_names=dataset.column_names,
            num_train=len(dataset.x_train),
            given=dataset.given_test,
        )
        with bars(enabled=progress):
            return write_report(run.folder, data, protocol=protocol, config=run.config.describe())


def write_samples(
    run: Run,
    out: Path,
    *,
    count: int,
    category: int | str | Mapping[str, int | str] | None = None,
    what: Generated = "mean",
    given: int | str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Writes a square grid of samples from the prior as a PNG: pictures, lines or bars.

    They are the likelihood's means, or data drawn from it, see `Variant.sample`. ``given`` is a
    label, the condition of all, or a file whose rows are the samples' conditions in turn.

    Example:
        >>> run = mi.runs.open_run("runs/infocat-digits")  # doctest: +SKIP
        >>> write_samples(run, Path("grid.png"), count=64, category=3)  # doctest: +SKIP
    """
    from torchvision.utils import save_image

    check_out(out, ".png", overwrite)
    u: Any = given
    if isinstance(given, str):
        read = read_given(given)
        u = read[torch.arange(count) % len(read)]
    check_given(run, given, u)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        images = run.vae.sample(count, category=category, what=what, given=u)
    if len(run.vae.data_shape) != 3:
        columns = math.ceil(math.sqrt(count))
        rows = math.ceil(count / columns)
        figure, ax = grid_figure(rows, columns, run.vae.data_shape, label_width=0.1)
        plot_samples(ax, images, columns=columns)
        write_file(out, render_png(figure))
        return
    scale = max(1, math.ceil(CELL / max(images.shape[-2:])))
    images = as_pixels(images.cpu()).repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    with atomic_path(out) as scratch:
        save_image(images, scratch, nrow=math.ceil(math.sqrt(count)), padding=2, pad_value=1.0)


def write_codes(
    run: Run,
    data: str,
    out: Path,
    *,
    what: What = "mean",
    num_draws: int | None = None,
    given: str | None = None,
    root: str | None = None,
    overwrite: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Encodes all images of a data set, in order, and writes arrays as ``.npz``.

    Images are resized and made binary as those of the run were; a random binarisation is fixed,
    and depends on their order. Without a resize they must have the same size.

    An array per site has its name, as `Variant.encode` returns it: ``(n, size)``, for draws
    ``(num_draws, n, size)``. Beside means, ``<site>_sd`` holds the standard deviations of each
    continuous site that has any. ``split`` says of each datum if `load_dataset` takes it for
    ``train`` or ``test``; ``labels`` are indices into ``class_names``, if the data have labels.

    Example:
        >>> run = mi.runs.open_run("runs/infocat-digits")  # doctest: +SKIP
        >>> write_codes(run, "more.npz", Path("codes.npz"))  # doctest: +SKIP
    """
    import numpy as np

    check_out(out, ".npz", overwrite)
    config = run.config
    raw = read_images(data, root=root or config.data_root, image_size=config.image_size)
    images = raw.images
    if len(images) == 0 or tuple(images.shape[1:]) != config.data_shape:
        raise DataError(
            f"{data} holds data of shape {tuple(images.shape[1:])}; the run {run.folder} was "
            f"trained on {config.data_shape}: give data of that shape"
        )
    u = None if given is None else read_given(given, len(images))
    check_given(run, given, u)
    images = settled_pixels(run.vae.check_data(images), config.binarize)
    args = run.vae.arguments(images, u)
    codes = _encoded(run.vae, args, what, num_draws)
    others: dict[str, Any] = {}
    if what == "mean":
        spreads = _encoded(run.vae, args, "sd").items()
        kept = {n: v for n, v in spreads if n not in run.vae.categories and bool((v > 0).any())}
        others = {f"{name}_sd": value.cpu().numpy() for name, value in kept.items()}
    arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in codes.items()}
    others |= _labels_and_split(raw)
    if both := sorted(arrays.keys() & {*others, *OF_NUMPY}):
        raise OptionError(
            f"sites {both} of {run.folder} have the names of other arrays in the file, or of "
            "options of numpy.savez; encode them by mi.load(folder).encode(x)"
        )
    with atomic_path(out) as scratch:
        np.savez(scratch, **arrays, **others)
    return {name: array.shape for name, array in (arrays | others).items()}


def _encoded(
    vae: Variant, args: Sequence[Tensor], what: What, num_draws: int | None = None
) -> dict[str, Tensor]:
    """Encodes images, with their condition, in batches."""
    batches = zip(*(part.split(ENCODE_BATCH) for part in args), strict=True)
    parts = [encoded(vae, batch, what, num_draws) for batch in batches]
    along = 1 if what == "draws" else 0
    return {site: torch.cat([part[site] for part in parts], along) for site in parts[0]}


def _labels_and_split(raw: RawImages) -> dict[str, Any]:
    """Arrays of a data set's labels and names, and of its split."""
    import numpy as np

    count, found = len(raw.images), {}
    if raw.num_train is not None or count > 1:
        split = np.full(count, "train")
        test: Any = slice(raw.num_train, None)
        if raw.num_train is None:
            test = split_indices(count, raw.labels)[1].numpy()
        split[test] = "test"
        found["split"] = split
    if raw.labels is not None:
        found |= {"labels": raw.labels.numpy(), "class_names": np.array(raw.class_names)}
    return found


def check_given(run: Run, given: int | str | None, u: Any) -> None:
    """Checks that a condition is that of a run: a label, or conditions of its shape."""
    shape = run.config.given_shape
    if shape is not None and given is None:
        raise OptionError(
            f"{run.folder} was trained with a condition of shape {shape}; give that of each "
            "datum by given=FILE"
        )
    if shape is None and given is not None:
        raise OptionError(f"given={given}: {run.folder} was trained without one; leave it out")
    if isinstance(u, Tensor) and u.dim() > 1 and tuple(u.shape[1:]) != shape:
        raise DataError(
            f"given={given} holds conditions of shape {tuple(u.shape[1:])}; give those of shape "
            f"{shape} on which the run {run.folder} was trained"
        )


def check_out(out: Path, suffix: str, overwrite: bool) -> None:
    """Checks that a file may be written."""
    if out.suffix.lower() != suffix:
        raise OptionError(f"out={out}; allowed are names ending in {suffix}")
    if not out.parent.is_dir():
        raise OptionError(f"out={out}: there is no folder {out.parent}; make it first")
    if os.path.isdir(out) or (os.path.exists(out) and not overwrite):
        raise OptionError(f"out={out} exists; replace it with overwrite=True, or choose another")
