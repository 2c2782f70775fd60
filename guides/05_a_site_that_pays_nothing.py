# %% [markdown]
# # What happens if one site of the code pays nothing?
#
# An ELBO charges each site of the code its KL divergence. Bachmann's InfomaxVAE exempts one site,
# $c$, from the charge, so that it carries more information. The code then has a part that pays
# and a part that does not. This chapter asks what goes where.
#
# After this chapter you can
#
# * leave the divergence of any site out of any ELBO, and check that nothing else changed;
# * predict where the information goes, and measure it by reconstructing from each part alone;
# * say why the rate of such a site has no limit, and what a small price repairs;
# * recognise figures that a deterministic code does not have.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO

import pyro_mivae as mi
from pyro_mivae.metrics import reconstruction_r2
from pyro_mivae.networks import MLPDecoder
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

# %% [markdown]
# ## A sum of two
#
# The smallest code with two sites: two standard Normals, whose sum is seen through noise.
#
# $$z \sim N(0, 1), \quad c \sim N(0, 1), \quad x \mid z, c \sim N(z + c,\, \tfrac12^2).$$
#
# The guide has four numbers: $q(z \mid x) = N(b x, \upsilon^2)$ and
# $q(c \mid x) = N(a x, \tau^2)$. With a weight $\beta_c$ on the second divergence, the objective
# per datum is a formula:
#
# $$J = -\frac{(1 - a - b)^2 x^2 + \tau^2 + \upsilon^2}{2 \cdot \frac14}
# - \tfrac12 \log(2 \pi \tfrac14) - KL_z - \beta_c\, KL_c, \qquad
# KL_c = \tfrac12 (a^2 x^2 + \tau^2 - 1 - \log \tau^2).$$

# %%
x = torch.tensor([-2.0, -0.5, 0.5, 2.0])


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        c = pyro.sample("c", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + c, 0.5), obs=x)


def make_guide(b, upsilon, a, tau):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(b * x, upsilon))
            pyro.sample("c", dist.Normal(a * x, tau))

    return guide


def kl(loc, scale):
    """KL(N(loc, scale^2) || N(0, 1)), in closed form."""
    return (loc**2 + scale**2 - 1) / 2 - math.log(scale)


def objective(b, upsilon, a, tau, price):
    """J per datum, averaged over the four data."""
    fit = -2 * ((1 - a - b) ** 2 * x**2 + tau**2 + upsilon**2) - math.log(2 * math.pi / 4) / 2
    return float((fit - kl(b * x, upsilon) - price * kl(a * x, tau)).mean())


trace = poutine.trace(model).get_trace(x)
trace.compute_log_prob()
print(trace.format_shapes())
assert trace.nodes["z"]["log_prob"].shape == trace.nodes["c"]["log_prob"].shape == (4,)

# %% [markdown]
# ## Leaving a divergence out
#
# In Pyro a handler gives a site a weight. `poutine.scale` multiplies the site's log-probability in
# model and guide, and so its divergence. It refuses the weight 0, for which there is
# `poutine.mask`. `mi.weigh_sites` does both, for the sites that you name, in any model or guide,
# under any ELBO. It must not change anything else. We check the mean of 4,000 draws of the loss
# against the formula, with its standard error.

# %%
price = 0.0
settings = (0.3, 0.8, 0.5, 0.4)
weighed = [mi.weigh_sites(f, {"c": price}) for f in (model, make_guide(*settings))]
pyro.set_rng_seed(0)
elbo = TraceMeanField_ELBO()
draws = torch.tensor([elbo.loss(*weighed, x.repeat(100)) for _ in range(40)]) / -400
error = float(draws.std()) / math.sqrt(len(draws))
exact = objective(*settings, price)
print(f"formula {exact:.3f}, drawn {draws.mean():.3f} ± {error:.3f}")
assert abs(float(draws.mean()) - exact) < 4 * error < 0.1

# %% [markdown]
# ## The trap: a rate without a bound
#
# Now look for the best guide. With a free $c$ the answer is easy: put everything into it. Take
# $a = 1$ and $b = 0$, so that $z$ knows nothing of the datum, and make $\tau$ small. Each division
# of $\tau$ by ten is free and makes the reconstruction a little better.

# %%
upsilon = math.sqrt(1 / 5)  # the best scale of z: precision 1 of the prior plus 4 of the noise
taus = [10.0**-k for k in range(0, 7)]
free = [objective(0.0, upsilon, 1.0, t, 0.0) for t in taus]
true_elbo = [objective(0.0, upsilon, 1.0, t, 1.0) for t in taus]
rate = [float(kl(x, t).mean()) for t in taus]
for row in zip(taus, free, rate, true_elbo):
    print("tau {:8.0e}: J {:6.3f}, rate of c {:6.2f}, ELBO {:7.2f}".format(*row))
