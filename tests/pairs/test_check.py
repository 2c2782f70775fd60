"""Faults of a pair: each wrong program beside the right one, which differs in that place alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyro_mivae as mi

from .programs import X

PARALLEL = {"enumerate": "parallel"}


def kinds(report):
    return [(finding.kind, finding.site) for finding in report]


def checked(**parts):
    """Checks a mixture of two codes, z and the category c, of which parts are replaced."""
    parts = {
        "c": lambda: dist.Categorical(torch.ones(3) / 3),
        "q_c": lambda x: dist.Categorical(logits=x[:, :3]),
        "z": lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1),
        "q_z": lambda x: dist.Normal(x[:, :2], 0.5).to_event(1),
        "x": lambda z, c: dist.Normal(z.sum(-1) + c, 1.0),
        "infer": PARALLEL,
        "model_infer": None,
        "plate": lambda x: pyro.plate("data", len(x)),
        "q_plate": lambda x: pyro.plate("data", len(x)),
        "wrap": lambda guide: guide,
        "scaled": (1.0, 1.0),
        "data": X,
    } | parts

    def model(x):
        weight = pyro.param("weight", torch.ones(()))
        with parts["plate"](x) as rows:
            z = weight * pyro.sample("z", parts["z"]())
            with poutine.scale(scale=parts["scaled"][1]):
                c = pyro.sample("c", parts["c"](), infer=parts["model_infer"])
            pyro.sample("x", parts["x"](z, c), obs=x[rows, 0])

    def guide(x):
        slope = pyro.param("slope", torch.ones(()))
        with parts["q_plate"](x) as rows:
            pyro.sample("z", parts["q_z"](slope * x[rows]))
            with poutine.scale(scale=parts["scaled"][0]):
                pyro.sample("c", parts["q_c"](slope * x[rows]), infer=parts["infer"])

    return mi.check(model, parts["wrap"](guide), parts["data"])


def substituted(guide, **values):
    trace = poutine.trace(guide).get_trace(X)
    trace.nodes["c"]["value"] = values["c"]
    return poutine.replay(guide, trace)


def halves(name):
    return lambda x: pyro.plate(name, len(x), subsample_size=3)


def given(*rows):
    return lambda x: pyro.plate("data", len(x), subsample=torch.tensor(rows))


WRONG = {
    "no reparametrisation": (
        {"z": lambda: dist.Poisson(torch.ones(2)).to_event(1)}
        | {"q_z": lambda x: dist.Poisson(x[:, :2].exp()).to_event(1)},
        ("gradient", "z"),
        "site 'z' (Poisson) of the guide is neither reparametrised nor enumerated",
    ),
    "forgotten annotation": ({"infer": {}}, ("enumeration", "c"), "neither reparametrised nor"),
    "annotated in the model alone": (
        {"infer": {}, "model_infer": PARALLEL},
        ("enumeration", "c"),
        "in the model alone",
    ),
    "another value": (
        {"infer": {"enumerate": "sequential"}},
        ("enumeration", "c"),
        "has infer={'enumerate': 'sequential'}, without effect",
    ),
    "hidden by a handler": (
        {"wrap": lambda guide: substituted(guide, c=torch.zeros(6).long())},
        ("enumeration", "c"),
        "gives it a value first",
    ),
    "conditioned": (
        {"wrap": lambda guide: poutine.condition(guide, {"c": torch.zeros(6).long()})},
        ("sites", "c"),
        "observed in the guide and drawn in the model",
    ),
    "no finite support": (
        {"c": lambda: dist.Normal(0.0, 1.0), "q_c": lambda x: dist.Normal(x[:, 0], 1.0)},
        ("enumeration", "c"),
        "Normal has no finite support",
    ),
    "samples in place of the support": (
        {"infer": {**PARALLEL, "num_samples": 2}},
        ("enumeration", ""),
        "asks for num_samples=2",
    ),
    "a table that does not broadcast": (
        {"x": lambda z, c: dist.Normal(torch.stack([z.sum(-1), c.float()]).sum(0), 1.0)},
        ("enumeration", ""),
        "fails with all values of ['c'] laid out",
    ),
    "no plate": (
        {"x": lambda z, c: dist.Normal(z.sum(-1, keepdim=True) + c, 1.0)},
        ("plate", "x"),
        'in the model, at site "x", invalid log_prob shape Expected [6], actual [6, 6]',
    ),
    "a plate of another size": (
        {"q_plate": lambda x: pyro.plate("data", 5)},
        ("sub-sampling", ""),
        "5 of 5 data in the guide and 5 of 6 in the model",
    ),
    "a batch of another size": (
        {"q_z": lambda x: dist.Normal(x[:5, :2], 0.5).to_event(1)},
        ("program", ""),
        "the guide fails: ValueError: Shape mismatch inside plate('data') at site z",
    ),
    "no to_event": (
        {"q_z": lambda x: dist.Normal(x[:, :2], 0.5)},
        ("program", ""),
        "end the distribution with .to_event(1)",
    ),
    "another size": (
        {"q_z": lambda x: dist.Normal(x[:, :1], 0.5).to_event(1)},
        ("shape", "z"),
        "(2,) in the prior and (1,) in the guide",
    ),
    "another size that fails": (
        {"q_z": lambda x: dist.Normal(x[:, :3], 0.5).to_event(1)}
        | {"x": lambda z, c: dist.Normal(z @ torch.ones(2) + c, 1.0)},
        ("shape", "z"),
        "(2,) in the prior and (3,) in the guide",
    ),
    "other mini-batch sizes": (
        {"plate": halves("data"), "q_plate": lambda x: pyro.plate("data", 6, 2)},
        ("sub-sampling", ""),
        "2 of 6 data in the guide and 3 of 6 in the model",
    ),
    "plates of two names": (
        {"plate": halves("rows"), "q_plate": halves("data")},
        ("sub-sampling", "z"),
        "in plate 'data' in the guide and in 'rows' in the model",
    ),
    "other indices": (
        {"plate": given(0, 1, 2), "q_plate": given(3, 4, 5)},
        ("sub-sampling", ""),
        "plate 'data' has other indices in the model",
    ),
    "an enumerated site's own scale": (
        {"scaled": (0.5, 0.5)},
        ("scale", "c"),
        "scaled by 0.5 and the data by 1",
    ),
    "a scale in the guide alone": (
        {"scaled": (0.5, 1.0)},
        ("scale", "c"),
        "scaled by 0.5 in the guide and by 1 in the model",
    ),
    "data out of range": (
        {"x": lambda z, c: dist.Bernoulli(logits=z.sum(-1) + c)},
        ("data", "x"),
        "to be within the support",
    ),
    "data without a density": (
        {"x": lambda z, c: dist.Normal(z.sum(-1) + c, 1.0), "data": X / 0},
        ("program", ""),
        "fill or remove the NaN and infinity in its arguments",
    ),
    "a code out of range": (
        {"z": lambda: dist.LogNormal(torch.zeros(2), 1.0).to_event(1)},
        ("support", "z"),
        "to be within the support",
    ),
    "categories that the guide lacks": (
        {"q_c": lambda x: dist.Categorical(logits=x[:, :2])},
        ("support", "c"),
        "has 3 values in the model, and the guide has 2",
    ),
}
OTHERS = [
    {"plate": halves("data"), "q_plate": halves("data")},
    {"plate": given(3, 4, 5), "q_plate": given(3, 4, 5)},
    {"wrap": lambda guide: poutine.scale(guide, scale=0.1)}
    | {"plate": lambda x: Both(poutine.scale(scale=0.1), pyro.plate("data", len(x)))},
]


class Both:
    def __init__(self, first, second):
        self.first, self.second = first, second

    def __enter__(self):
        self.first.__enter__()
        return self.second.__enter__()

    def __exit__(self, *raised):
        self.second.__exit__(*raised)
        return self.first.__exit__(*raised)


def test_the_pair_itself_is_right():
    report = checked()
    assert list(report) == []
    assert str(report).startswith("no faults found\n")
    assert "c dist   6 |" in report.shapes
    assert "value 3 1 |" in report.shapes


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_found_with_its_remedy(name):
    parts, wanted, text = WRONG[name]
    report = checked(**parts)
    assert wanted in kinds(report), report
    finding = report[kinds(report).index(wanted)]
    assert text in f"{finding.found}; {finding.remedy}"
    assert finding.remedy
    assert {kind for kind, _ in kinds(report)} == {wanted[0]}, report


@pytest.mark.parametrize("parts", OTHERS)
def test_what_looks_alike_is_right(parts):
    assert kinds(checked(**parts)) == []
