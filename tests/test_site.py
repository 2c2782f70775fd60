"""The documentation site: no warning, nothing loaded from a network, no dead link."""

import re
import subprocess
import sys
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]


@cache
def ids_of(page):
    return set(re.findall(r' id="([^"]+)"', page.read_text(encoding="utf-8")))


def leads_somewhere(page, url):
    """True if file and place exist."""
    path, _, place = unquote(url).partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.is_file() and (not place or place in ids_of(target))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    options = [
        "-W",
        "-q",
        "-D",
        "nb_execution_mode=off",
        "-b",
        "html",
        "docs",
        str(tmp_path / "site"),
    ]
    command = [sys.executable, "-m", "sphinx", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [*(tmp_path / "site").rglob("*.html")]
    assert {"index.html", "search.html", "api/priors.html"} <= {
        path.relative_to(tmp_path / "site").as_posix() for path in pages
    }
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img)[^>]* src="([^"]+)"', text)
        loaded += re.findall(r'<link [^>]*rel="stylesheet"[^>]*href="([^"]+)"', text)
        loaded += re.findall(r'<link [^>]*href="([^"]+)"[^>]*rel="stylesheet"', text)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page
        links = loaded + re.findall(r'<a [^>]*href="([^"]+)', text)
        local = [url.split("?")[0] for url in links if not re.match(r"[a-z]+:", url)]
        assert not [url for url in local if not leads_somewhere(page, unescape(url))], page
