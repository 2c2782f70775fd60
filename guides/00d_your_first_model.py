# %% [markdown]
# # How do I fit a model to my own array, look at it, and save it?
#
# Three steps, three calls. `mi.fit` trains, `mi.information` measures, `mi.save` keeps. The data
# are yours: a NumPy array, a tensor, or a data set of PyTorch, with the data along the first
# dimension.
#
# After this chapter you can
#
# * fit a variational autoencoder to an array, and know whether it has learned what there is;
# * choose a likelihood that suits the numbers of the array;
# * read the report of a model, and see what it reconstructs and what it dreams;
# * save a model and load it again.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyro
import torch
from pyro import poutine
from sklearn.datasets import load_digits
from torch.distributions import MultivariateNormal

import pyro_mivae as mi
from pyro_mivae import plots

pyro.set_rng_seed(0)

# %% [markdown]
# ## An array whose answer is known
#
# Start with data that you made yourself. Two hidden causes drive six sensors, and each sensor adds
# noise with a standard deviation of 0.5. The array is all that the model gets to see.

# %%
rng = np.random.default_rng(0)
mixing = rng.normal(size=(2, 6))
noise = 0.5
causes = rng.normal(size=(3000, 2))
sensors = (causes @ mixing + noise * rng.normal(size=(3000, 6))).astype(np.float32)
train, test = sensors[:2000], sensors[2000:]

truth = MultivariateNormal(torch.zeros(6), torch.tensor(mixing.T @ mixing + noise**2 * np.eye(6)))
log_p = truth.log_prob(torch.tensor(test).double())  # (1000,)
se = log_p.std() / len(test) ** 0.5
print(f"true log p(x): {log_p.mean():.2f} ± {se:.2f} nats per datum")
assert len(log_p) == 1000 and noise == 0.5
assert abs(log_p.mean() + 6.61) < 0.005

# %% [markdown]
# No model can do better than this on average. So we know what to hope for.
#
# ## Fit
#
# `mi.VAE(data_shape)` needs the shape of *one* datum. The sensors are real numbers, so the
# likelihood is a Gaussian. Its scale is learned. The learning rate falls from `lr` to 0 along a
# cosine. `generative_items=0` leaves out the figures that need data drawn from the model.

# %%
vae = mi.VAE((6,), latent_dim=2, likelihood="gaussian")
history = mi.fit(vae, train, epochs=25, lr=3e-3, lr_schedule="cosine", seed=0)
report = mi.information(vae.model, vae.guide, torch.tensor(test), generative_items=0)
found = report.to_dict()

lost = log_p.mean() - found["elbo"]
scale = float(vae.likelihood.scale.detach())
print(f"ELBO {found['elbo']:.2f} nats, {lost:.2f} below the truth; noise {scale:.2f}")
assert 0 < lost < 0.2
assert abs(scale - noise) < 0.05
assert history[0]["loss"] > history[-1]["loss"]

# %% [markdown]
# The model comes within 0.2 nats of the truth, and it found the noise of the sensors.
#
# ## The trap: numbers that do not suit the likelihood
#
# Now pictures. scikit-learn's digits are an array of 1,797 images, whose pixels are whole numbers
# from 0 to 16. The default likelihood, a Bernoulli, is for pixels between 0 and 1.

# %%
images = load_digits().images.astype(np.float32)[:, None]  # (1797, 1, 8, 8): add a channel
vae = mi.VAE((1, 8, 8), latent_dim=8)
try:
    mi.fit(vae, images, epochs=1)
    message = "no error"
except ValueError as error:
    message = str(error)
print(message)
assert "[0, 1]" in message and images.max() == 16

# %% [markdown]
# The library refuses instead of training on nonsense. There are two good repairs, and they mean
# different things.
#
# * Divide by 16. Then a pixel is a degree of brightness. The loss is a cross-entropy, which is
#   good for pictures and no log-probability of the grey values (chapter 2 is about this).
# * Keep the 17 levels, and give them a probability each: `mi.CategoricalLikelihood(17)`. Then nats
#   are log-probabilities of the data.
#
# We divide. The split into training and test images is ours to make as well.

# %%
images = images / 16
order = torch.randperm(len(images))
x_train, x_test = torch.tensor(images)[order[:1400]], torch.tensor(images)[order[1400:]]
print(mi.check(vae, x_train[:32]))
history = mi.fit(vae, x_train, epochs=60, seed=0)
print(f"loss {history[0]['loss']:.1f} in the first epoch, {history[-1]['loss']:.1f} in the last")
assert len(mi.check(vae, x_train[:32])) == 0  # no faults found
assert history[-1]["loss"] < 26 < history[0]["loss"]

