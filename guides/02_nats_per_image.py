# %% [markdown]
# # Nats per image: is 63 better than 84?
#
# Two papers report nats per image on the same pictures of digits. One says 63, the other 84. Fewer
# nats is better, so the first model must be better. Or is it? This chapter trains one model five
# times and gets five numbers.
#
# After this chapter you can
#
# * name the protocol of a number, and refuse to compare two that differ;
# * compute what a protocol costs any model, before anything is trained;
# * explain what a Bernoulli likelihood does with a grey pixel;
# * repair a comparison that mixes protocols.

# %%
import matplotlib.pyplot as plt
import pyro
import torch
from pyro import poutine

import pyro_mivae as mi
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

pyro.set_rng_seed(0)

# %% [markdown]
# ## One pixel
#
# A pixel has the grey value $x = 0.3$. A Bernoulli likelihood with probability $p$ gives it
#
# $$x \log p + (1 - x) \log (1 - p).$$
#
# For $x$ equal to 0 or 1 that is a log-probability. For a grey value it is a *cross-entropy* with
# a minus sign. Two things are odd about it. The best $p$ is $x$ itself, but even there the value
# is not 0. And its exponentials do not sum to one over the grey values, so it is no log-density.

# %%
x = torch.tensor(0.3)


def bernoulli_nats(x, p):
    return -(torch.xlogy(x, p) + torch.xlogy(1 - x, 1 - p))


p = torch.linspace(0.001, 0.999, 999)
best = p[bernoulli_nats(x, p).argmin()]
least = bernoulli_nats(x, x)
greys = torch.linspace(0, 1, 10_001)
total = torch.trapezoid(torch.exp(-bernoulli_nats(greys, x)), greys)
print(f"best p {best:.3f}, {least:.3f} nats there; the integral over grey values is {total:.3f}")
assert abs(best - x) < 1e-6
assert abs(least - 0.611) < 5e-4
assert abs(total - 0.472) < 5e-4

# %% [markdown]
# At its best the pixel costs 0.611 nats, and a density would integrate to 1 where this gives
# 0.472.
#
# There is a good way to read the number. Draw the pixel, as 1 with probability $x$ and as 0
# otherwise. The *expected* surprise at that draw is exactly the cross-entropy, because the formula
# is linear in $x$. The floor of 0.611 nats is the entropy of the draw. It is noise that we added
# ourselves, and no model can predict it.

# %%
drawn = torch.bernoulli(x.expand(100_000))
surprise = bernoulli_nats(drawn, torch.tensor(0.2))
se = surprise.std() / len(surprise) ** 0.5
exact = bernoulli_nats(x, torch.tensor(0.2))
print(f"mean surprise at draws {surprise.mean():.4f} ± {se:.4f}, cross-entropy {exact:.4f}")
assert abs(surprise.mean() - exact) < 4 * se

# %% [markdown]
# ## Five protocols
#
# | name | training images | test images | what a nat measures |
# | --- | --- | --- | --- |
# | grey | grey | grey | a cross-entropy |
# | threshold | 1 where x > 1/2 | the same | a log-probability of these images |
# | fixed | drawn once | drawn once | a log-probability of those |
# | dynamic | drawn anew in each batch | drawn once | a log-probability of those |
# | continuous | grey | grey | a log-density, of the continuous Bernoulli |
#
# Before we train anything, we can compute what each protocol costs a model that knows the grey
# image *perfectly*. We add up the entropies of its 64 pixels.

# %%
grey = mi.load_dataset("digits")
floor = bernoulli_nats(grey.x_test, grey.x_test).flatten(1).sum(1)  # (359,), nats
print(f"floor of grey, fixed and dynamic: {floor.mean():.1f} nats per image; of threshold: 0")
sharp = mi.binarize(grey.x_test, "threshold")
assert abs(floor.mean() - 13.5) < 0.05
assert bernoulli_nats(sharp, sharp).abs().max() == 0

# %% [markdown]
# Grey, fixed and dynamic images carry 13.5 nats of noise each. Thresholding removes all of it. So
# we know already that a model of thresholded images will report a much smaller number, whatever it
# has learned.
#
# ## One model, five numbers
#
# The same networks, the same seed, the same number of steps.


# %%
def train(protocol, latent_dim=8, likelihood="bernoulli"):
    """A VAE fitted to the digits by a protocol, and minus its ELBO per test image."""
    data = mi.load_dataset("digits", binarize=protocol)
    vae = mi.VAE(data.data_shape, latent_dim=latent_dim, likelihood=likelihood)
    mi.fit(vae, data.x_train, epochs=15, lr=3e-3, seed=0, binarize=protocol)
    return vae.eval(), nats(vae, data.x_test)


