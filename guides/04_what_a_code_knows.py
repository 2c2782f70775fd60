# %% [markdown]
# # What does a code know about an image?
#
# A model reports a rate of 20 nats. So its code carries 20 nats of information about the image?
# No. The rate is what the code *costs*. What it *knows* can be much less, and measuring it has a
# limit that depends on how many images you have.
#
# After this chapter you can
#
# * keep rate, information and marginal divergence apart, and compute each where it is exact;
# * bound the information of any code from both sides, in a few lines;
# * recognise a saturated bound, and know which other one to read;
# * see which dimensions of a code carry the nats.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch.distributions import kl_divergence

import pyro_mivae as mi
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

pyro.set_rng_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## A channel whose information is known
#
# The code has four dimensions, and the data are the code with noise: $z \sim N(0, I)$,
# $x \mid z \sim N(z, s^2 I)$. The posterior has the mean $x / (1 + s^2)$ and the variance
# $s^2 / (1 + s^2)$ in each dimension. The information (chapter 00c) is
#
# $$I(x; z) = \tfrac{D}{2} \log(1 + 1/s^2), \qquad D = 4.$$
#
# Solved for $s$, this gives the noise for any information that we want. The class below can also
# shift each code, which makes a guide that is wrong on purpose.


# %%
D = 4


def noise_for(information):
    return (math.exp(2 * information / D) - 1) ** -0.5


class Channel:
    """A model, and a guide that is its exact posterior if the shift is 0."""

    def __init__(self, information, shift=0.0):
        self.noise, self.shift = noise_for(information), shift

    def draw(self, n):
        return torch.randn(n, D) + self.noise * torch.randn(n, D)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, self.noise).to_event(1), obs=x)

    def posterior(self, x):
        variance = self.noise**2 / (1 + self.noise**2)
        return dist.Normal(x / (1 + self.noise**2) + self.shift, variance**0.5)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x).to_event(1))


channel = Channel(information=2.0)
x = channel.draw(1000)
trace = poutine.trace(channel.guide).get_trace(x)
print(trace.format_shapes())
assert trace.nodes["z"]["fn"].batch_shape == (1000,)
assert trace.nodes["z"]["fn"].event_shape == (D,)
assert abs(D / 2 * math.log(1 + 1 / channel.noise**2) - 2.0) < 1e-9

# %% [markdown]
# ## Rate, and what it is made of
#
# The *rate* is $E_x\, KL(q(z \mid x) \,\|\, p(z))$, the second half of the ELBO. It has two parts,
#
# $$\text{rate} = I_q(x; z) + KL(q(z) \,\|\, p(z)), \qquad
# I_q(x; z) = E_{x, z} \log \frac{q(z \mid x)}{q(z)}, \qquad q(z) = E_x\, q(z \mid x).$$
#
# The first part is the information of the codes that the *guide* draws, hence the $q$. The second
# part, the *marginal divergence*, is how far the codes of all data together are from the prior. It
# is paid and buys nothing. So the rate is an upper bound on the information. The two are equal
# only if all codes together fill the prior exactly.
#
# ## The trap, first part: KL is not information
#
# Move each code by 2 in each dimension. The moved codes know as much as before. And a *blind*
# guide, which gives every datum the same distribution, knows nothing at all. Watch the rate.

# %%
prior = dist.Normal(0.0, 1.0)


def rate(q):
    """Mean and standard error of KL(q(z|x) || p(z)), in nats."""
    each = kl_divergence(q, prior).sum(-1)
    return float(each.mean()), float(each.std() / len(each) ** 0.5)


exact, exact_se = rate(channel.posterior(x))
moved, moved_se = rate(Channel(information=2.0, shift=2.0).posterior(x))
blind, _ = rate(dist.Normal(torch.full((1000, D), 1.5), 0.5))
print(f"exact posterior: rate {exact:.2f} ± {exact_se:.2f}, information 2")
print(f"moved by 2:      rate {moved:.2f} ± {moved_se:.2f}, information 2")
print(f"blind:           rate {blind:.2f}, information 0")
assert abs(exact - 2.0) < 4 * exact_se
assert abs(moved - 10.0) < 4 * moved_se  # 2 nats more for each dimension: half the square of 2
assert abs(blind - 5.77) < 5e-3

# %% [markdown]
# The moved guide has a rate of 10 nats, up to the standard error of 1000 data, for an information
# of 2. The blind guide has one of 5.77 nats for nothing. Whoever reads the rate as information
# calls the blind guide the second best.
#
# ## Both bounds in a few lines
#
# We know $q(z \mid x)$. Only $q(z)$ is missing, an average over all data. Take $N$ data, draw a
# code for each, and score every code under every datum: $T_{ij} = \log q(z_i \mid x_j)$. The mean
# of $e^{T_{ij}}$ over $j$ estimates $q(z_i)$. With the code's own datum in it, the mean is too
# large, so the information comes out too small (InfoNCE). Without it, the information comes out
# too large (leave one out). On average over draws,
#
# $$\frac1N \sum_i \Big[ T_{ii} - \log \tfrac1N \sum_j e^{T_{ij}} \Big]
# \;\le\; I_q(x; z) \;\le\;
# \frac1N \sum_i \Big[ T_{ii} - \log \tfrac{1}{N - 1} \sum_{j \ne i} e^{T_{ij}} \Big].$$


