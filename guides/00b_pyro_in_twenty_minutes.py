# %% [markdown]
# # What does Pyro add to PyTorch?
#
# PyTorch computes with tensors and differentiates. Pyro adds *named random draws*. With names,
# tools can run your program, see what it drew, change it, and score it. This page shows the seven
# words that the rest of the book uses: `sample`, `trace`, `condition`, `plate`, `to_event`,
# `param` and `SVI`.
#
# After this chapter you can
#
# * write a probabilistic program, and compute the log-probability of anything that it drew;
# * read a table of shapes, and tell a plate from an event;
# * mend the most common error of Pyro programs;
# * fit an approximate posterior with `SVI`, and check it against the exact one.

# %%
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

pyro.set_rng_seed(0)

# %% [markdown]
# ## sample: a draw with a name
#
# How warm is it here in June? Call the mean temperature of the month $\mu$. Before any measurement
# we believe $\mu \sim N(15, 5^2)$. One day's temperature scatters about it, $x \sim N(\mu, 2^2)$.
#
# A *model* is a Python function that draws these in order. `pyro.sample(name, distribution)`
# returns a tensor. Each such line is called a *site*.


# %%
def one_day():
    mu = pyro.sample("mu", dist.Normal(15.0, 5.0))
    return pyro.sample("x", dist.Normal(mu, 2.0))


draws = torch.stack([one_day() for _ in range(2000)])
print(f"mean {draws.mean():.1f}, standard deviation {draws.std():.1f}")
# Exactly, x ~ N(15, 5^2 + 2^2). The tolerances are four standard errors of 2000 draws.
exact_sd = 29**0.5
assert abs(draws.mean() - 15) < 4 * exact_sd / 2000**0.5
assert abs(draws.std() - exact_sd) < 4 * exact_sd / 4000**0.5

# %% [markdown]
# ## trace: what did it draw, and how probable was that?
#
# Without Pyro's tools, `one_day` is an ordinary function. `poutine.trace` runs it and records each
# site: its value, and the distribution that it came from. So the log-probability of everything is
# a sum over sites,
#
# $$\log p(\mu, x) = \log p(\mu) + \log p(x \mid \mu).$$

# %%
trace = poutine.trace(one_day).get_trace()
mu, x = trace.nodes["mu"]["value"], trace.nodes["x"]["value"]
by_hand = dist.Normal(15.0, 5.0).log_prob(mu) + dist.Normal(mu, 2.0).log_prob(x)
print(f"drew mu = {mu:.2f}, x = {x:.2f}; log p(mu, x) = {trace.log_prob_sum():.3f} nats")
assert abs(trace.log_prob_sum() - by_hand) < 1e-6

# %% [markdown]
# ## condition: what if it had drawn this?
#
# Data are draws whose value we know. `poutine.condition` puts a value in the place of a draw. The
# site is then *observed*: it is scored and no longer drawn. To write `obs=x` in `pyro.sample` has
# the same effect.

# %%
warm_day = poutine.condition(one_day, data={"x": torch.tensor(20.4)})
trace = poutine.trace(warm_day).get_trace()
mu = trace.nodes["mu"]["value"]
by_hand = dist.Normal(15.0, 5.0).log_prob(mu) + dist.Normal(mu, 2.0).log_prob(torch.tensor(20.4))
print(f"observed {trace.observation_nodes}, drew {trace.stochastic_nodes}")
assert trace.nodes["x"]["is_observed"] and not trace.nodes["mu"]["is_observed"]
assert abs(trace.log_prob_sum() - by_hand) < 1e-6

# %% [markdown]
# ## plate and to_event: which numbers belong together?
#
# Measure on five days, by three thermometers. The days are independent given $\mu$. Pyro has to be
# told so: `pyro.plate("days", 5)` says that the draws inside it are independent along one
# dimension of the tensor. We want to handle the three thermometers of a day as *one* draw, a
# vector of size three: `.to_event(1)` says that the last dimension belongs to one draw.
#
# The table of shapes shows both. Plates stand to the left of the bar, the event to the right.

