"""What is given to several trainings: one for each, and none for two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyro_mivae.errors import OptionError


def one_for_each(name: str, values: Any, count: int) -> list[Any]:
    """Checks that an option has a value for each model.

    Args:
        name: The option.
        values: What was given.
        count: How many models there are.

    Returns:
        The values.

    Raises:
        OptionError: If there are more or fewer, or it is no sequence.
    """
    try:
        several = list(values)
    except TypeError:
        raise OptionError(
            f"{name}={values!r} for {count} models; give a sequence with one for each"
        ) from None
    if len(several) != count:
        raise OptionError(f"{name} holds {len(several)} for {count} models; give one for each")
    return several


def check_models(vaes: Any) -> list[Any]:
    """Checks that models can be trained beside each other.

    Args:
        vaes: The models.

    Returns:
        The models.

    Raises:
        OptionError: If there is none, one is no sequence of them, or two share parameters.
    """
    try:
        models = list(vaes)
    except TypeError:
        raise OptionError(
            f"a {type(vaes).__name__} given; fit_many takes a sequence of models, fit takes one"
        ) from None
    if not models:
        raise OptionError("no model given; give one or more")
    owner: dict[int, int] = {}
    for number, vae in enumerate(models):
        for tensor in (*vae.parameters(), *vae.buffers()):
            other = owner.setdefault(id(tensor), number)
            if other != number:
                raise OptionError(
                    f"models {other} and {number} share parameters, so that neither would be "
                    "trained as it is alone; give each its own, by copy.deepcopy for one"
                )
    return models


def check_folders(runs: Sequence[str | Path] | None, count: int) -> list[Path | None]:
    """Checks that each model has a folder of its own, if any has.

    Args:
        runs: The folders, or None.
        count: How many models there are.

    Returns:
        The folder of each.

    Raises:
        OptionError: If there is not one for each, or one for two.
    """
    if runs is None:
        return [None] * count
    folders = [Path(run) for run in one_for_each("runs", runs, count)]
    owner: dict[Path, int] = {}
    for number, folder in enumerate(folders):
        other = owner.setdefault(folder.resolve(), number)
        if other != number:
            raise OptionError(
                f"models {other} and {number} are both to be kept in {folder}; give each a folder "
                "of its own"
            )
    return [*folders]
