# %% [markdown]
# # What does a datum say about its code?
#
# A model runs from the code to the datum. Bayes' rule runs back. In most models the way back has
# no formula. In this chapter it has one, so we can do it three times: on a grid, by algebra, and
# by sampling. Then we know which of the three will still work when the formula is gone.
#
# After this chapter you can
#
# * compute a posterior and an evidence on a grid, and by completing a square;
# * tell a likelihood from a density of the code;
# * estimate an evidence by importance sampling, and say when that fails;
# * explain why a good guide turns sampling into exact arithmetic.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.distributions import kl_divergence

from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

pyro.set_rng_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The smallest model with a real code
#
# The code is one number, and so is the datum:
#
# $$z \sim N(0, 1), \qquad x \mid z \sim N(w z, s^2), \qquad w = 2, \quad s = 1.$$
#
# We observe $x = 3$. Which $z$ made it?
#
# ## Once: on a grid
#
# Write down every $z$ in small steps. Multiply the prior by the likelihood. The sum is the
# *evidence* $p(x)$, and division by it gives the posterior.

# %%
w, s = 2.0, 1.0
x = torch.tensor(3.0)
z = torch.linspace(-8, 8, 4001)
dz = z[1] - z[0]

prior = dist.Normal(0.0, 1.0).log_prob(z).exp()
likelihood = dist.Normal(w * z, s).log_prob(x).exp()  # of x, as a function of z
evidence = (prior * likelihood * dz).sum()
posterior = prior * likelihood / evidence
mean = (posterior * z * dz).sum()
sd = (posterior * (z - mean) ** 2 * dz).sum().sqrt()

print(f"log p(x) = {evidence.log():.4f}; posterior mean {mean:.3f}, standard deviation {sd:.3f}")
assert abs(evidence.log() + 2.62) < 5e-3
assert abs(mean - 1.2) < 1e-6 and abs(sd - 0.447) < 5e-4

# %% [markdown]
# The log-evidence is $-2.62$ nats. The posterior has its centre at 1.2 and a standard deviation of
# 0.447.
#
# ## Twice: by algebra
#
# The logarithm of prior times likelihood is a parabola in $z$. Its peak is the posterior's mean.
# Its second derivative is minus the posterior's *precision*, which is one over the variance:
#
# $$p(z \mid x) = N\Big(\frac{w x}{w^2 + s^2},\; \frac{s^2}{w^2 + s^2}\Big), \qquad
# p(x) = N(0, w^2 + s^2).$$
#
# The mean is a *linear function of the datum*, and the variance is the same for all data. Keep
# this in mind: a network that maps $x$ to a mean and a variance can be the exact posterior here.


# %%
def exact_posterior(x):
    return dist.Normal(w * x / (w**2 + s**2), s / math.sqrt(w**2 + s**2))


def log_evidence(x):
    return dist.Normal(0.0, math.sqrt(w**2 + s**2)).log_prob(x)


assert abs(exact_posterior(x).mean - mean) < 1e-9 and abs(log_evidence(x) - evidence.log()) < 1e-9
assert (exact_posterior(x).log_prob(z).exp() - posterior).abs().max() < 1e-9

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(z, prior, color=PALETTE[3], label="prior, p(z)")
axes.plot(z, likelihood, color=PALETTE[1], label="likelihood, p(x = 3 | z)")
axes.plot(z, posterior, color=PALETTE[0], label="posterior, p(z | x = 3)")
axes.set(xlim=(-3, 4), xlabel="code z")
axes.legend(frameon=False, loc="upper left")
style_axes(axes)

# %% [markdown]
# ## The trap: the likelihood is no density of the code
#
# The orange curve looks like a distribution of $z$. It is not. It is the density of one datum,
# computed under many codes, and its area is whatever it happens to be. Here the area is $1 / |w|$,
# or 0.5.
#
# It is tempting to read the code off its peak, $z = x / w$, which is 1.5. That is where the datum
# fits best, and it forgets which codes are common. Draw many pairs from the model, and compare.

# %%
area = (likelihood * dz).sum()
codes = torch.randn(20_000)
data = w * codes + s * torch.randn(20_000)
errors = {
    "peak of the likelihood": (data / w - codes) ** 2,
    "mean of the posterior": (exact_posterior(data).mean - codes) ** 2,
}
for name, squared in errors.items():
    se = squared.std() / len(codes) ** 0.5
    print(f"{name}: mean squared error {squared.mean():.3f} ± {se:.3f}")
peak, repaired = (squared.mean() for squared in errors.values())
assert abs(area - 0.5) < 1e-6 and abs(x / w - 1.5) < 1e-9
# Exactly s^2 / w^2 and s^2 / (w^2 + s^2). A squared normal of mean m has the deviation sqrt(2) m.
four_errors = 4 * math.sqrt(2 / len(codes))
assert abs(peak - 0.25) < 0.25 * four_errors and abs(repaired - 0.2) < 0.2 * four_errors

# %% [markdown]
# The peak errs by 0.25 in the mean square, and the posterior mean by 0.2. No function of the datum
# does better than the posterior mean. The prior pulled each answer a little towards 0, and that
# pull is not a bias to be regretted. It is knowledge.
#
# ## Three times: by sampling
#
# A grid with 4001 points in each of 20 dimensions has more points than there are atoms in the
# world. Sampling does not mind the number of dimensions so directly. Draw codes from any density
# $q$ that is nowhere zero, and weigh them:
#
# $$p(x) = E_{z \sim q}\Big[\frac{p(z)\, p(x \mid z)}{q(z)}\Big].$$
#
# With $q$ the prior, the weight is the likelihood. Take $d$ independent copies of our model, so
# that code and datum have $d$ dimensions and $\log p(x)$ is still known.


