# %% [markdown]
# # Which way does an information term err?
#
# An objective may reward a code for information: $+\lambda\, I$. Nobody can compute $I$ for two
# networks, so a term uses a bound or an estimate instead. This chapter computes eight of them
# where the truth is known, from 0 to 20 nats, and then shows how training can misuse three.
#
# After this chapter you can
#
# * say of a bound from which side it errs, and where it stops being useful;
# * read a figure of information together with its ceiling and its spread;
# * tell the information in a mean image from the information in sampled pixels;
# * refuse to maximise an upper bound, and to read a critic on its own training pairs.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

import pyro_mivae as mi
from pyro_mivae import bounds
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

# %% [markdown]
# ## A coin and its copy
#
# A fair coin $c$ is copied, and the copy $x$ is wrong with probability 1/10. All is known:
#
# $$I(c; x) = \log 2 - H(1/10), \qquad H(p) = -p \log p - (1 - p) \log(1 - p).$$
#
# Two bounds need one guess each. The *Barber–Agakov* bound guesses the coin from its copy: any
# recogniser $q(c \mid x)$ gives
#
# $$I(c; x) \;\ge\; E_{p(c, x)}[\log q(c \mid x)] + H(c),$$
#
# and is too small by $E_x KL(p(c \mid x) \,\|\, q(c \mid x))$. The *rate* guesses how the copy is
# distributed: any prior $r(x)$ gives
#
# $$I(c; x) \;\le\; E_{p(c)}\, KL(p(x \mid c) \,\|\, r(x)),$$
#
# and is too large by $KL(p(x) \,\|\, r(x))$.

# %%
joint = torch.tensor([[0.45, 0.05], [0.05, 0.45]])  # p(c, x)
truth = float((joint * (joint / 0.25).log()).sum())


def barber_agakov(right):
    """The bound of a recogniser that thinks the copy is right with this probability."""
    log_q = torch.tensor([[right, 1 - right], [1 - right, right]]).log()
    return float((joint * log_q).sum()) + math.log(2)


def rate(ones):
    """The rate under a prior that expects this share of ones in x."""
    log_r = torch.tensor([1 - ones, ones]).log()
    return float((joint * ((2 * joint).log() - log_r)).sum())


print(f"truth {truth:.3f}")
print(
    f"Barber-Agakov, recogniser right {barber_agakov(0.9):.3f}, too sure {barber_agakov(0.99):.3f}"
)
print(f"rate, prior right {rate(0.5):.3f}, prior wrong {rate(0.7):.3f}")
assert abs(truth - 0.368) < 5e-4
assert abs(barber_agakov(0.9) - truth) < 1e-6
assert abs(barber_agakov(0.99) - 0.224) < 5e-4
assert abs(rate(0.5) - truth) < 1e-6
assert abs(rate(0.7) - 0.455) < 5e-4

# %% [markdown]
# The truth is 0.368 nats. With a right guess both bounds are exact. A recogniser that is too sure
# of itself gives 0.224, too little; a wrong prior gives 0.455, too much. A wrong guess makes the
# first smaller and the second larger, never the reverse. That is what *bound* means.
#
# ## Eight readings of one truth
#
# Now a family in which the truth can be set: 20 pairs of numbers, each with correlation $\rho$,
#
# $$x_d \sim N(0, 1), \quad z_d \mid x_d \sim N(\rho x_d, 1 - \rho^2), \quad
# I(x; z) = -\tfrac{20}{2} \log(1 - \rho^2).$$
#
# The conditional density $q(z \mid x)$ is known, as it is for a guide. So each bound gets the
# best critic that there is, and what is left of the error is the bound's own. We draw 256 pairs,
# as a batch, and repeat that 20 times.

# %%
PAIRS, DIMS, REPEATS = 256, 20, 20


