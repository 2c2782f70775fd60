"""What the answers to the exercises share."""

import ast
from pathlib import Path

import pytest

GUIDES = Path(__file__).parents[2] / "guides"


@pytest.fixture
def chapter():
    """Runs the imports, functions and classes of a chapter, and returns their names."""

    def chapter(number):
        (path,) = GUIDES.glob(f"{number}_*.py")
        tree = ast.parse(path.read_text())
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        tree.body = [node for node in tree.body if isinstance(node, kinds)]
        names = {"__name__": path.stem}
        exec(compile(tree, str(path), "exec"), names)
        return type("Chapter", (), names)

    return chapter
