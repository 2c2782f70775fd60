"""The pages in a real browser: they load, fit a phone, follow the colour scheme, and are quiet."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from pyro_mivae.data import load_dataset
from pyro_mivae.runs import RunConfig, compare, train_run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
WIDTHS = (320, 400, 1200)
GROUNDS = {"light": "rgb(246, 248, 250)", "dark": "rgb(13, 17, 23)"}
# Headless windows have a least width, so that each page lies in frames of the widths wanted.
WRAPPER = """<!doctype html><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    for (const folded of page.querySelectorAll("details")) folded.open = true;
    const images = [...page.querySelectorAll("img")];
    const cut = [...page.querySelectorAll("*")].filter(part =>
      part.scrollWidth > part.clientWidth + 1
      && frame.contentWindow.getComputedStyle(part).overflowX === "hidden");
    const seen = images.filter(image => image.offsetWidth > 0);
    return {{
      page: frame.dataset.page, width: frame.clientWidth,
      overflow: root.scrollWidth - root.clientWidth,
      cut: cut.length, images: images.length,
      broken: images.filter(image => !image.naturalWidth).length,
      seen: [...new Set(seen.map(image => image.className))],
      ground: getComputedStyle(page.body).backgroundColor,
      ink: getComputedStyle(page.body).color,
    }};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="needs Chromium or Chrome"),
]


def browse(folder, pages, scheme="light"):
    """What the browser finds in each page at each width, and what its console says."""
    frames = "".join(
        f'<iframe data-page="{page}" src="{page}" style="border:0;width:{width}px;height:600px">'
        "</iframe>"
        for page in pages
        for width in WIDTHS
    )
    (folder / "wrapper.html").write_text(WRAPPER.format(frames=frames))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}"]
    command += ["--blink-settings=preferredColorScheme=" + {"dark": "0", "light": "1"}[scheme]]
    done = subprocess.run(
        [*command, (folder / "wrapper.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), console


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of two tiny runs, and of their comparison."""
    folder = tmp_path_factory.mktemp("pages")
    digits = load_dataset("digits")
    images = (digits.x_train[:120, 0] * 255).byte().numpy()
    np.savez(folder / "few.npz", images=images, labels=digits.y_train[:120].numpy())
    options = {
        "infocat": {"num_categories": 3, "latent_dim": 6, "warm_start": 5},
        "infomax": {"latent_dim": 4},
    }
    for variant, model in options.items():
        config = RunConfig(variant, str(folder / "few.npz"), model=model, training={"epochs": 2})
        train_run(config, folder / variant)
    compare(folder / "infocat", folder / "infomax").write(folder)
    return folder, ["infocat/report.html", "infomax/report.html", "compare.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_load_fit_a_phone_and_follow_the_scheme(pages, scheme):
    folder, names = pages
    found, console = browse(folder, names, scheme)
    assert not console
    assert len(found) == len(names) * len(WIDTHS)
    for frame in found:
        assert frame["width"] in WIDTHS
        assert frame["images"] >= 12, frame
        assert frame["broken"] == 0, frame
        assert frame["overflow"] <= 0, frame
        assert frame["cut"] == 0, frame  # what does not fit can be scrolled to
        over = ["on-dark"] * (scheme == "dark")
        assert frame["seen"] == ["on-light", *over], frame
        assert frame["ground"] == GROUNDS[scheme], frame


def test_a_page_that_is_broken_is_seen_to_be(pages, tmp_path):
    folder, names = pages
    page = (folder / names[0]).read_text()
    breaks = {
        "wide.html": page.replace("<main>", '<main><div style="width:500px">wide</div>'),
        "image.html": re.sub(r"base64,[^\"]{20}", "base64,", page, count=1),
        "cut.html": page.replace(
            "<main>", '<main><div style="overflow:hidden"><p style="width:500px">wide</p></div>'
        ),
        "loud.html": page.replace("<main>", "<main><script>missing()</script>"),
    }
    for name, text in breaks.items():
        assert text != page
        (tmp_path / name).write_text(text)
    found, console = browse(tmp_path, list(breaks))
    by_page = {name: [f for f in found if f["page"] == name] for name in breaks}
    assert [f["overflow"] > 0 for f in by_page["wide.html"]] == [True, True, False]
    assert [f["cut"] for f in by_page["cut.html"]] == [1, 1, 0]
    assert all(f["broken"] == 1 for f in by_page["image.html"])
    assert len(console) == len(WIDTHS)
    assert "missing is not defined" in console[0]
