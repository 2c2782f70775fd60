"""J, written out."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

import pyro_mivae as mi

SHAPE = (1, 8, 8)


class Pair(PyroModule):
    def forward(self):
        kind = pyro.sample("kind", dist.OneHotCategorical(torch.ones(3)))
        ink = pyro.sample("ink", dist.OneHotCategorical(torch.ones(2)))
        return mi.priors.join([kind, ink])


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (
            mi.MutualInformationELBO(),
            """\
            J =  E_q[log p(x|code)]
               - 1 * KL of every site
            maximised; nats per datum""",
        ),
        (
            mi.InfomaxVAE(SHAPE).objective(),
            """\
            J =  E_q[log p(x|code)]
               - 1 * KL(q(z|x) || p(z))
               - 0 * KL(q(c|x) || p(c))   [left out]
            maximised; nats per datum""",
        ),
        (
            mi.BetaVAE(SHAPE, beta=mi.linear_warmup(4, 0.5, 2)).objective(),
            """\
            J =  E_q[log p(x|code)]
               - (0.5 to 2 over steps 0 to 4) * KL(q(z|x) || p(z))
            maximised; nats per datum""",
        ),
        (
            mi.InfoCatVAE(SHAPE, mi_weight=2).objective(),
            """\
            J =  E_q[log p(x|code)]
               - 1 * KL(q(c|x) || p(c))
               - 1 * KL(q(z|x) || p(z))
               + 2 * (E_p[log q(c|x')] + H(c)),  x' = mean of p(x|code)
            maximised; nats per datum""",
        ),
        (
            mi.CatVAE(SHAPE, categorical="sample").objective(),
            """\
            J =  E_q[log p(x|code)], c = the most probable one and 1 draw of the others
               - 1 * KL(q(c|x) || p(c))
               - 1 * KL(q(z|x) || p(z))
            maximised; nats per datum; unbiased""",
        ),
        (
            mi.SampledCategoricalELBO(exact=2, draws=3),
            """\
            J =  E_q[log p(x|code)], c = the 2 most probable and 3 draws of the others
               - 1 * KL of every site
            maximised; nats per datum; unbiased""",
        ),
        (
            mi.SampledCategoricalELBO(exact=0),
            """\
            J =  E_q[log p(x|code)], c = 1 draw
               - 1 * KL of every site
            maximised; nats per datum; unbiased""",
        ),
        (
            mi.CatVAE(SHAPE, categorical="soft").objective(),
            """\
            J =  E_q[log p(x|code)], c = q(c|x)
               - 1 * KL(q(c|x) || p(c))
               - 1 * KL(q(z|x) || p(z))
            maximised; nats per datum; not a bound on log p(x)""",
        ),
        (
            mi.CatVAE(SHAPE, categorical="gumbel", warm_start=0).objective(num_steps=100),
            """\
            J =  E_q[log p(x|code)], c ~ Gumbel-softmax of q(c|x)
               - (0 to 1 over steps 0 to 50) * KL(q(c|x) || p(c))
               - (0 to 1 over steps 0 to 50) * KL(q(z|x) || p(z))
            maximised; nats per datum; not a bound on log p(x)""",
        ),
        (
            mi.CatVAE(SHAPE, prior=Pair(), categorical="soft").objective(),
            """\
            J =  E_q[log p(x|code)], kind = q(kind|x), ink = q(ink|x)
               - 1 * KL(q(kind|x) || p(kind))
               - 1 * KL(q(ink|x) || p(ink))
            maximised; nats per datum; not a bound on log p(x)""",
        ),
        (
            mi.CatVAE(SHAPE, prior=Pair(), categorical="score-function").objective(),
            """\
            J =  E_q[log p(x|code)], (kind, ink) = 1 draw
               - 1 * KL(q(kind|x) || p(kind))
               - 1 * KL(q(ink|x) || p(ink))
            maximised; nats per datum; unbiased""",
        ),
        (
            mi.VAE(SHAPE, given_shape=(3,)).objective(),
            """\
            J =  E_q[log p(x|code,u)]
               - 1 * KL(q(z|x,u) || p(z))
            maximised; nats per datum""",
        ),
        (
            mi.VMIVAE(SHAPE, prior=mi.ConditionalNormalPrior((3,), 4)).objective(),
            """\
            J =  E_q[log p(x|code,u)]
               - 1 * KL(q(z|x,u) || p(z|u))
               + 1 * (E_p[log q(z|x')] + H(z)),  x' = sample (straight-through)
               where each information and each q is given u too
            maximised; nats per datum""",
        ),
        (
            mi.MutualInformationELBO([mi.BarberAgakov("z", "c", generated="straight-through")]),
            """\
            J =  E_q[log p(x|code)]
               - 1 * KL of every site
               + 1 * (E_p[log q(z,c|x')] + H(z,c)),  x' = sample (straight-through)
            maximised; nats per datum""",
        ),
    ],
)
def test_writes_every_summand(objective, expected):
    indent = " " * 12
    assert mi.explain(objective) == expected.replace(indent, "")


def test_knows_the_sites_once_they_have_been_seen():
    vae = mi.CatVAE(SHAPE, num_categories=2)
    objective = mi.MutualInformationELBO(kl_weights={"z": 0.0})
    objective.loss(vae.model, vae.guide, vae.sample(2))
    assert "- 1 * KL(q(c|x) || p(c))" in mi.explain(objective)
    assert "every other site" not in mi.explain(objective)


def test_shows_where_a_schedule_stands():
    objective = mi.BetaVAE(SHAPE, beta=mi.linear_warmup(4)).objective()
    objective.advance()
    assert "(0 to 1 over steps 0 to 4, now 0.25)" in mi.explain(objective)
    objective = mi.BetaVAE(SHAPE, beta=lambda step: step / 8).objective()
    objective.advance()
    assert "(scheduled, now 0.125)" in mi.explain(objective)
    objective = mi.BetaVAE(SHAPE, beta=mi.cyclic_warmup(6, end=2.0)).objective()
    assert "(0 to 2 in every 6 steps)" in mi.explain(objective)
