# %% [markdown]
# # Swap the prior: what is gained?
#
# A prior says where codes lie before an image is seen. $N(0, I)$ is the usual choice, and only
# because it is easy. This chapter asks what a better one saves, in nats, and how much there is to
# save at all.
#
# After this chapter you can
#
# * split a rate into what the code knows and what the prior wastes;
# * write a prior of your own and fit it to the codes of a trained model;
# * read the gain of a mixture, a VampPrior and a flow against the most that any prior can gain;
# * draw samples from the prior that was trained, and keep batch norm out of a VampPrior.

# %%
import math
from copy import deepcopy

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import nn

import pyro_mivae as mi
from pyro_mivae import bounds
from pyro_mivae.networks import MLPDecoder, MLPEncoder
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

# %% [markdown]
# ## Two images, and three priors
#
# There are two images, equally likely. A guide gives each a code of one dimension,
# $z \mid x \sim N(\pm 2, 0.5^2)$. Over both images together the codes have the *aggregate
# posterior*
#
# $$q(z) = E_x\, q(z \mid x) = \tfrac12 N(-2, 0.5^2) + \tfrac12 N(2, 0.5^2).$$
#
# For any prior $p(z)$, the rate splits into two parts (Hoffman & Johnson, 2016):
#
# $$\underbrace{E_x\, KL(q(z \mid x) \,\|\, p(z))}_{\text{rate}}
# = \underbrace{I_q(x; z)}_{\text{what the code knows}}
# + \underbrace{KL(q(z) \,\|\, p(z))}_{\text{what the prior wastes}}.$$
#
# A prior appears in the second part alone. So no prior brings the rate below $I_q(x; z)$, and one
# prior reaches it: $p(z) = q(z)$. Since $z$ has one dimension here, we compute each part as a sum
# over a fine grid.

# %%
grid = torch.linspace(-12, 12, 4801, dtype=torch.float64)
step = grid[1] - grid[0]
posteriors = dist.Normal(torch.tensor([[-2.0], [2.0]], dtype=torch.float64), 0.5)
log_q = posteriors.log_prob(grid)  # (2, grid): log q(z|x)
log_aggregate = log_q.logsumexp(0) - math.log(2)
information = ((log_q.exp() * (log_q - log_aggregate)).sum(1) * step).mean()
priors = {
    "N(0, 1)": dist.Normal(0.0, 1.0).log_prob(grid),
    "N(0, 2.06²)": dist.Normal(0.0, math.sqrt(4 + 0.25)).log_prob(grid),
    "aggregate": log_aggregate,
}
rates = {n: float((log_q.exp() * (log_q - p)).sum(1).mean() * step) for n, p in priors.items()}
wasted = {
    n: float((log_aggregate.exp() * (log_aggregate - p)).sum() * step) for n, p in priors.items()
}
for name in priors:
    print(f"{name:<12} rate {rates[name]:.3f} = {information:.3f} + {wasted[name]:.3f}")
    assert abs(rates[name] - float(information) - wasted[name]) < 1e-9
variance = (log_aggregate.exp() * grid**2).sum() * step
assert abs(variance - 4.25) < 1e-6
assert abs(rates["N(0, 1)"] - 2.318) < 5e-4
assert abs(rates["N(0, 2.06²)"] - 1.417) < 5e-4
assert abs(information - 0.693) < 5e-4
assert abs(wasted["aggregate"]) < 1e-9

# %% [markdown]
# $N(0, 1)$ pays 2.318 nats. The Normal of the right variance, $4 + 0.25 = 4.25$, pays 1.417. The
# aggregate posterior pays 0.693, which is $\log 2$: the code knows which of two images it is. No
# prior pays less.
#
# ## A code in two dimensions
#
# Now the digits. The code has two dimensions, so that we can plot it; for no other reason. The
# guide is trained with the prior $N(0, I)$.


# %%
digits = mi.load_dataset("digits")
x_train, x_test = digits.x_train, digits.x_test


def build(prior):
    torch.manual_seed(0)
    return mi.VAE(
        digits.data_shape,
        latent_dim=2,
        prior=prior,
        encoder=MLPEncoder(digits.data_shape, (128, 128), batch_norm=True),
        decoder=MLPDecoder(2, digits.data_shape, (128, 128)),
    )