assert free == sorted(free)
assert rate[1:] == sorted(rate[1:])
assert abs(rate[-1] - rate[-2] - math.log(10)) < 1e-3
assert abs(math.log(10) - 2.303) < 5e-4

# %% [markdown]
# The objective converges. The rate does not: each step adds $\log 10$, or 2.303 nats, for ever.
# The ELBO, which charges all of it, falls by as much.
#
# Is this information? There are four data. No code can know more than $\log 4$ about which of
# them it belongs to. The bound of chapter 4 reads that at most, however small $\tau$ is.

# %%
torch.manual_seed(0)
which = torch.arange(4).repeat(500)


def information_bounds(tau):
    c = x[which] + tau * torch.randn(2000)
    scores = dist.Normal(x, tau).log_prob(c[:, None])  # (2000, 4): log q(c|x_j)
    own = scores.gather(1, which[:, None]).squeeze(1)
    return float((own - scores.logsumexp(1)).mean()) + math.log(4)  # exact marginal of four data


known = [information_bounds(t) for t in taus]
print("information of c, nats:", [f"{value:.2f}" for value in known])
assert all(value <= math.log(4) + 1e-5 for value in known)
assert abs(known[-1] - 1.386) < 1e-3
assert abs(rate[-1] - 14.4) < 0.05

# %% [markdown]
# The information is 1.386 nats, and the rate 14.4 and rising. The source calls
# $E_x KL(q(c \mid x) \,\|\, p(c))$ the information $I(x; c)$ and adds it to the ELBO; the two
# divergences cancel, and $c$ is free. But it is the *rate*, an upper bound. To maximise an upper
# bound is not to maximise what it bounds.
#
# **The repair** is a price, however small. With $\beta_c > 0$ the best $\tau$ balances $2 \tau^2$
# against $\beta_c (\tau^2 - \log \tau^2) / 2$:
#
# $$\tau^2 = \frac{\beta_c}{4 + \beta_c}.$$

# %%
for price in (1.0, 0.1, 0.01):
    best = math.sqrt(price / (4 + price))
    around = [objective(0.0, upsilon, 1.0, best * f, price) for f in (0.9, 1.0, 1.1)]
    finite = float(kl(x, best).mean())
    print(f"price {price:5.2f}: tau {best:.3f}, rate {finite:.2f}")
    assert around[1] == max(around)
assert abs(finite - 3.56) < 0.01

# %% [markdown]
# At a price of 0.01 the rate stops at 3.56 nats.
#
# ## How large is c's share?
#
# On the digits the code has ten dimensions. We give $c$ one, two, four or eight of them, free of
# charge, and train each model for a short time. How much of the images does each part explain?
# Keep one site at its posterior mean, put the other at its prior mean, decode, and take the share
# of the variance of the pixels, $R^2$.

# %%
digits = mi.load_dataset("digits")
x_train, x_test = digits.x_train, digits.x_test
sizes = [1, 2, 4, 8]


def train(code_dim, epochs, **options):
    torch.manual_seed(0)
    vae = mi.InfomaxVAE(
        digits.data_shape,
        latent_dim=10,
        code_dim=code_dim,
        decoder=MLPDecoder(10, digits.data_shape, (128, 128)),
        **options,
    )
    # "staged" takes the steps of Pyro, on the same noise, and faster (chapter 12).
    return vae, mi.fit(vae, x_train, epochs=epochs, lr=2e-3, engine="staged")


def share(vae, *keep):
    return reconstruction_r2(x_test, vae.reconstruct(x_test, keep=keep))


r2, paid, unpaid = {}, {}, {}
for d in sizes:
    vae, history = train(d, epochs=20)
    r2[d] = share(vae, "z", "c"), share(vae, "c"), share(vae, "z")
    paid[d], unpaid[d] = history["kl_z"], history["kl_c"]
    print(
        "{} free of 10: R² both {:.2f}, c alone {:.2f}, z alone {:.2f}".format(d, *r2[d]), end="; "
    )
    print(f"KL of z {paid[d][-1]:.2f}, of c {unpaid[d][-1]:.1f} nats")
alone = [r2[d][1] for d in sizes]
assert alone == sorted(alone)
assert all(r2[d][2] < 0.2 for d in sizes)
assert all(r2[d][0] - r2[d][1] < 0.05 for d in (4, 8))

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for name, place, color in (
    ("both", 0, "black"),
    ("c alone", 1, PALETTE[1]),
    ("z alone", 2, PALETTE[0]),
):
    left.plot(sizes, [r2[d][place] for d in sizes], marker="o", color=color, label=name)