def nats(vae, x):
    """Minus the ELBO of each image, shape (n,): one draw of each code, ten times."""
    with torch.no_grad():
        found = []
        for _ in range(10):
            q = poutine.trace(vae.guide).get_trace(x)
            p = poutine.trace(poutine.replay(vae.model, trace=q)).get_trace(x)
            q.compute_log_prob()
            p.compute_log_prob()
            log_prob = p.nodes["z"]["log_prob"] + p.nodes["x"]["log_prob"]
            found.append(q.nodes["z"]["log_prob"] - log_prob)
    return torch.stack(found).mean(0)


results = {
    "grey": train("none"),
    "threshold": train("threshold"),
    "fixed": train("fixed"),
    "dynamic": train("dynamic"),
    "continuous": train("none", likelihood="continuous-bernoulli"),
}
means = {name: float(per_image.mean()) for name, (_, per_image) in results.items()}
for name, (_, per_image) in results.items():
    se = float(per_image.std() / len(per_image) ** 0.5)
    print(f"{name:10s} {means[name]:7.2f} ± {se:.2f} nats per test image")

vae, _ = results["dynamic"]  # in the table of shapes: weights first, then sites
trace = poutine.trace(vae.model).get_trace(mi.binarize(grey.x_test[:5], "fixed"))
print(trace.format_shapes())
assert trace.nodes["x"]["fn"].batch_shape == (5,)  # one number per image, not per pixel
assert means["threshold"] < means["grey"] - 3
assert abs(means["grey"] - means["dynamic"]) < 1.5
assert means["continuous"] < 0

# %%
figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
axes.barh(list(means), list(means.values()), color=PALETTE[0])
noise = float(floor.mean())
axes.barh(list(means)[:4], [noise, 0, noise, noise], color=PALETTE[3])
axes.invert_yaxis()
axes.set(xlabel="minus ELBO, nats per test image (grey: noise of the protocol)")
style_axes(axes)

# %% [markdown]
# Five numbers, and none of them says that a model is better than another. Grey, fixed and dynamic
# share a floor, the grey part of the bars, which is the noise that the protocol put in. What
# remains above it is what the model did not know. Thresholded images have no such noise, so their
# number is smaller by far. The continuous Bernoulli gives a *density* of grey values. Densities
# have units and can exceed 1, so minus the ELBO can even be negative.
#
# Grey and dynamic are relatives, as the one pixel showed: at the same code, the cross-entropy of a
# grey image is the expected surprise at its draws. But the guide of the grey model sees the grey
# image and not a draw of it, so its code cannot follow the draw, and it pays for details that no
# draw shows. Take one decoder: both numbers are upper bounds on its expected surprise at the
# draws, and a guide that sees the draw can come closer. The two may lie close together, as here.
# The grey number is still not a log-probability of any data.
#
# ## The trap: the better number of the worse model
#
# Train a model that is clearly too small, with a code of one dimension, on thresholded images. Put
# its number next to the one of the model with eight dimensions on dynamic images.

# %%
small, small_nats = train("threshold", latent_dim=1)
large, large_nats = results["dynamic"]
print(f"small, threshold {small_nats.mean():.1f}; large, dynamic {large_nats.mean():.1f} nats")
assert small_nats.mean() < large_nats.mean() - 1  # the small one seems better

fair, _ = train("dynamic", latent_dim=1)
test = mi.load_dataset("digits", binarize="dynamic").x_test
difference = nats(fair, test) - nats(large, test)
se = difference.std() / len(test) ** 0.5
print(f"same protocol: the small one needs {difference.mean():.1f} ± {se:.1f} nats more")
assert difference.mean() > 4 * se  # repaired: it is worse
assert se < 0.5

# %% [markdown]
# The small model wins by the number and loses by the task. The repair is to train and judge both
# by one protocol, on the same test images. The difference is then taken image by image, which
# makes its error small.
#
# So is 63 better than 84? Ask for the protocol first. On MNIST the same class of model has been
# reported with numbers that far apart, for no other reason.

# %% [markdown]
# ## Exercises
#
# 1. Convert nats per image to *bits per dimension*. What do fair coins for all 64 pixels cost?
# 2. Check that the continuous Bernoulli integrates to one. When is its log-density positive?
# 3. Merge 16 grey levels into 8 pairs. By how much can the entropy of a pixel fall? What follows
#    for models that quantise their images?
#
# The answers are code that runs: `tests/chapters/test_answers_road.py`.
#
# ## Sources
#
# * Loaiza-Ganem & Cunningham (2019), The Continuous Bernoulli: Fixing a Pervasive Error in
#   Variational Autoencoders, <https://arxiv.org/abs/1907.06845>.
# * Salakhutdinov & Murray (2008), On the Quantitative Analysis of Deep Belief Networks,
#   <https://doi.org/10.1145/1390156.1390266>: images drawn once.
# * Burda, Grosse & Salakhutdinov (2016), <https://arxiv.org/abs/1509.00519>: images drawn anew.
# * Theis, van den Oord & Bethge (2016), A Note on the Evaluation of Generative Models,
#   <https://arxiv.org/abs/1511.01844>.