# %%
def bounds(q):
    """Bounds on the information, in nats, from a batch of posteriors."""
    n = len(q.mean)
    z = q.sample()
    scores = q.log_prob(z[:, None]).sum(-1)  # (N, N): code i under datum j
    own = scores.diagonal()
    others = scores.masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf)
    lower = own - scores.logsumexp(1) + math.log(n)
    upper = own - others.logsumexp(1) + math.log(n - 1)
    return lower, upper


for name, q in {
    "exact": channel.posterior(x),
    "moved": Channel(information=2.0, shift=2.0).posterior(x),
    "blind": dist.Normal(torch.full((1000, D), 1.5), 0.5),
}.items():
    lower, upper = bounds(q)
    se = float(upper.std() / len(upper) ** 0.5)
    print(f"{name}: between {lower.mean():z.2f} and {upper.mean():z.2f} nats, each ± {se:.2f}")
    information = 0.0 if name == "blind" else 2.0
    assert lower.mean() - 4 * se <= information <= upper.mean() + 4 * se
    assert upper.mean() - lower.mean() < 0.1

# %% [markdown]
# The bounds say 2 nats for the first two guides, within their standard errors, and nothing for the
# blind one. `mi.information` computes the same for any Pyro pair, with the rate and bounds of the
# marginal divergence. Here the latter is 8, what the moved rate of 10 pays beyond its information.

# %%
shifted = Channel(information=2.0, shift=2.0)
few = {"generative_items": 0, "iwae_samples": 1, "subset": 200}  # saves time on other figures
report = mi.information(shifted.model, shifted.guide, x, **few)
for key in ("rate", "mi_lower", "mi_upper", "marginal_kl_lower", "marginal_kl_upper"):
    print(f"{key:18s} {report[key]:6.3f} ± {report[key + '_se']:.3f}")
assert (
    report["mi_lower"] - 4 * report["mi_lower_se"]
    <= 2
    <= report["mi_upper"] + 4 * report["mi_upper_se"]
)
assert abs(report["marginal_kl_lower"] - 8) < 4 * report["marginal_kl_lower_se"] + 0.1

# %% [markdown]
# ## The trap, second part: the ceiling
#
# InfoNCE asks: to which of $N$ data does this code belong? The answer is worth at most $\log N$
# nats. A code that knows more is reported as knowing $\log N$. The bound is right, and it says
# nothing. The number looks like a measurement, and moves with the size of the data set. The last
# two columns show a way out, which is explained below the picture.

# %%
N = 500
table = {}
print("true I:   InfoNCE, leave one out; fitted, from below and from above")
for true in (0.5, 1, 2, 4, 6, 8, 10, 12):
    sharp = Channel(information=true)
    data = sharp.draw(N)
    table[true] = mi.information(sharp.model, sharp.guide, data, **few)
    shown = [
        table[true][k] for k in ("mi_lower", "mi_upper", "fitted_mi_lower", "fitted_mi_upper")
    ]
    print(f"I = {true:4.1f}: " + "  ".join(f"{nats:5.2f}" for nats in shown))

ceiling = math.log(N)
known, sharpest = table[2], table[12]
print(f"ceiling log {N} = {ceiling:.2f}")
assert abs(ceiling - 6.21) < 5e-3
assert abs(known["mi_lower"] - 2) < 4 * known["mi_lower_se"] + 0.05
assert ceiling - 0.1 < sharpest["mi_lower"] <= ceiling  # of 12 nats
assert table[2]["saturated"] == 0
assert sharpest["saturated"] == 1
assert abs(sharpest["fitted_mi_upper"] - 12) < 0.5  # repaired, from above
assert sharpest["fitted_mi_lower"] > ceiling + 2  # and from below, above the ceiling
assert sharpest["mi_upper"] == sharpest["rate"]

# %%
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
truth = list(table)
lines = {
    "mi_upper": ("leave one out, at most the rate", PALETTE[1], "-", 5),
    "fitted_mi_upper": ("fitted marginal, from above", PALETTE[2], "--", 2),
    "fitted_mi_lower": ("fitted marginal, from below", PALETTE[4], "--", 2),
    "mi_lower": ("InfoNCE", PALETTE[0], "-", 2),
}
for key, (label, color, style, width) in lines.items():
    bound = [table[t][key] for t in truth]
    axes.plot(truth, bound, style, marker="o", color=color, linewidth=width, label=label)