def readings(information):
    """Eight estimates of the information, from one batch of pairs."""
    variance = math.exp(-2 * information / DIMS)  # 1 - rho^2
    x = torch.randn(PAIRS, DIMS)
    z = math.sqrt(1 - variance) * x + math.sqrt(variance) * torch.randn(PAIRS, DIMS)
    mean = math.sqrt(1 - variance) * x
    constant = DIMS / 2 * math.log(2 * math.pi * variance)
    log_q = (
        -(torch.cdist(z, mean) ** 2) / (2 * variance) - constant
    )  # (code, datum): log q(z_i|x_j)
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(1)  # of the code alone
    ratio = log_q - log_p[:, None]  # log q(z|x) / p(z): the best critic
    own, others = ratio.diagonal(), bounds.off_diagonal(ratio)
    wide = dist.Normal(mean, 1.2 * math.sqrt(variance)).log_prob(z).sum(1)  # 20 % too wide
    return {
        "Barber–Agakov": bounds.barber_agakov_bound(wide, -log_p),
        "InfoNCE": bounds.infonce_bound(log_q),
        "interpolated": bounds.interpolated_bound(log_q, log_p, alpha=0.01),
        "NWJ": bounds.nwj_bound(1 + own, 1 + others),
        "Donsker–Varadhan": bounds.donsker_varadhan_bound(own, others),
        "leave one out": bounds.leave_one_out_bound(log_q),
        "CLUB": bounds.club_bound(log_q),
        "rate": bounds.rate(log_q.diagonal(), dist.Normal(0.0, 1.1).log_prob(z).sum(1)),
    }


torch.manual_seed(0)
truths = list(range(0, 21, 2))
drawn = {t: [readings(t) for _ in range(REPEATS)] for t in truths}
names = list(drawn[0][0])
table = {n: torch.tensor([[float(r[n]) for r in drawn[t]] for t in truths]) for n in names}

lower, upper = names[:5], names[5:]
for name in names:
    shown = "  ".join(f"{table[name][truths.index(t)].mean():6.1f}" for t in (2, 6, 10, 20))
    print(f"{name:<17} of 2, 6, 10, 20 nats: {shown}")
assert all((table[n].mean(1) < torch.tensor(truths) + 0.2).all() for n in lower[:3])
assert all((table[n].mean(1) > torch.tensor(truths) - 0.2).all() for n in upper)