# %%
def log_weights(x, q, num_draws):
    """log p(z) p(x|z) / q(z) for draws of q; shape (num_draws, *batch of x)."""
    z = q.sample((num_draws,))  # (num_draws, batch, d)
    terms = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(w * z, s).log_prob(x) - q.log_prob(z)
    return terms.sum(-1)


def log_mean_exp(log_weight):
    return log_weight.logsumexp(0) - math.log(len(log_weight))


for d in (1, 5, 20):
    data = w * torch.randn(200, d) + s * torch.randn(200, d)
    from_prior = log_weights(data, dist.Normal(torch.zeros(200, d), 1.0), 1000)
    error = log_mean_exp(from_prior) - log_evidence(data).sum(-1)  # (200,)
    print(f"{d:2d} dimensions: log p(x) is off by {error.mean():.2f} nats on average")
    if d == 1:
        assert abs(error.mean()) < 0.05
assert error.mean() < -3

# %% [markdown]
# In one dimension a thousand draws suffice. In twenty, not one of a thousand draws from the prior
# lies near the few codes that could have made the datum, and the estimate is several nats too low.
# It is always low on average: the logarithm of a mean is larger than the mean of logarithms
# (Jensen's inequality). The more the weights scatter, the lower is the estimate.
#
# Now draw from the exact posterior.

# %%
from_posterior = log_weights(data, exact_posterior(data), 1000)
scatter = from_posterior.std(0).max()
error = log_mean_exp(from_posterior) - log_evidence(data).sum(-1)
print(f"weights scatter by {scatter:.0e} nats, log p(x) is off by {error.abs().max():.0e}")
assert scatter < 1e-9 and error.abs().max() < 1e-9

wide = dist.Normal(exact_posterior(data).mean, 1.2 * exact_posterior(data).stddev)
error = log_mean_exp(log_weights(data, wide, 1000)) - log_evidence(data).sum(-1)
print(f"standard deviations 20 % too large: off by {error.mean():.3f} nats")
assert -0.05 < error.mean() < 0.01

# %% [markdown]
# From the posterior, *every single draw* gives $\log p(x)$ exactly. That is Bayes' rule, read as
# $p(x) = p(z)\, p(x \mid z) / p(z \mid x)$: true at each $z$. And a $q$ that is only nearly right
# is nearly as good.
#
# So all depends on finding a $q$ close to the posterior, for each datum. This is the job of the
# guide.
#
# ## The same in Pyro
#
# Model and guide for a batch of data. The code stands inside the plate, one for each datum. The
# guide is the formula from above; later, a network will stand there. `poutine.replay` runs the
# model on the codes that the guide drew.


# %%
def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(w * z, s).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", exact_posterior(x).to_event(1))


drawn = poutine.trace(guide).get_trace(data)
trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(data)
trace.compute_log_prob()
print(trace.format_shapes())
assert trace.nodes["z"]["fn"].batch_shape == (200,) and trace.nodes["z"]["fn"].event_shape == (20,)

loss = Trace_ELBO().loss(model, guide, data)
print(f"loss {loss:.6f}, minus log p(x) of all data {-log_evidence(data).sum():.6f}")
assert abs(loss + log_evidence(data).sum()) < 1e-6

# %% [markdown]
# The loss is minus the log-evidence of all 200 data, to the last digit, from one draw of each
# code.
#
# ## How much did we learn?
#
# The distance from prior to posterior is what one datum told us. Averaged over the model's own
# data it is the information between code and datum,
#
# $$I(x; z) = E_x\, KL(p(z \mid x) \,\|\, p(z)) = \tfrac12 \log(1 + w^2 / s^2).$$

# %%
data = w * torch.randn(20_000) + s * torch.randn(20_000)
learned = kl_divergence(exact_posterior(data), dist.Normal(0.0, 1.0))  # (20000,), nats
information = 0.5 * math.log(1 + w**2 / s**2)
se = learned.std() / len(data) ** 0.5
print(f"mean KL {learned.mean():.3f} ± {se:.3f}, the formula {information:.3f}")
assert abs(learned.mean() - information) < 4 * se and abs(information - 0.80) < 5e-3

# %% [markdown]
# One datum tells 0.80 nats about its code, a little more than one yes-or-no answer. A strong
# signal ($w$ large) or little noise ($s$ small) would tell more.

# %% [markdown]
# ## Exercises
#
# 1. Observe the same code twice, $x_1$ and $x_2$, each with noise of its own. Derive the
#    posterior, and check it on the grid. What happens to its variance with $n$ observations?
# 2. Replace the guide's mean by 0 and its scale by 1. By how much is the ELBO below the evidence,
#    on average over the model's data? Predict the number before you compute it.
# 3. Give $q$ a standard deviation that is half of the posterior's. Why does importance sampling
#    suffer more than from one that is twice as large?
#
# The answers are code that runs: `tests/chapters/test_answers_road.py`.
#
# ## Sources
#
# * MacKay (2003), Information Theory, Inference, and Learning Algorithms, chapters 3 and 29,
#   <https://www.inference.org.uk/mackay/itila/>.
# * Bishop (2006), Pattern Recognition and Machine Learning, section 2.3.3 (linear-Gaussian
#   models),
#   <https://www.microsoft.com/en-us/research/publication/pattern-recognition-machine-learning/>.
# * Owen (2013), Monte Carlo theory, methods and examples, chapter 9,
#   <https://artowen.su.domains/mc/>.