# %%
x = torch.tensor([[18.9, 19.4, 19.0], [21.3, 20.8, 22.0], [20.4, 20.1, 19.6],
                  [19.2, 19.9, 18.8], [22.1, 21.6, 23.0]])  # fmt: skip


def june(x):
    mu = pyro.sample("mu", dist.Normal(15.0, 5.0))
    with pyro.plate("days", len(x)):
        means = mu.unsqueeze(-1) * torch.ones(3)  # the same for each thermometer
        pyro.sample("x", dist.Normal(means, 2.0).to_event(1), obs=x)


trace = poutine.trace(june).get_trace(x)
trace.compute_log_prob()
print(trace.format_shapes())
assert trace.nodes["x"]["fn"].batch_shape == (5,) and trace.nodes["x"]["fn"].event_shape == (3,)
assert trace.nodes["x"]["log_prob"].shape == (5,)  # one number per day
assert trace.nodes["mu"]["log_prob"].shape == ()

# %% [markdown]
# The site `mu` has neither: there is one for the whole month. The site `x` has a plate of 5 and an
# event of 3, and so five log-probabilities, one for each day. The plate `days` has lines of its
# own. When you are lost in a Pyro program, print this table.
#
# ## The trap: a dimension that nobody declared
#
# Leave out `.to_event(1)`. The site then has two dimensions of independent draws, and only one
# plate. The program runs as PyTorch, but no tool can know what the other dimension means. Pyro
# checks this as soon as you train. (`max_plate_nesting=1` says that no plate stands in another.)


# %%
def careless(x):
    mu = pyro.sample("mu", dist.Normal(15.0, 5.0))
    with pyro.plate("days", len(x)):
        pyro.sample("x", dist.Normal(mu, 2.0).expand([len(x), 3]), obs=x)


def any_guide(x):
    pyro.sample("mu", dist.Normal(15.0, 5.0))


try:
    Trace_ELBO(max_plate_nesting=1).loss(careless, any_guide, x)
    message = "no error"
except ValueError as error:
    message = str(error)
print(message)
assert message.startswith("Shape mismatch inside plate('days') at site x")

repaired = Trace_ELBO(max_plate_nesting=1).loss(june, any_guide, x)
assert repaired > 0  # a number, in nats

# %% [markdown]
# The first line of the message says it: the plate `days` has size 5, and the last dimension of the
# site `x` has size 3. The table of shapes, up to that site, follows. `.to_event(1)` is the repair
# that we want here. Two plates would be another, `pyro.plate("days", 5, dim=-2)` and
# `pyro.plate("thermometers", 3, dim=-1)`. They say that each thermometer is a draw of its own.
#
# ## param and guide: a distribution to be learned
#
# We want the posterior $p(\mu \mid x)$. A *guide* is a second program. It takes the same arguments
# as the model and draws the same sites, except the observed ones, from a distribution that we can
# learn. `pyro.param(name, start)` makes a tensor that gradients change, keeps it in the *parameter
# store*, and returns it. The constraint keeps the scale above zero.


# %%
def guide(x):
    loc = pyro.param("loc", torch.tensor(15.0))
    scale = pyro.param("scale", torch.tensor(5.0), constraint=constraints.positive)
    pyro.sample("mu", dist.Normal(loc, scale))


pyro.clear_param_store()  # the store outlives programs: start from nothing
guide(x)
print(dict(pyro.get_param_store()))
assert set(pyro.get_param_store()) == {"loc", "scale"}

# %% [markdown]
# ## SVI: run both, compare, take a step
#
# Stochastic variational inference repeats this step. Run the guide, which draws $\mu$. Run the
# model on that $\mu$. Then follow the gradient of the *evidence lower bound*,
#
# $$ELBO = E_{q(\mu)} [\log p(\mu, x) - \log q(\mu)] \le \log p(x).$$
#
# The *evidence* is $p(x)$, the density of the data with $\mu$ integrated out. The bound is tight
# exactly if the guide is the posterior. The loss of SVI is minus the ELBO, in nats.
#
# `num_particles=20` averages twenty draws of $\mu$ for each step. `vectorize_particles` makes them
# in one run, along a new dimension to the left of the plate, so `mu` then has the shape `(20, 1)`.
# For this `june` wrote `mu.unsqueeze(-1)`: the last dimension is that of the thermometers.