# %%
ceiling = math.log(PAIRS)
assert abs(ceiling - 5.55) < 5e-3
assert table["InfoNCE"].max() <= ceiling
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for ax, group, title in zip(axes, (lower, upper), ("lower bounds", "upper bounds")):
    ax.plot(truths, truths, color="black", linewidth=1, label="truth")
    for name in group:
        color = PALETTE[names.index(name)]
        mean, spread = table[name].mean(1), table[name].std(1)
        ax.plot(truths, mean, marker="o", markersize=3, color=color, label=name)
        ax.fill_between(truths, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
    ax.set(title=title, xlabel="information, nats", ylabel="reading, nats", ylim=(-1, 26))
    style_axes(ax)
    ax.legend(frameon=False, fontsize=8)
axes[0].axhline(ceiling, color="grey", linestyle=":", linewidth=1)
plt.show()

# %% [markdown]
# Five findings. The dotted line is $\log 256$, or 5.55 nats.
#
# * **InfoNCE has a ceiling.** It asks which of the $n$ data a code came from, and so never reads
#   more than $\log n$. It hardly scatters. A reading just below its ceiling says "at least this".
# * **Barber–Agakov has none.** Its loss is that of the recogniser, here 20 % too wide.
# * **NWJ and Donsker–Varadhan need rare pairs.** Their second mean lives on pairs that are
#   unlikely to be in the batch. Far above $\log n$ most batches do not contain them, so most
#   readings lie *above* the truth, although NWJ is a lower bound in expectation.
# * **Leave one out and CLUB err high**, CLUB exponentially: it reads $20\,(e^{2I/20} - 1)$.
# * **The rate errs high by a constant**, the divergence of the prior (here 10 % too wide) from
#   the code's own distribution.

# %%
at_ten = {n: table[n][truths.index(10)] for n in names}
error = {n: float(v.std()) / math.sqrt(REPEATS) for n, v in at_ten.items()}
above = float((at_ten["NWJ"] > 10).float().mean())
club = DIMS * (math.exp(2 * 10 / DIMS) - 1)
print(f"at 10 nats: NWJ above the truth in {above:.0%} of the batches")
assert above > 0.5
assert abs(at_ten["InfoNCE"].mean() - 5.4) < 0.1
assert abs(at_ten["CLUB"].mean() - club) < 4 * error["CLUB"]
assert abs(club - 34.4) < 0.05
assert float(at_ten["NWJ"].std()) > 10 * float(at_ten["InfoNCE"].std())

# %% [markdown]
# At 10 nats InfoNCE reads 5.4 and CLUB 34.4. Both are right: one bounds from below, the other
# from above. Neither is the truth. So always print three things: the side of the bound, its
# ceiling, and the spread over batches.
#
# ## The trap: a mean image carries what samples do not
#
# A term of an objective does not only read the information. It *changes* the model so that its
# reading grows, in any way that the reading allows. Here is a model of 16 pixels whose brightness
# depends on a category: shades from 0.41 to 0.59 that no eye tells apart in black and white.


# %%
shades = torch.linspace(0.41, 0.59, 10)


def model(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.OneHotCategorical(torch.ones(10)))
        probs = (c @ shades)[..., None].expand(*c.shape[:-1], 16)  # a shade for all 16 pixels
        pyro.sample("x", dist.Bernoulli(probs).to_event(1), obs=x)


def recogniser(sharpness):
    """A guide: the true posterior of sampled pixels, to a power."""

    def guide(x):
        lit = x.sum(1, keepdim=True)  # (batch, 1)
        logits = lit * shades.log() + (16 - lit) * (-shades).log1p()
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(logits=sharpness * logits)
            pyro.sample("c", fn, infer={"enumerate": "parallel"})

    return guide


trace = poutine.trace(model).get_trace(torch.zeros(5, 16))
print(trace.format_shapes())
assert abs(shades[0] - 0.41) < 1e-6
assert abs(shades[-1] - 0.59) < 1e-6
assert trace.nodes["c"]["value"].shape == (5, 10)
assert trace.nodes["x"]["value"].shape == (5, 16)

# %% [markdown]
# What sixteen *sampled* pixels tell about the category can be summed exactly over the number of
# lit pixels. What the *mean* image tells needs no sum: ten shades are ten different numbers, so
# it gives the category away, all $\log 10$ nats of it. The library's term reads either, from the
# same guide.

# %%
counts = torch.arange(17.0)
log_count = dist.Binomial(16, shades[:, None]).log_prob(counts)  # (10, 17)
marginal = log_count.logsumexp(0) - math.log(10)
in_samples = float((log_count.exp() * (log_count - marginal)).sum(1).mean())


def reading(sharpness, generated):
    elbo = mi.MutualInformationELBO(
        [mi.BarberAgakov("c", generated=generated)], max_plate_nesting=1
    )
    elbo.loss(model, recogniser(sharpness), torch.zeros(20_000, 16))
    return float(elbo.ledger["mi_c_mean" if generated == "mean" else "mi_c_sample"]) / 20_000


pyro.set_rng_seed(0)
sharpness = [1, 10, 100, 1000]
of_means = [reading(s, "mean") for s in sharpness]
of_samples = [reading(s, "straight-through") for s in sharpness]
for s, a, b in zip(sharpness, of_means, of_samples):
    print(f"guide to the power {s:4d}: {a:8.3f} nats read in means, {b:9.3f} in samples")
print(f"in sampled pixels there are {in_samples:.3f} nats, in means {math.log(10):.3f}")
assert abs(in_samples - 0.097) < 5e-4
assert abs(math.log(10) - 2.303) < 5e-4
assert abs(of_samples[0] - in_samples) < 0.02
assert abs(of_means[-1] - 2.303) < 0.02
assert of_samples[-1] < -100

# %% [markdown]
# The samples hold 0.097 nats, and the guide to the power 1 reads about that. Sharpen the guide,
# and the reading in means climbs to all 2.303 nats: it is a true bound on the information in
# *mean images*. In samples, the same guide reads far below zero. So a figure's name
# says what was read, `mi_c_mean` or `mi_c_sample`, and `VMIVAE`, whose continuous code could hide
# any amount of information in shades, reads samples unless you choose the mean.
#
# ## A maximised upper bound
#
# "The term should be large" and "the bound should be tight" agree for a lower bound only. Raise a
# lower bound and the information must follow. Raise an upper bound and the gap may grow instead.
# Four equally likely data and a code $z \mid x \sim N(m x, 1)$: no code knows more than $\log 4$
# about four data. Let us climb the rate.

# %%
x = torch.tensor([-3.0, -1.0, 1.0, 3.0]) / math.sqrt(5)  # four data of mean 0 and variance 1
grid = torch.linspace(-60, 60, 60_001)


def true_information(m):
    density = dist.Normal(m * x[:, None], 1.0).log_prob(grid)  # (4, grid)
    log_ratio = density - (density.logsumexp(0) - math.log(4))
    return float((density.exp() * log_ratio).sum(1).mean() * (grid[1] - grid[0]))


m = torch.tensor(0.5, requires_grad=True)
path = []
for _ in range(31):
    climbed = (m**2 * x**2).mean() / 2  # KL(N(m x, 1) || N(0, 1))
    path.append((m.item(), climbed.item(), true_information(m.item())))
    (gradient,) = torch.autograd.grad(climbed, m)
    m = (m + 0.15 * gradient).detach().requires_grad_()
for step in (0, 10, 20, 30):
    print("step {:2d}: m {:6.2f}, rate {:8.2f}, information {:.3f}".format(step, *path[step]))
assert abs(path[-1][1] - 548) < 1
assert abs(path[-1][2] - math.log(4)) < 1e-3
assert abs(math.log(4) - 1.386) < 5e-4

# %% [markdown]
# The rate climbs to 548 nats. The information stops at 1.386, and cannot go further. The repair
# is a rule: *add lower bounds to an objective, subtract upper bounds from it.* The rate is
# subtracted in every ELBO. InfomaxVAE, which writes $I$ and computes a rate, is the subject of
# chapter 5.
#
# ## A leaking critic
#
# Where no density is known, a *critic* is trained to tell the true pairs $(x_i, z_i)$ from the
# mixed ones, $(x_i, z_j)$. A critic with enough weights learns its pairs by heart. Here $x$ and
# $z$ are independent: the truth is 0 nats.

# %%
torch.manual_seed(0)
seen, fresh = ((torch.randn(128, DIMS), torch.randn(128, DIMS)) for _ in range(2))


def network():
    return torch.nn.Sequential(
        torch.nn.Linear(DIMS, 128), torch.nn.ReLU(), torch.nn.Linear(128, 32)
    )


of_x, of_z = network(), network()
optimiser = torch.optim.Adam([*of_x.parameters(), *of_z.parameters()], lr=3e-3)


def infonce(pairs):
    return bounds.infonce_bound(of_z(pairs[1]) @ of_x(pairs[0]).T)


for _ in range(200):
    optimiser.zero_grad()
    (-infonce(seen)).backward()
    optimiser.step()
with torch.no_grad():
    by_heart, honest = float(infonce(seen)), float(infonce(fresh))
print(f"read on the pairs that trained it {by_heart:.2f}, on fresh pairs {honest:.2f}")
assert by_heart > 0.9 * math.log(128)
assert honest < 0

# %% [markdown]
# On its own pairs the critic reads almost its ceiling, $\log 128$, although the truth is 0. On
# fresh pairs it reads less than zero, as a bad lower bound may. The repair is the usual one of
# statistics: train the critic on some pairs, read it on others. (`mi.evaluate(..., train=...)`
# does so; where the guide's density is known, `mi.information` needs no critic at all.)

# %% [markdown]
# ## Exercises
#
# 1. The interpolated bound of the picture has $\alpha = 0.01$. Read it at 10 nats with
#    $\alpha = 1$ and with $\alpha = 1/10000$. What is gained, what is lost?
# 2. The recogniser above is 20 % too wide. Compute what Barber–Agakov loses, exactly, and check
#    it at 4 and at 16 nats. Why is it the same?
# 3. How many pairs would InfoNCE need to read 10 nats, if it could reach its ceiling?
#
# The answers are code that runs: `tests/chapters/test_answers_later.py`.

# %% [markdown]
# ## Sources
#
# * D. Barber and F. Agakov (2003), The IM Algorithm: A Variational Approach to Information
#   Maximization, equation 3.
# * B. Poole et al. (2019), On Variational Bounds of Mutual Information. All bounds of the picture
#   but CLUB: <https://arxiv.org/abs/1905.06922>
# * P. Cheng et al. (2020), CLUB: <https://arxiv.org/abs/2006.12013>
# * D. McAllester and K. Stratos (2020), Formal Limitations on the Measurement of Mutual
#   Information: why no lower bound from samples reads far beyond $\log n$.
#   <https://arxiv.org/abs/1811.04251>
# * A. Alemi et al. (2018), Fixing a Broken ELBO, on the rate: <https://arxiv.org/abs/1711.00464>