vae = build(mi.StandardNormalPrior(2))
# "staged" takes the steps of Pyro, on the same noise, and faster (chapter 12).
history = mi.fit(vae, x_train, epochs=30, lr=3e-3, engine="staged")
trace = poutine.trace(vae.model).get_trace(x_test[:5])
print(trace.format_shapes())
print(f"loss {history['loss'][0]:.1f} to {history['loss'][-1]:.1f} nats per image")
assert trace.nodes["z"]["fn"].event_shape == (2,)
assert trace.nodes["z"]["value"].shape == (5, 2)

# %% [markdown]
# Before we try any other prior, we can say how much there is to gain. Two bounds of chapter 4
# enclose the information: `infonce_bound` from below, `leave_one_out_bound` from above. The rest
# of the rate is waste.


# %%
def codes_of(vae, x):
    """One code of each image, and log q(z_i|x_j) of code i under image j."""
    with torch.no_grad():
        q = vae.guide.distributions(x)["z"]
        z = q.sample()  # (n, 2)
        return z, q.log_prob(z[:, None])  # (n, n)


def log_prior(prior, z):
    """log p(z) of each code: the prior is run with z observed (chapter 0b)."""
    with torch.no_grad(), pyro.plate("data", len(z)):
        trace = poutine.trace(poutine.condition(prior, {"z": z})).get_trace()
        return trace.nodes["z"]["fn"].log_prob(z)


torch.manual_seed(1)
z, log_q = codes_of(vae, x_test)
known = [float(f(log_q)) for f in (bounds.infonce_bound, bounds.leave_one_out_bound)]
own = log_q.diagonal()
rate = float((own - log_prior(vae.prior, z)).mean())
print(f"rate {rate:.2f}, of which known {known[0]:.2f} to {known[1]:.2f}")
print(f"a prior can gain {rate - known[1]:.2f} to {rate - known[0]:.2f}")
assert 0 < rate - known[1] < rate - known[0] < 0.5

# %% [markdown]
# ## A prior of your own
#
# A prior is a `PyroModule`. The model calls it without arguments, inside the plate of the data.
# It samples its site and returns what the decoder decodes. Here is a mixture of ten Gaussians,
# whose means, scales and weights are learned. It is plain Pyro and uses nothing of this library.