left.set(xlabel="dimensions of c, of 10", ylabel="R² of the reconstruction", xticks=sizes)
left.axhline(0, color="grey", linewidth=0.8)
for d, color in zip(sizes, PALETTE):
    right.plot(range(1, 21), unpaid[d], color=color, label=f"{d} of 10")
most = math.log(len(x_train))
assert paid[8][-1] < 0.1
right.axhline(most, color="black", linestyle=":", label="log N")
right.set(xlabel="epoch", ylabel="KL of c, nats")
for ax in (left, right):
    style_axes(ax)
    ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# On the left, what each part explains. With four free dimensions or more, $c$ alone explains what
# both do, and $z$ pays nothing because it says nothing: its divergence is below 0.1 nats at
# eight. The part that pays is switched off wherever the part that does not pay suffices.
#
# (A part alone is decoded with the other at its prior mean. The decoder has seldom seen such a
# code, hence an $R^2$ below 0.)
#
# On the right, the trap in training: the rate of $c$ only rises. The dotted line is $\log 1438$,
# the most that any code can know about which of the 1,438 images it belongs to.

# %%
slopes = {d: unpaid[d][-1] - unpaid[d][-4] for d in sizes}
print("rise over the last three epochs:", {d: round(v, 1) for d, v in slopes.items()})
print(f"log N {most:.2f}; rates", {d: round(unpaid[d][-1], 1) for d in sizes})
assert abs(most - 7.27) < 5e-3
assert all(v > 0 for v in slopes.values())
assert all(unpaid[d][-1] > most for d in sizes)

# %% [markdown]
# Every rate is above 7.27 nats after 20 epochs, and still rising. Report it as what it is,
# `kl_c`, and report the information by bounds that know the data:
# `mi.information(vae.model, vae.guide, x)`.
#
# ## A deterministic code
#
# The source goes one step further: its $c$ is a *function* of the image. In Pyro that is a
# `Delta`. It is the limit $\tau \to 0$, where the rate is infinite. Yet Pyro's ELBO returns a
# finite number. Here is a test for such numbers. Measure $c$ in another unit, $c' = 10\,c$.
# Nothing about the model has changed, so no figure of it may change.


# %%
def in_units(unit, make_c):
    """The same pair, with c measured in another unit."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            c = pyro.sample("c", dist.Normal(0.0, unit))
            pyro.sample("x", dist.Normal(z + c / unit, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0 * x, upsilon))
            pyro.sample("c", make_c(unit * x, unit))

    pyro.set_rng_seed(0)
    return TraceMeanField_ELBO().loss(model, guide, x) / len(x)


def noisy(loc, unit):
    return dist.Normal(loc, 0.1 * unit)


def point(loc, unit):
    return dist.Delta(loc)


change = {f.__name__: in_units(10.0, f) - in_units(1.0, f) for f in (noisy, point)}
print("loss in the new unit, less the old:", {n: round(v, 4) for n, v in change.items()})
assert abs(change["noisy"]) < 1e-4
assert abs(change["point"] - math.log(10)) < 1e-4
assert abs(math.log(10) - 2.303) < 5e-4

# %% [markdown]
# The noisy code passes. The loss of the deterministic one moves by 2.303 nats, $\log 10$: it
# depends on the unit, so it is no ELBO and no bound. The repair is honesty about the figure. This
# library trains such a code and reports NaN, "not a number", wherever a figure does not exist.

# %%
vae, history = train(2, epochs=1, deterministic=True)
print(
    {name: round(history[name][-1], 2) for name in ("loss", "distortion", "kl_z", "kl_c", "elbo")}
)
assert all(math.isnan(history[name][-1]) for name in ("kl_c", "rate", "elbo"))
assert math.isfinite(history["loss"][-1])

# %% [markdown]
# ## Exercises
#
# 1. In the toy, exempt $z$ and let $c$ pay. The exempt site has the scale 1/1000, the other
#    $\sqrt{1/5}$. Which of $(a, b) = (1, 0)$ and $(0, 1)$ wins now, and by how many nats?
# 2. The four data hold $\log 4$ nats. Find the $\tau$ at which the code $c \sim N(x, \tau^2)$
#    knows 99 % of that. What is the rate there?
# 3. Which price $\beta_c$ gives the toy's $c$ a rate of 10 nats?
#
# The answers are code that runs: `tests/chapters/test_answers_later.py`.

# %% [markdown]
# ## Sources
#
# * Bachmann, InfomaxVAE, which names the rate an information:
#   <https://github.com/bacdavid/InfomaxVAE>
# * A. Alemi et al. (2018), Fixing a Broken ELBO: rate and distortion.
#   <https://arxiv.org/abs/1711.00464>
# * M. Hoffman and M. Johnson (2016), ELBO surgery: a rate is information plus a divergence.
#   <http://approximateinference.org/accepted/HoffmanJohnson2016.pdf>
