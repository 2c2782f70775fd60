"""Pages of the API reference: every public name, by purpose."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyro_mivae as mi

INTERNAL = """
PRIOR VARIANT attach_prior base_of FlowDistribution NormalHead ENOUGH_DATA score_code weight
FINGERPRINTS RawImages default_root read_images duration forecast how_measured critic_estimates
is_finished ModelOptions nearest
""".split()  # listed in packages for other packages


class Page(NamedTuple):
    """A page of the reference."""

    title: str
    text: str
    names: dict[str, str | None]
    """Names to list of each module of ``pyro_mivae``, separated by spaces; all if None."""


PAGES = {
    "variants": Page(
        "Variants",
        "A variant is a model/guide pair with the objective of one paper: :doc:`/variants`.",
        {"variants": None},
    ),
    "training": Page(
        "Training",
        "The loop, a faster step for Pyro's SVI (:doc:`/speed`), and schedules of weights.",
        {
            "training": "fit fit_many refit_prior History TrainingOptions",
            "engine": "SVI",
            "schedules": None,
        },
    ),
    "objectives": Page(
        "Objectives",
        "Losses for ``pyro.infer.SVI(loss=...)``: an ELBO, weights, and terms.",
        {"elbo": None, "handlers": "weigh_sites"},
    ),
    "terms": Page(
        "Terms",
        "What an objective adds to the ELBO: information and penalties. :doc:`/how_to/own_term`.",
        {"terms": None},
    ),
    "priors": Page(
        "Priors",
        "Programs that draw the code: :doc:`when to use which </own_parts>`, "
        ":doc:`/how_to/own_prior`.",
        {"priors": None},
    ),
    "guides": Page(
        "Guides",
        "Programs that draw the code from the data: :doc:`when to use which </own_parts>`, "
        ":doc:`/how_to/own_guide`.",
        {"guides": None},
    ),
    "likelihoods": Page(
        "Likelihoods",
        "Distributions of the data, made of the decoder's output: "
        ":doc:`when to use which </own_parts>`.",
        {"likelihoods": None},
    ),
    "distributions": Page(
        "Distributions",
        "Distributions of priors and guides that torch and Pyro do not have.",
        {"distributions": None, "spherical": "SphericalUniform PowerSpherical"},
    ),
    "networks": Page(
        "Networks and critics",
        "Plain torch modules: :doc:`/how_to/own_network`.",
        {"networks": None},
    ),
    "bounds": Page(
        "Bounds on information",
        "Pure functions of tensors, in nats. :doc:`/bounds` measures them.",
        {"bounds": None},
    ),
    "evaluation": Page(
        "Evaluation",
        "Checks and figures of any pair, and metrics of its codes: :doc:`/evaluation`.",
        {"pairs": None, "diagnostics": None, "evidence": None, "metrics": None},
    ),
    "data": Page("Data", "Data sets as tensors: :doc:`/how_to/own_data`.", {"data": None}),
    "runs": Page(
        "Runs",
        "Models in files, run folders, seeds and sweeps: :doc:`/run_folders`.",
        {"runs": None},
    ),
    "plots": Page(
        "Plots", "Pictures of a trained model, drawn on a matplotlib Axes.", {"plots": None}
    ),
    "errors": Page(
        "Errors", "Every error of this package is a `PyroMivaeError`.", {"errors": None}
    ),
}


def members(module: str, names: str | None) -> dict[str, Any]:
    """Public objects of a module by their shortest public path."""
    source = importlib.import_module(f"pyro_mivae.{module}")
    listed = names.split() if names else getattr(source, "__all__", None) or own(source)
    return {
        f"pyro_mivae.{name}" if name in mi.__all__ else f"pyro_mivae.{module}.{name}": getattr(
            source, name
        )
        for name in listed
        if name not in INTERNAL
    }


def own(module: Any) -> list[str]:
    """Public functions and classes that a module defines, as they stand in it."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def page(title: str, text: str, names: dict[str, str | None]) -> str:
    """A page in reStructuredText: a table of its names, then each in full."""
    found = {path: value for pair in names.items() for path, value in members(*pair).items()}
    called = {
        path: value
        for path, value in found.items()
        if inspect.isroutine(value) or inspect.isclass(value)
    }
    lines = [title, "=" * len(title), ""]
    lines += [f".. py:module:: pyro_mivae.{module}" for module in names]
    lines += [".. py:currentmodule:: None"]
    lines += ["", text]  # beside which the names of the modules are found; a table would lose them
    lines += ["", ".. autosummary::", "   :nosignatures:", ""]
    lines += [f"   ~{path}" for path in called]
    for path, value in called.items():
        if inspect.isclass(value):
            kind = "exception" if issubclass(value, BaseException) else "class"
            lines += ["", f".. auto{kind}:: {path}", "   :members:", "   :show-inheritance:"]
            if value is mi.Variant:  # its methods stand in several files
                lines += [
                    "   :inherited-members: PyroModule, Module",
                    "   :exclude-members: forward",
                ]
        else:
            lines += ["", f".. autofunction:: {path}"]
    for path in found.keys() - called.keys():
        lines += ["", f".. py:data:: {path}", "", f"   {described(found[path])}"]
    return "\n".join(lines) + "\n"


def described(value: object) -> str:
    """A constant in words: the names of a table, else its value."""
    if isinstance(value, Mapping):
        return f"Table by name: {', '.join(f'``{name}``' for name in value)}."
    return f"``{value!r}``"


def documented() -> set[object]:
    """Every class and function that a page shows."""
    pairs = [pair for one in PAGES.values() for pair in one.names.items()]
    values = [value for pair in pairs for value in members(*pair).values()]
    return {v for v in values if inspect.isroutine(v) or inspect.isclass(v)}


def write_pages(folder: Path) -> None:
    """Writes a page for each entry, and leaves equal ones alone."""
    listed = {path for one in PAGES.values() for p in one.names.items() for path in members(*p)}
    names = [name for name in mi.__all__ if not inspect.ismodule(getattr(mi, name))]
    missing = {f"pyro_mivae.{name}" for name in names} - listed
    if missing:
        raise ValueError(f"no page of docs/reference.py lists {', '.join(sorted(missing))}")
    folder.mkdir(exist_ok=True)
    for name, one in PAGES.items():
        path, text = folder / f"{name}.rst", page(*one)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def read_chapter(text: str) -> Any:
    """Reads a chapter in percent format as a notebook of Python."""
    import jupytext  # of the extra ``docs``, which a test of the names does without
    from nbformat.v4 import new_code_cell

    notebook = jupytext.reads(text, fmt="py:percent")
    sharp = new_code_cell("%config InlineBackend.figure_format = 'retina'")
    sharp.metadata["tags"] = ["remove-cell"]
    notebook.cells.insert(1, sharp)  # after the title
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook
