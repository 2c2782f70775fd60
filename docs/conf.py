"""Configuration of the documentation site: ``python -m sphinx -W -b html docs build/site``.

`reference.py` writes the pages of the API; the chapters of ``guides/`` are copied here and run.
"""

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import inspect
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS)]

import reference  # noqa: E402  # beside this file

from pyro_mivae import Variant  # noqa: E402

project = "pyro-mivae"
html_title = "pyro-mivae"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["_*", "*.py"]  # chapters lie in learn/
highlight_language = "text"  # indented blocks are commands and formulas
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [  # other libraries, whose inventories a build without a network lacks
    (r"py:.*", r"(torch|pyro|numpy|np|matplotlib|collections|pathlib|nn|abc|typing)\..*"),
    (r"py:.*", r"Tensor|Axes|Figure"),
    (
        r"py:class",
        r"pyro_mivae\..*|Row|Interval|Mode|Precision|tuple\[int",
    ),  # types of our own in signatures
]

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
nb_custom_formats = {".py": "reference.read_chapter"}
nb_execution_mode = "cache"  # a chapter runs again when its code has changed
nb_execution_timeout = 600  # seconds per cell, for slow machines
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_output_stderr = "remove"  # progress and what Pyro logs
nb_merge_streams = True  # what a cell prints is one box
os.environ.pop("MPLBACKEND", None)  # the kernel's own shows figures on the page

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_search_summary = False  # from a disk a browser does not fetch the pages found
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
mathjax_path = "tex-svg.js"  # one file without fonts, which browsers would not read from a disk


def prepare(app: Sphinx) -> None:
    """Writes the pages that are made of other files of the repository."""
    reference.write_pages(DOCS / "api")
    changes = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    keep(changes.replace("](docs/", "]("), DOCS / "changelog.md")
    chapters = sorted((DOCS.parent / "guides").glob("*.py"))
    for chapter in chapters:
        keep(chapter.read_text(encoding="utf-8"), DOCS / "learn" / chapter.name)
    for stale in {path.name for path in (DOCS / "learn").glob("*.py")} - {
        c.name for c in chapters
    }:
        (DOCS / "learn" / stale).unlink()


def keep(text: str, path: Path) -> None:
    """Writes a file unless it says the same: a new one would be read and run again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def public_bases(app: Sphinx, name: str, value: type, options: object, bases: list[type]) -> None:
    """Shows the nearest public base of a class in place of internal ones."""
    shown = reference.documented()
    for base in value.__mro__[1:]:
        if base in shown or not base.__module__.startswith("pyro_mivae."):
            bases[:] = [base]
            break


def constructor(
    app: Sphinx, what: str, name: str, value: Any, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Shows the arguments of ``__init__`` where ``__new__`` takes any."""
    if what != "class" or not issubclass(value, Variant):
        return None
    found = inspect.signature(value.__init__, bound_method=True)
    hidden = {"show_annotation": False, "show_return_annotation": False}
    return inspect.stringify_signature(found, **hidden), returns


def link_within_site(app: Sphinx, name: str, source: list[str]) -> None:
    """Turns links to files outside ``docs/`` into links to their pages."""
    source[0] = source[0].replace("](../CHANGELOG.md)", "](changelog.md)")


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.reference | None:
    """Finds a public name by its last part, as docstrings and annotations name it."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"]
    name = name.rpartition(".")[2] if name.startswith("pyro_mivae.") else name
    objects = env.domains.python_domain.objects
    found = sorted((key for key in objects if key.endswith(f".{name}")), key=len)
    if not found:
        return None
    entry = objects[found[0]]
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, found[0]
    )


def lead_back(app: Sphinx, page: str, template: str, context: Any, tree: object) -> None:
    """Corrects links from source to reference: viewcode names one module for all of a file."""
    objects = app.env.domains.python_domain.objects

    def correct(link: re.Match[str]) -> str:
        start, name, url = link.groups()
        named = [k for k, o in objects.items() if k.endswith(f".{name}") and o.docname in url]
        return f"{start}#{objects[min(named, key=len)].node_id}"

    if page.startswith("_modules/"):
        back = r'(id="([^"]+)">\s*<a class="viewcode-back" href="([^"#]+))#[^"]+'
        context["body"] = re.sub(back, correct, context["body"])


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Ships MathJax with the pages, so that equations need no network."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if error is None and package and package.origin:
        source = Path(package.origin).parent / "static" / "mathjax" / mathjax_path
        shutil.copyfile(source, app.outdir / "_static" / mathjax_path)


def setup(app: Sphinx) -> None:
    """Connects the steps above."""
    app.connect("builder-inited", prepare)
    app.connect("source-read", link_within_site)
    app.connect("autodoc-process-bases", public_bases)
    app.connect("autodoc-process-signature", constructor)
    app.connect("missing-reference", resolve)
    app.connect("html-page-context", lead_back)
    app.connect("build-finished", copy_mathjax)
