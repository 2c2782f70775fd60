"""What a run was asked to do, as Python and as TOML."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from pyro_mivae.arguments import text
from pyro_mivae.data import DATASETS, Dataset, load_dataset
from pyro_mivae.errors import OptionError, RunError
from pyro_mivae.runs.options import MODEL_OPTIONS, default_options
from pyro_mivae.training import atomic_path

DEFAULT_DATA = "digits"
TRAINING_FLAGS = {
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "lr": "--lr",
    "lr_schedule": "--lr-schedule",
    "clip_norm": "--clip-norm",
    "patience": "--patience",
    "seed": "--seed",
    "engine": "--engine",
    "precision": "--precision",
}
FLAGS = {o.keyword: o.flag for o in MODEL_OPTIONS} | TRAINING_FLAGS


@dataclass(frozen=True)
class RunConfig:
    """What to train, on what, and how. What is left out is filled in by :meth:`complete`.

    Attributes:
        variant: Name of the variant, a key of ``VARIANTS``.
        data: Name of a data set, or path of an ``.npz`` file or folder; the digits if None.
        data_root: Folder of torchvision's data sets.
        image_size: Height and width to resize the images to.
        model: Keywords of the variant, and ``network``, ``prior`` and ``guide`` as text.
        training: Keywords of `fit`, among ``epochs``, ``batch_size``, ``lr``, ``lr_schedule``,
            ``clip_norm``, ``patience``, ``seed``, ``engine`` and ``precision``.
        data_shape: Shape of one image, filled in.
        num_train: Number of training images, filled in.
        num_test: Number of test images, filled in.

    Raises:
        OptionError: If a text is empty.
    """

    variant: str
    data: str | None = None
    data_root: str | None = None
    image_size: tuple[int, int] | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    data_shape: tuple[int, ...] | None = None
    num_train: int | None = None
    num_test: int | None = None

    def __post_init__(self) -> None:
        texts = {"variant": self.variant, "data": self.data, "root": self.data_root}
        for name, value in {**texts, **self.model, **self.training}.items():
            if isinstance(value, str):
                text()(name, value)

    def complete(self, dataset: Dataset, taken: Mapping[str, Any]) -> RunConfig:
        """Fills in the defaults, which depend on the data.

        Args:
            dataset: The data that were loaded.
            taken: The variant's own keywords and their defaults.

        Returns:
            The configuration with every option's value.
        """
        data = self.data or DEFAULT_DATA
        defaults = default_options(data, self.variant, len(dataset.x_train))
        model = {**taken, **{k: v for k, v in defaults.items() if k in taken}, **_set(self.model)}
        training = {k: v for k, v in defaults.items() if k in TRAINING_FLAGS}
        return replace(
            self,
            data=absolute_path(data),
            data_root=None if self.data_root is None else str(Path(self.data_root).resolve()),
            model={k: absolute_program(v) for k, v in _set(model).items()},
            training={**training, **_set(self.training)},
            data_shape=dataset.data_shape,
            num_train=len(dataset.x_train),
            num_test=len(dataset.x_test),
        )

    def resumed_from(self, stored: RunConfig, folder: Path) -> RunConfig:
        """Takes a stored run's configuration on, if nothing that is given contradicts it.

        Args:
            stored: What the run was started with.
            folder: Its folder, for the message.

        Returns:
            The stored configuration.

        Raises:
            OptionError: If something given differs from it.
        """
        given: dict[str, Any] = {"VARIANT": self.variant}
        known: dict[str, Any] = {"VARIANT": stored.variant}
        if self.data is not None:
            given["--data"], known["--data"] = absolute_path(self.data), stored.data
        if self.image_size is not None:
            given["--image-size"], known["--image-size"] = self.image_size, stored.image_size
        for ours, theirs in ((self.model, stored.model), (self.training, stored.training)):
            for keyword, value in _set(ours).items():
                given[FLAGS[keyword]] = absolute_program(value)
                known[FLAGS[keyword]] = theirs.get(keyword)
        for flag, value in given.items():
            if value != known[flag]:
                go_on = f"give {known[flag]}" if flag == "VARIANT" else "leave it out"
                raise OptionError(
                    f"{flag} {value} given, but the run in {folder} was started with "
                    f"{known[flag]}; {go_on} to resume, or start anew with --overwrite"
                )
        return replace(stored, data_root=self.data_root or stored.data_root)

    def over(self, stored: RunConfig) -> RunConfig:
        """Takes from a stored run of the same variant what is not given here.

        Args:
            stored: What the run was to do.

        Returns:
            The configuration to start anew with.
        """
        if self.variant != stored.variant:
            return self
        return replace(
            stored,
            data=self.data or stored.data,
            data_root=self.data_root or stored.data_root,
            image_size=self.image_size or stored.image_size,
            model={**stored.model, **_set(self.model)},
            training={**stored.training, **_set(self.training)},
        )

    def load_dataset(self, root: str | Path | None = None) -> Dataset:
        """Loads the data, split.

        Args:
            root: Folder of torchvision's data sets, in place of ``data_root``.

        Returns:
            The data set.

        Raises:
            DataError: If it cannot be had.
        """
        return load_dataset(
            self.data or DEFAULT_DATA, root=root or self.data_root, image_size=self.image_size
        )

    @property
    def command(self) -> str:
        """The command that makes the same run."""
        words = ["pyro-mivae", "train", self.variant, "--data", self.data or DEFAULT_DATA]
        if self.image_size is not None:
            words += ["--image-size", "{}x{}".format(*self.image_size)]
        for keyword, value in {**self.model, **self.training}.items():
            if value is not False:
                words += [FLAGS[keyword]] + ([] if value is True else [str(value)])
        return shlex.join(words)

    def describe(self) -> dict[str, Any]:
        """Gives all of it as plain values, with the command beside them."""
        return {**_set(asdict(self)), "command": self.command}

    def write(self, path: Path) -> None:
        """Writes the configuration as TOML.

        Args:
            path: The file.
        """
        import tomli_w

        content = {"version": metadata.version("pyro-mivae"), **_set(asdict(self))}
        with atomic_path(path) as scratch:
            scratch.write_text(tomli_w.dumps(content), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Reads what `write` wrote.

        Args:
            path: The file.

        Raises:
            RunError: If it cannot be read.
        """
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
            content.pop("version", None)
            for key in ("image_size", "data_shape"):
                if key in content:
                    content[key] = tuple(content[key])
            return cls(**content)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
            raise RunError(f"cannot read the run's configuration {path}: {error}") from error


def absolute_path(data: str) -> str:
    """Makes a path absolute, so that the run can be read from anywhere; a name stays.

    Args:
        data: A data set's name or path.
    """
    return data if data in DATASETS else str(Path(data).resolve())


def absolute_program(value: Any) -> Any:
    """Makes the file of ``FILE.py:NAME`` absolute; every other value stays.

    Args:
        value: An option's value.
    """
    if not isinstance(value, str) or ".py:" not in value:
        return value
    file, name = value.rsplit(":", 1)
    return f"{Path(file).resolve()}:{name}"


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
