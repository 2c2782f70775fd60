"""Rules of the source: imports, names, lengths, and what is stated in one place."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mivae.figures import FIGURES, SIDES, parse

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyro_mivae"
LAYERS = (
    "compat interrupts errors ranks memory progress inputs arguments options figures tables "
    "schedules networks sites handlers traces distributions spherical priors likelihoods models "
    "guides bounds terms elbo engine posterior evidence diagnostics variants pairs data training "
    "metrics plots report runs cli __main__"
).split()
FOR_USERS = "pyro_mivae.cli.skeletons."  # files that a user's own begin with
OPTION_NAMES = ("mi_weight", "kl_weights", "barber_agakov_bound")
TEXT = re.compile(r"[\w\[\]*]+")
HEAVY = ("torchvision", "matplotlib", "sklearn", "scipy", "jinja2", "click", "PIL", "tqdm")
MOST_LINES, MOST_LINES_OF_A_VARIANT, MOST_OPTIONS = 400, 100, 8
TREES = {
    ".".join(("pyro_mivae", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): (path, ast.parse(path.read_text(encoding="utf-8")))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def is_package(module: str) -> bool:
    return TREES[module][0].name == "__init__.py"


def imported(module: str, tree: ast.AST, whole: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, in functions and for type checkers too."""
    parts = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level + whole] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from (f"{name}.{alias.name}" for alias in node.names)


def imports() -> Iterator[tuple[str, str]]:
    """Pairs of a module and a name of ours that it imports."""
    for module, (_, tree) in TREES.items():
        for name in imported(module, tree, is_package(module)):
            if name.split(".")[0] == "pyro_mivae":
                yield module, name


def layer_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def defining(name: str) -> str:
    """The file that an imported name stands for: what a package re-exports is its own file's."""
    while name not in TREES:
        name, _, last = name.rpartition(".")
        if name in TREES and is_package(name):
            for found in imported(name, TREES[name][1], whole=True):
                if found.endswith(f".{last}") and found != f"{name}.{last}":
                    return defining(found)
    return name


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for module, (_, tree) in TREES.items():
        yield from ((module, node) for node in tree.body if isinstance(node, ast.ClassDef))


def options_of(node: ast.ClassDef) -> list[str] | None:
    """The keyword-only parameters of a class's own constructor."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return [argument.arg for argument in item.args.kwonlyargs]
    return None


def test_imports_only_upwards():
    wrong = []
    for module, name in imports():
        if module == "pyro_mivae" or module.startswith(FOR_USERS):
            continue
        layer, target = layer_of(module), layer_of(name)
        assert layer in LAYERS, f"{module} belongs to no layer: name it in LAYERS"
        assert target in LAYERS, f"{module} imports {name}, which is in no layer"
        if LAYERS.index(target) > LAYERS.index(layer):
            wrong.append(f"{module} imports {name}: upwards")
    assert not wrong


def test_an_upward_import_would_be_seen():
    tree = ast.parse("def f():\n    from ..elbo import base\n    from ..errors import ShapeError")
    found = list(imported("pyro_mivae.networks.mlp", tree))
    assert found == ["pyro_mivae.elbo.base", "pyro_mivae.errors.ShapeError"]
    assert (
        defining("pyro_mivae.elbo.MutualInformationELBO") == "pyro_mivae.elbo.mutual_information"
    )


def test_no_files_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = defaultdict(set)
    for module, name in imports():
        if not is_package(module):
            graph[module].add(defining(name))
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in sorted(graph[module] - {module}):
                visit(target, (*path, module))
            done.add(module)

    for module in list(graph):
        visit(module, ())


def test_init_files_only_reexport():
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    for module, (path, tree) in TREES.items():
        if is_package(module):
            for node in tree.body:
                assert isinstance(node, allowed), f"{path}:{node.lineno} does more than re-export"


def test_import_and_training_leave_heavy_packages_alone():
    code = "import sys, pyro; before = set(sys.modules); import pyro_mivae as mi; " + (
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before})); import torch; "
        "mi.fit(mi.VAE((4,)), torch.rand(800, 4), epochs=1, batch_size=2, progress=False); "
        "print(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, by_training = map(str.split, out.stdout.splitlines())
    assert not set(imported) & set(HEAVY)
    assert not {"torch._dynamo", "sympy"} & set(by_training)


def test_public_names_differ_by_more_than_capitals():
    import pyro_mivae

    names = [name.lower() for name in pyro_mivae.__all__]
    assert len(names) == len(set(names))


def test_a_public_class_name_stands_once():
    counts = Counter(node.name for _, node in classes() if not node.name.startswith("_"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_a_subclass_repeats_no_parameter_of_its_parents():
    known = {node.name: node for _, node in classes()}
    wrong = []
    for module, node in classes():
        own = set(options_of(node) or [])
        parents = [base.id for base in node.bases if isinstance(base, ast.Name)]
        while parents:
            parent = known.get(parents.pop())
            if parent is not None:
                if both := own & set(options_of(parent) or []):
                    wrong.append(f"{module}: {node.name} repeats {sorted(both)} of {parent.name}")
                parents += [base.id for base in parent.bases if isinstance(base, ast.Name)]
    assert not wrong


def test_public_constructors_have_few_options():
    many = {
        node.name: options
        for _, node in classes()
        if not node.name.startswith("_") and len(options := options_of(node) or []) > MOST_OPTIONS
    }
    assert not many


def test_files_are_short():
    folders = ("pyro_mivae", "tests", "benchmarks", "examples", "guides")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in paths
    }
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}
    papers = {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, (path, tree) in TREES.items()
        if any(layer_of(module) == "variants" and own_name(node) for node in tree.body)
    }
    assert len(papers) > 5
    assert {name: n for name, n in papers.items() if n > MOST_LINES_OF_A_VARIANT} == {}


def own_name(node: ast.AST) -> bool:
    """Tells whether a node is a class with a ``name`` for the command line."""
    return isinstance(node, ast.ClassDef) and any(
        isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "name"
        for item in node.body
    )


def test_docstrings_begin_with_a_noun():
    wrong = []
    for module, (_, tree) in TREES.items():
        first = (ast.get_docstring(tree) or "").split(maxsplit=1)[:1]
        assert first, f"{module} has no docstring"
        if re.fullmatch(r"What|Whether|How|Which|When|Where|Who", first[0]):
            wrong.append(module)
    assert not wrong


def private_names(tree: ast.AST) -> Iterator[str]:
    """Private names of torch and Pyro: in imports, and in dotted names that begin with them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        for name in names:
            if re.fullmatch(r"(torch|pyro)(\.\w+)*\._[a-z]\w*(\.\w+)*", name):
                yield name