axes.plot(truth, truth, color="black", linewidth=1, label="the truth")
axes.axhline(ceiling, color=PALETTE[3], linestyle=":", label="log N")
axes.set(xlabel="true information, nats", ylabel="bound, nats")
axes.legend(frameon=False, fontsize=8)
style_axes(axes, grid=True)

# %% [markdown]
# With 500 data the ceiling is 6.21 nats. Up to about half of it InfoNCE and leave one out agree.
# Above the ceiling InfoNCE stays flat, whatever the truth does. The other bound seems to follow
# the truth, but it shows the rate: `mi.information` reports the rate where leave one out lies
# above it, and in this channel the rate is the information.
#
# There are two ways out. The first is more data: ten times as many raise the ceiling by 2.3 nats.
# The second is a density $r(z)$, fitted to the codes of one half of the data and judged on the
# other. Then $E \log q(z \mid x) / r(z)$ is the information plus $KL(q(z) \,\|\, r(z))$, a bound
# from above without any $\log N$. A correction from pairs of data turns it into a bound from
# below. There are $N^2$ pairs, so that one reaches to about $2 \log N$, its `fitted_reach`
# (`docs/evaluation.md`). The report says when to read the fitted bounds: `saturated` is then 1.

# %%
assert abs(math.log(10) - 2.3) < 5e-3
print(*table[12].diagnoses, sep="\n")
assert table[12]["fitted_reach"] < 2 * ceiling

# %% [markdown]
# ## Digits: which dimensions know something?
#
# We fit a VAE with a code of twelve dimensions. The report has the information of each dimension
# alone, with all others averaged out, and the divergence that is paid for it.

# %%
torch.set_default_dtype(torch.float32)
digits = mi.load_dataset("digits")
vae = mi.VAE(digits.data_shape, latent_dim=12)
mi.fit(vae, digits.x_train, epochs=60, seed=0)
vae.eval()
report = mi.information(vae.model, vae.guide, digits.x_test, generative_items=0)
each = report.dimensions("z")
order = each["kl"].argsort(descending=True)
print(
    f"rate {report['rate']:.2f}; information {report['mi_lower']:.2f} to {report['mi_upper']:.2f}"
)
print(f"sum over the dimensions: {each['mi_upper'].sum():.2f}")
print(f"active: {report['active_units']:.0f}; above a tenth of a nat: {(each['kl'] > 0.1).sum()}")
# Between the bounds and below the rate, up to the error of 359 images.
assert report["mi_lower"] <= report["mi_upper"] <= report["rate"]
assert report["saturated"] == 0
assert abs(each["kl"].sum() - report["rate"]) < 0.05
assert (each["mi_upper"] <= each["kl"] + 4 * each["mi_upper_se"]).all()
assert (each["kl"] > 0.1).sum() < report["active_units"]

# %%
figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
axes.bar(range(12), each["kl"][order].tolist(), color=PALETTE[3], label="paid: KL")
known = each["mi_upper"][order].tolist()
axes.bar(range(12), known, color=PALETTE[0], width=0.5, label="known: I(x; z_d)")
axes.set(xlabel="dimensions, in the order of their KL", ylabel="nats per image")
axes.legend(frameon=False)
style_axes(axes)

# %% [markdown]
# The bars fall quickly: a few dimensions carry most of the nats, and the last ones stay close to
# the prior, where they cost next to nothing. Most of these still count as *active*, which says
# only that their mean varies. The rate is the sum of the grey bars. The information of the whole
# code is not the sum of the blue ones: dimensions can say the same twice, or something together
# that none says alone. What a grey bar has above its blue one is the marginal divergence of the
# dimension, paid for codes that do not fill the prior.

# %% [markdown]
# ## Exercises
#
# 1. A code is one of $K$ categories, and $q(c \mid x)$ is known for each datum. Write its
#    information as a difference of two entropies. What can it be at most?
# 2. At 12 nats and 300 data, compute the leave-one-out bound by `bounds`. It lies far above the
#    rate. Why, and what does `mi.information` report in its place?
# 3. The datum is one number, $x \sim N(0, 1)$. Let $z_1$ and $z_2$ both be $x$ plus noise of their
#    own, of variance $v$. Compute the information of each and of both together. Why is the whole
#    less than the sum?
#
# The answers are code that runs: `tests/chapters/test_answers_road.py`.
#
# ## Sources
#
# * Hoffman & Johnson (2016), ELBO surgery,
#   <http://approximateinference.org/accepted/HoffmanJohnson2016.pdf>: the two parts of the rate.
# * Poole et al. (2019), On Variational Bounds of Mutual Information,
#   <https://arxiv.org/abs/1905.06922>: bounds from known densities, and the ceiling.
# * McAllester & Stratos (2020), Formal Limitations on the Measurement of Mutual Information,
#   <https://arxiv.org/abs/1811.04251>: why no lower bound is free of a ceiling.
# * Alemi et al. (2018), Fixing a Broken ELBO, <https://arxiv.org/abs/1711.00464>: rate and
#   distortion.
