"""Data flows one way: a module imports only what stands above it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pyro_mivae"
LAYERS = (
    "interrupts errors inputs arguments sizes figures tables schedules networks sites handlers "
    "traces distributions priors likelihoods models guides bounds terms elbo engine diagnostics "
    "variants data training metrics plots report runs cli_options cli __main__"
).split()
HEAVY = ("torchvision", "matplotlib", "sklearn", "scipy", "jinja2", "click", "PIL", "tqdm")
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree: ast.AST, path: Path) -> Iterator[str]:
    """Dotted names that a module imports, those inside its functions too."""
    package = ("pyro_mivae", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_upwards(path):
    layer = layer_of(path)
    if layer == "__init__":  # re-exports, so it stands below all
        return
    assert layer in LAYERS, f"{path} belongs to no layer: name it in LAYERS"
    for name in imported(ast.parse(path.read_text()), path):
        if name.split(".")[0] != "pyro_mivae":
            continue
        target = name.split(".")[1]
        assert target in LAYERS, f"{path} imports {name}, which is in no layer"
        assert LAYERS.index(target) <= LAYERS.index(layer), f"{path} imports {name}: upwards"


def test_an_upward_import_would_be_seen():
    path = PACKAGE / "networks" / "mlp.py"
    tree = ast.parse("def f():\n    from ..elbo import base\n    from ..errors import ShapeError")
    assert list(imported(tree, path)) == ["pyro_mivae.elbo.base", "pyro_mivae.errors.ShapeError"]


def test_init_files_only_reexport():
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    for path in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, allowed), f"{path}:{node.lineno} does more than re-export"


def test_import_leaves_heavy_packages_alone():
    code = "import sys, pyro; before = set(sys.modules); import pyro_mivae; " + (
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(out.stdout.split()) & set(HEAVY)


def test_public_names_differ_by_more_than_capitals():
    import pyro_mivae

    names = [name.lower() for name in pyro_mivae.__all__]
    assert len(names) == len(set(names))
