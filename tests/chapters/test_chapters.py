"""Every chapter of the cookbook keeps its form, asserts the numbers of its prose, and runs."""

import ast
import re
import runpy
import time
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "guides").glob("[0-9]*.py"))
MOST_CELLS = 30
MOST_SECONDS = 60

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


@cache
def cells_of(path):
    """The cells as pairs: True for prose, and the text without its comment signs."""
    parts = re.split(r"^# %%(.*)\n", path.read_text(), flags=re.M)
    assert not parts[0].strip(), "text before the first cell"
    kinds = [kind.strip() for kind in parts[1::2]]
    assert {*kinds} <= {"", "[markdown]"}
    uncommented = (re.sub(r"^# ?", "", text, flags=re.M) for text in parts[2::2])
    texts = [prose if kind else text for kind, prose, text in zip(kinds, uncommented, parts[2::2])]
    return [(bool(kind), text.strip()) for kind, text in zip(kinds, texts)]


def constants(code, *, asserted):
    """The numbers in some code, or in its asserts alone."""
    tree = ast.parse(code)
    roots = [n for n in ast.walk(tree) if isinstance(n, ast.Assert)] if asserted else [tree]
    nodes = (node for root in roots for node in ast.walk(root) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if type(node.value) in (int, float)}


def decimals(text):
    return {float(number) for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text)}


def stray_numbers(cells):
    """Decimals of the prose that no assert next to it has, and of formulas that no code has."""
    stray = []
    everything = constants("\n".join(text for prose, text in cells if not prose), asserted=False)
    for place, (is_prose, text) in enumerate(cells):
        if not is_prose:
            continue
        code_before = takewhile(lambda cell: not cell[0], reversed(cells[:place]))
        code_after = takewhile(lambda cell: not cell[0], cells[place + 1 :])
        near = [text for _, text in (*code_before, *code_after)]
        asserted = {number for code in near for number in constants(code, asserted=True)}
        text = re.sub(r"https?://\S+|`[^`]*`", "", text)
        formulas = re.findall(r"\$\$.*?\$\$|\$[^$]*\$", text, re.S)
        words = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.S)
        stray += sorted(decimals(words) - asserted)
        stray += sorted(decimals(" ".join(formulas)) - everything)
    return stray


def exercises(path):
    """The numbers of a chapter's exercises."""
    text = "\n".join(text for is_prose, text in cells_of(path) if is_prose)
    _, _, text = text.partition("## Exercises\n")
    text, _, _ = text.partition("\n## ")
    return [int(number) for number in re.findall(r"^(\d)\. ", text, re.M)]


@each_chapter
def test_form(path):
    cells = cells_of(path)
    prose = [text for is_prose, text in cells if is_prose]
    code = [text for is_prose, text in cells if not is_prose]
    assert len(cells) <= MOST_CELLS
    assert cells[0][0]
    assert re.match(r"# \S.*\?\n", prose[0]), "the title asks the chapter's question"
    assert re.search(
        r"^After this chapter you can\n+(\* .*\n(  .*\n)*){2,}", prose[0] + "\n", re.M
    )
    assert 2 <= len(exercises(path)) <= 3
    assert re.search(r"^## Sources\n[^#]*https://", prose[-1], re.M)
    assert 1 <= len(re.findall(r"\bsubplots\(", "\n".join(code))) <= 2, "a picture, or two"
    assert "The trap" in "\n".join(prose)
    if re.search(r"^import pyro$", "\n".join(code), re.M):
        assert ".format_shapes()" in "\n".join(code)
    for text in code:
        assert "print(" not in text or "assert" in text, f"prints without an assert:\n{text}"


@each_chapter
def test_numbers_of_the_prose_are_asserted(path):
    assert stray_numbers(cells_of(path)) == []


def test_a_stray_number_is_found():
    asserted = (False, "assert abs(gap - 0.33) < 0.01")
    assert (
        stray_numbers([asserted, (True, "The gap is 0.33 nats; see https://a.b/1312.6114.")]) == []
    )
    assert stray_numbers([asserted, (True, "It is 0.34 nats, or 0.33.")]) == [0.34]
    assert stray_numbers([asserted, (True, "At"), (False, "y = 0.5"), (True, "end 0.33")]) == [
        0.33
    ]
    assert stray_numbers([(False, "y = 0.5"), (True, "$y = 0.5$, `0.1`")]) == []
    assert stray_numbers([(False, "y = 0.5"), (True, "$y = 0.7$")]) == [0.7]


@each_chapter
def test_each_exercise_is_answered(path):
    number = path.stem.split("_")[0]
    answers = "\n".join(f.read_text() for f in Path(__file__).parent.glob("test_answers*.py"))
    for exercise in exercises(path):
        assert re.search(rf"^def test_{number}_{exercise}_\w+\(", answers, re.M)


def test_the_index_lists_each_chapter():
    listed = re.findall(r"\]\((\w+\.py)\)", (ROOT / "guides" / "README.md").read_text())
    assert listed == [path.name for path in CHAPTERS]


@pytest.mark.slow
@pytest.mark.usefixtures("wide")
@each_chapter
def test_chapter_runs(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    before = time.process_time()
    runpy.run_path(str(path), run_name="__main__")
    assert time.process_time() - before < MOST_SECONDS
    import matplotlib.pyplot as plt

    plt.close("all")