# %%
elbo = Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
svi = SVI(june, guide, Adam({"lr": 0.05}), loss=elbo)
losses = [svi.step(x) for _ in range(600)]
found = dist.Normal(pyro.param("loc").detach(), pyro.param("scale").detach())

# The exact posterior: precisions add up, and the means are weighed by them.
precision = 1 / 5**2 + x.numel() / 2**2
exact = dist.Normal((15 / 5**2 + x.sum() / 2**2) / precision, precision**-0.5)
# The exact evidence, log p(x) = log p(mu, x) - log p(mu | x), is the same at each mu.
at = {"mu": exact.mean}
log_joint = poutine.trace(poutine.condition(june, data=at)).get_trace(x).log_prob_sum()
log_px = log_joint - exact.log_prob(exact.mean)

print(f"exact posterior: mean {exact.mean:.2f}, standard deviation {exact.stddev:.2f}")
print(f"guide:           mean {found.mean:.2f}, standard deviation {found.stddev:.2f}")
print(f"log p(x) {log_px:.2f}, ELBO {-sum(losses[-100:]) / 100:.2f} nats")
assert abs(exact.mean - 20.35) < 5e-3 and abs(exact.stddev - 0.51) < 5e-3
assert abs(found.mean - exact.mean) < 0.1 and abs(found.stddev - exact.stddev) < 0.1
assert abs(log_px + sum(losses[-100:]) / 100) < 0.05 and losses[0] > losses[-1]

# %%
mu = torch.linspace(10, 25, 400)
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(mu, dist.Normal(15.0, 5.0).log_prob(mu).exp(), color=PALETTE[3], label="prior, p(μ)")
axes.plot(mu, exact.log_prob(mu).exp(), color=PALETTE[0], linewidth=4, label="posterior, p(μ | x)")
axes.plot(mu, found.log_prob(mu).exp(), color=PALETTE[2], linestyle="--", label="guide, q(μ)")
axes.plot(x.flatten(), torch.zeros(15), "|", color="black", markersize=12, label="data")
axes.set(xlabel="mean temperature μ", ylabel="density")
axes.legend(frameon=False, loc="upper left")
style_axes(axes)

# %% [markdown]
# The posterior of this model has a formula: its mean is 20.35 degrees and its standard deviation
# 0.51. The guide found both, to a tenth of a degree, and the ELBO touched $\log p(x)$. For the
# models of later chapters there is no formula, and the ELBO is what remains.
#
# ## From one parameter to networks
#
# Two things change on the way to a VAE, and nothing else.
#
# * The unknown is not one $\mu$ for all data. Each datum has a code of its own, `z`, so `z` moves
#   *into* the plate.
# * The guide does not store a mean for each datum. A network computes it from the datum. Pyro
#   knows the weights of a network by `pyro.module(name, network)`, or because the model is a
#   `PyroModule`, which is a `torch.nn.Module` whose parameters Pyro sees.
#
# ## Exercises
#
# 1. Move `mu` into the plate of `june`. What do its shapes become, and what does the model now
#    say?
# 2. Compute the ELBO for a guide that is the exact posterior, ten times with one particle each.
#    Why are all ten numbers the same?
# 3. Call `guide` after `pyro.clear_param_store()` and again without it. What is stored after an
#    SVI step, and what would a second model find that also calls a parameter `loc`?
#
# The answers are code that runs: `tests/chapters/test_answers_road.py`.
#
# ## Sources
#
# * Pyro's introduction, <https://pyro.ai/examples/intro_long.html>, and its page on shapes,
#   <https://pyro.ai/examples/tensor_shapes.html>.
# * Bingham et al. (2019), Pyro: Deep Universal Probabilistic Programming,
#   <https://jmlr.org/papers/v20/18-403.html>.
# * Hoffman, Blei, Wang & Paisley (2013), Stochastic Variational Inference,
#   <https://jmlr.org/papers/v14/hoffman13a.html>.