def test_private_names_of_torch_and_pyro_stand_in_one_file():
    wrong = [
        f"{module}: {name}"
        for module, (_, tree) in TREES.items()
        if module != "pyro_mivae.compat"
        for name in private_names(tree)
    ]
    assert not wrong


def texts(node: ast.AST) -> list[str]:
    """Words that a literal, or a tuple of literals, consists of."""
    found = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
    return [word for text in found if isinstance(text, str) for word in TEXT.findall(text)]


def stated_keys(tree: ast.AST) -> Iterator[str]:
    """Keys with a site, index or side that are written out, made by hand, or taken apart."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    names, sides = "|".join(FIGURES), "|".join(SIDES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in told:
            for word in texts(node):
                found = parse(word)
                if found is not None and word != found.name and word not in OPTION_NAMES:
                    yield word
        elif isinstance(node, ast.JoinedStr):
            first, last = texts(node.values[0]), texts(node.values[-1])
            if re.fullmatch(f"({names})_", "".join(first)) or re.fullmatch(
                rf"_({sides}|se)", "".join(last)
            ):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = [word for argument in node.args for word in texts(argument)]
            if node.func.attr in ("startswith", "removeprefix", "partition"):
                yield from (word for word in words if re.match(f"({names})(_|$)", word))
            elif node.func.attr in ("endswith", "removesuffix", "rpartition"):
                yield from (w for w in words if re.fullmatch(f"_?({names}|{sides}|se)", w))


def test_keys_of_figures_are_made_and_taken_apart_in_one_file():
    wrong = [
        f"{module}: {word}"
        for module, (_, tree) in TREES.items()
        if module != "pyro_mivae.figures"
        for word in stated_keys(tree)
    ]
    assert not wrong, "use key, parse, interval, ... of pyro_mivae.figures"


@pytest.mark.parametrize(
    "code",
    [
        'a["mi_lower"]',
        '"rate kl_z[3]".split()',
        'f"mi_{site}"',
        'f"{name}_se"',
        'name.startswith("kl_")',
        'name.endswith(("_lower", "_upper"))',
    ],
)
def test_a_key_written_out_would_be_seen(code):
    assert list(stated_keys(ast.parse(code)))
    assert not list(stated_keys(ast.parse('f"{a}_of"; b["rate"]; name.startswith("val_")')))
