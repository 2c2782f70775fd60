"""Pages made for tests, and parsed."""

import re
from html.parser import HTMLParser

import torch

from pyro_mivae.report import ReportData, write_report
from pyro_mivae.training import History

VOID = {"meta", "link", "img", "br"}
CURVES = ["loss_curves", "information_curves"]
LABELS = torch.arange(24) % 4


class Page(HTMLParser):
    """A parsed page, which fails on tags that do not pair."""

    def __init__(self, html):
        super().__init__()
        self.html, self.open, self.tags, self.texts = html, [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def panels(self):
        return [attrs["id"] for attrs in self.all("article")]


def history(*columns):
    rows = [dict.fromkeys(("loss", "distortion", *columns), 30.0 / e) for e in (1, 2, 3)]
    return History({"epoch": e + 1, **row, "elbo": -row["loss"]} for e, row in enumerate(rows))


def data_of(vae, x=None, labels=None, metrics=None, columns=None, **known):
    x = torch.rand(24, *vae.data_shape) if x is None else x
    columns = History() if columns is None else columns
    return ReportData(vae.eval(), x, labels, columns, metrics or {}, **known)


def report(folder, data, **page):
    path = write_report(folder, data, **{"protocol": {"split": "test"}} | page)
    return Page(path.read_text(encoding="utf-8"))


def rows_of(panel):
    return [text.get_text() for text in panel.figure.axes[0].get_yticklabels()]