# %%
class TenGaussians(PyroModule):
    """A mixture of Gaussians; its log-probability sums over the components."""

    def __init__(self, latent_dim=2, num_components=10):
        super().__init__()
        self.means = nn.Parameter(torch.randn(num_components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(num_components, latent_dim) - 0.5)
        self.logits = nn.Parameter(torch.zeros(num_components))

    def forward(self):
        which = dist.Categorical(logits=self.logits)
        each = dist.Normal(self.means, self.log_scales.exp()).to_event(1)
        return pyro.sample("z", dist.MixtureSameFamily(which, each))


# %% [markdown]
# To plug it in on the command line, save the imports and the class in a file of your own,
# `own.py`:
#
#     pyro-mivae train vae --prior own.py:TenGaussians --latent-dim 2
#
# Here guide and decoder stay as they are, and each prior is fitted to the codes.
# `mi.refit_prior` maximises $E_x E_{q(z \mid x)} \log p(z)$, which brings $p(z)$ towards $q(z)$.
# The distortion does not change, so each nat that the rate loses is a nat that the ELBO gains.
# We fit two other priors beside the mixture:
#
# * a **VampPrior** is a mixture of the guide's own posteriors, $\sum_k w_k\, q(z \mid u_k)$, at
#   learned pseudo-inputs $u_k$. If the $u_k$ were all training images it would be $q(z)$ itself;
# * a **flow** sends a Normal draw through an invertible network, so its density has a formula. The
#   layers of this one, `"coupling"`, shift and scale one coordinate by a function of the other.

# %%
candidates = {
    "mixture": (TenGaussians(2), 2e-2),
    "Vamp": (mi.VampPrior(digits.data_shape, 2, num_components=30, learn_weights=True), 1e-2),
    "flow": (mi.FlowPrior(2, "coupling", transforms=4, hidden_dims=(32,)), 1e-2),
}
fitted = {"N(0, I)": vae}
for name, (prior, lr) in candidates.items():
    fitted[name] = mi.refit_prior(vae, x_train, prior, epochs=15, lr=lr)

gain = {}
for name, other in fitted.items():
    saved = log_prior(other.prior, z) - log_prior(vae.prior, z)  # of each code
    gain[name] = float(saved.mean()), float(saved.std()) / math.sqrt(len(z))
    print("{:<8} gain {:.2f} ± {:.2f}".format(name, *gain[name]))
most = rate - known[0]  # that any prior can gain
assert all(g < most + 3 * error for g, error in gain.values())
assert gain["Vamp"][0] > 0

# %%
LEVELS = [0.01, 0.03, 0.06, 0.1, 0.15, 0.2]  # of the density, the same in each panel
axis = torch.linspace(-3.5, 3.5, 120)
plane = torch.cartesian_prod(axis, axis)
fig, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained", sharey=True)
for ax, (name, other) in zip(axes, fitted.items()):
    ax.scatter(*z.T, s=4, c=[PALETTE[y] for y in digits.y_test])
    density = log_prior(other.prior, plane).exp().reshape(120, 120).T
    ax.contour(axis, axis, density, levels=LEVELS, colors="black", linewidths=0.6)
    ax.set(title=f"{name}: rate {rate - gain[name][0]:.2f}", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
    style_axes(ax)
plt.show()

# %% [markdown]
# Each point is a code of a test image, in the colour of its digit; no prior has seen the digits.
# The contours of the mixture and of the VampPrior follow the codes better than the circles of
# $N(0, I)$. The gain is small all the same, because there was little to gain: the guide was
# trained with $N(0, I)$, and its rate made it place its codes like $N(0, I)$. That is the first
# lesson. A prior that is fitted afterwards saves at most $KL(q(z) \,\|\, N(0, I))$. Measure that
# before you build anything.
#
# ## Trained together
#
# The second lesson: trained *with* the guide, a flexible prior lets the codes go where they like.
# Then the distortion moves too, and the whole ELBO has to be compared.

# %%
flow_vae = build(mi.FlowPrior(2, "coupling", transforms=4, hidden_dims=(32,)))
mi.fit(flow_vae, x_train, epochs=30, lr=3e-3, engine="staged")


def elbo_rows(vae, seed=1):
    """The ELBO of each test image, from one code."""
    torch.manual_seed(seed)
    z, log_q = codes_of(vae, x_test)
    with torch.no_grad():
        logits = vae.model.decoder(z)
        pixels = dist.Bernoulli(logits=logits, validate_args=False).log_prob(x_test)
    return z, pixels.flatten(1).sum(1) - log_q.diagonal() + log_prior(vae.prior, z)


z_flow, of_flow = elbo_rows(flow_vae)
_, of_normal = elbo_rows(vae)
difference = of_flow - of_normal
better, error = float(difference.mean()), float(difference.std()) / math.sqrt(len(x_test))
spread = z_flow.std(0)
print(
    f"ELBO: N(0, I) {of_normal.mean():.2f}, flow {of_flow.mean():.2f}, "
    f"difference {better:.2f} ± {error:.2f}"
)
print("scale of the codes:", [round(v, 2) for v in spread.tolist()], "in place of 1")
assert abs(better) < 0.5
assert spread.min() > 1.3

# %% [markdown]
# ## The trap: N(0, I) after training a flow
#
# The ELBOs lie less than half a nat apart; one seed of each says no more. What has changed is
# *where* the codes are: they spread wider than $N(0, I)$.
#
# Scripts for VAEs end with `decoder(torch.randn(64, 2))`. With a flow prior that line still runs.
# It decodes codes that the model does not use.

# %%
torch.manual_seed(2)
wrong = torch.randn(500, 2)
with torch.no_grad(), pyro.plate("data", 500):
    right = flow_vae.prior()  # 500 codes: Normal noise, sent through the flow


def distance(images):
    """Of each image to the nearest training image, and the standard error of the mean."""
    nearest = torch.cdist(images.flatten(1), x_train.flatten(1)).min(1).values
    return float(nearest.mean()), float(nearest.std()) / math.sqrt(len(images))


drawn = {
    "N(0, I)": flow_vae.decode({"z": wrong}, 500),
    "the prior": flow_vae.decode({"z": right}, 500),
    "test codes": flow_vae.reconstruct(x_test),
}
far = {name: distance(images) for name, images in drawn.items()}
for name, (d, e) in far.items():
    print(f"decoded from {name:<10}: {d:.2f} ± {e:.2f} from the nearest training image")
gap = far["N(0, I)"][0] - far["the prior"][0]
assert gap > 3 * math.hypot(far["N(0, I)"][1], far["the prior"][1])

# %%
fig, axes = plt.subplots(2, 1, figsize=(9, 2.6), layout="constrained")
for ax, name in zip(axes, ("N(0, I)", "the prior")):
    row = torch.nn.functional.pad(drawn[name][:16, 0], (1, 1, 1, 1)).permute(1, 0, 2).flatten(1)
    ax.imshow(row.numpy(), cmap="gray_r")
    ax.set(title=f"decoded from {name}", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The first row was decoded from $N(0, I)$, the second from the prior. None was chosen: they are
# the first sixteen. Images decoded from $N(0, I)$ lie further from the training images. The
# repair is to let the model draw: `vae.sample(64)` uses the prior that was trained.
#
# ## A second trap: batch norm on pseudo-inputs
#
# A VampPrior sends its pseudo-inputs through the encoder. Many encoders have batch norm. In
# training mode it normalises by the batch, and this batch is then the pseudo-inputs. Two things
# go wrong. The density of a code differs from the one in evaluation mode. And the running
# statistics, which belong to the data, move towards the pseudo-inputs. The cell takes the first
# training images as pseudo-inputs. It prints by how much the log density of a code is off (the
# mean absolute error), first in training mode, and then in evaluation mode afterwards.


# %%
def log_density(guide, inputs):
    """Log density of each test code under a mixture of the guide's posteriors."""
    with torch.no_grad():
        q = guide.distributions(inputs)["z"]
        return q.log_prob(z[:, None]).logsumexp(1) - math.log(len(inputs))


for count in (5, 30):
    guide = deepcopy(vae.guide)
    evaluated = log_density(guide.eval(), x_train[:count])
    trained = log_density(guide.train(), x_train[:count])
    afterwards = log_density(guide.eval(), x_train[:count])  # the running statistics have moved
    off = [float((other - evaluated).abs().mean()) for other in (trained, afterwards)]
    print("{} pseudo-inputs: a code's density is off by {:.2f}, then {:.2f}".format(count, *off))
    assert min(off) > 0.01
vamp = fitted["Vamp"]
kept = [log_prior(vamp.train(mode).prior, z) for mode in (False, True, False)]
print(f"the library's: {max((k - kept[0]).abs().mean() for k in kept):.2f}")
assert all((k - kept[0]).abs().max() < 1e-4 for k in kept)

# %% [markdown]
# The repair is to encode pseudo-inputs in evaluation mode, also while the model trains.
# `mi.VampPrior` does that. If you write your own, compare its density in both modes.

# %% [markdown]
# ## Exercises
#
# 1. For the two images of the start, which scale $s$ of the prior $N(0, s^2)$ wastes least? Is it
#    one of the three priors above?
# 2. Fit a mixture of two Normals of equal weight to the same codes, by gradient steps on the rate
#    over the grid. Start both means at the same point. Where do they end, and what is the rate?
# 3. A VampPrior for the two images: what is the rate with both as pseudo-inputs, and with one
#    alone?
#
# The answers are code that runs: `tests/chapters/test_answers_later.py`.

# %% [markdown]
# ## Sources
#
# * M. Hoffman and M. Johnson (2016), ELBO surgery: the two parts of a rate.
#   <http://approximateinference.org/accepted/HoffmanJohnson2016.pdf>
# * J. Tomczak and M. Welling (2018), VAE with a VampPrior. <https://arxiv.org/abs/1705.07120>
# * L. Dinh et al. (2017), Density Estimation Using Real NVP: the flow.
#   <https://arxiv.org/abs/1605.08803>
# * B. Dai and D. Wipf (2019), Diagnosing and Enhancing VAE Models: a prior fitted in a second
#   stage. <https://arxiv.org/abs/1903.05789>