# %% [markdown]
# `mi.check` runs model and guide once and looks for the faults of the pages before: shapes,
# plates, sites that do not match. It also prints the table of shapes. Here is that table again,
# from Pyro itself, for the guide. Its upper half lists the weights. In the lower half, there is
# one code `z` for each of five images, of size 8.

# %%
vae.eval()
trace = poutine.trace(vae.guide).get_trace(x_test[:5])
print(trace.format_shapes())
assert trace.nodes["z"]["fn"].batch_shape == (5,) and trace.nodes["z"]["fn"].event_shape == (8,)

# %% [markdown]
# ## Look
#
# First the numbers. The report measures on images that the model has not seen. Each number has a
# standard error, and `report.diagnoses` says in sentences what stands out.

# %%
report = mi.information(vae.model, vae.guide, x_test)
known = report.to_dict()
print(report)
print(*report.diagnoses, sep="\n")
assert abs(known["elbo"] + known["distortion"] + known["rate"]) < 1e-3
assert known["mi_lower"] <= known["mi_upper"] <= known["rate"]
assert known["elbo"] < known["log_px"]

# %% [markdown]
# Read it from the top. *Distortion* is what the code leaves unsaid about the image. *Rate* is what
# the code costs. Their sum is minus the ELBO. The *information* between image and code lies
# between two bounds, and it is never more than the rate. `docs/evaluation.md` has all the others.
#
# Then the pictures. `vae.reconstruct(x)` encodes and decodes. `vae.sample(n)` draws codes from the
# prior: what the model dreams.

# %%
columns = 12
rows = torch.stack(
    [x_test[:columns], vae.reconstruct(x_test[:columns]), vae.sample(columns)]
)  # (3, 12, 1, 8, 8)
figure, axes = plt.subplots(figsize=(6, 1.7), layout="constrained")
plots.plot_grid(axes, rows, ["image", "again", "dreamt"])

error = (rows[0] - rows[1]).square().mean()
spread = (x_test - x_train.mean(0)).square().mean()
print(f"share of the variance that is reconstructed: {1 - error / spread:.2f}")
assert 1 - error / spread > 0.5

# %% [markdown]
# The codes themselves are tensors, one row per image. Use them as you like: plot them, cluster
# them, feed them to a classifier. A dimension whose mean varies over the images is *active*.

# %%
codes = vae.encode(x_test)["z"]  # (397, 8): means of q(z|x)
spreads = vae.encode(x_test, "sd")["z"]
print(f"codes {tuple(codes.shape)}; spread of each dimension's mean: {codes.std(0)}")
assert codes.shape == spreads.shape == (397, 8)
used = codes.var(0) > 0.01
assert used.sum() == known["active_units"]

# %% [markdown]
# ## Save
#
# One file holds the weights, and the options that the model was built with. It is read without
# running any code that it might contain.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.pt"
    mi.save(vae, path)
    again = mi.load(path)
    size = path.stat().st_size
again.eval()
print(f"{size / 1e6:.1f} MB; the same codes: {torch.equal(again.encode(x_test)['z'], codes)}")
assert torch.equal(again.encode(x_test)["z"], codes)

# %% [markdown]
# The command line does the same for an array in a file, named `data` or `images`:
# `pyro-mivae train vae --data my.npz`. It trains, measures, draws, and leaves a folder with a page
# to read.

# %% [markdown]
# ## Exercises
#
# 1. The best *linear* model with one cause in place of two follows from the eigenvalues of the
#    covariance (Tipping & Bishop, eq. 7 and 8). How many nats does the missing cause cost it? Then
#    fit `latent_dim=1`. Can a network do better?
# 2. Multiply the sensors by 1000. By how many nats should the true $\log p(x)$ change? What does
#    that say about comparing nats of real numbers in different units?
# 3. Fit the 17 levels of the digits with `mi.CategoricalLikelihood(17)`. Why is the ELBO so much
#    lower than that of the grey pixels, although nothing went wrong?
#
# The answers are code that runs: `tests/chapters/test_answers_road.py`.
#
# ## Sources
#
# * Kingma & Welling (2014), Auto-Encoding Variational Bayes, <https://arxiv.org/abs/1312.6114>.
# * Rezende, Mohamed & Wierstra (2014), Stochastic Backpropagation,
#   <https://arxiv.org/abs/1401.4082>.
# * Tipping & Bishop (1999), Probabilistic Principal Component Analysis (the model of the sensors),
#   <https://doi.org/10.1111/1467-9868.00196>.
