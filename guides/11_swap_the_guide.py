# %% [markdown]
# # Swap the guide: what is gained?
#
# The ELBO falls short of $\log p(x)$ by what the guide misses of the true posterior. There are
# two ways to miss it, and only one of them is mended by a richer guide. This chapter tells them
# apart.
#
# After this chapter you can
#
# * compute the price of independent coordinates, and predict how much too narrow they are;
# * write a guide with a full covariance and plug it in;
# * split the gap of a trained guide into an approximation gap and an amortisation gap;
# * choose the direction of an autoregressive flow, and know when a sampled KL is no worse.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from numpy.polynomial.hermite_e import hermegauss
from pyro import poutine
from pyro.distributions.transforms import AffineAutoregressive
from pyro.nn import AutoRegressiveNN, PyroModule
from torch import nn
from torch.nn.functional import softplus

import pyro_mivae as mi
from pyro_mivae.networks import MLPDecoder, MLPEncoder
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

# %% [markdown]
# ## A posterior that leans
#
# Chapter 1 had a linear model, $z \sim N(0, I)$, $x \mid z \sim N(W z, s^2 I)$, whose posterior
# is $N(m(x), \Lambda^{-1})$ with $\Lambda = I + W^T W / s^2$. Let the two columns of $W$ enclose
# an angle of 30°. Then the two coordinates of $z$ have almost the same effect on $x$. Given $x$,
# one may be larger if the other is smaller: they are correlated, and the posterior leans.
#
# The best guide of independent coordinates has the right means, and the variances
# $1 / \Lambda_{dd}$. Its gap is
#
# $$KL(q^* \,\|\, p(z \mid x))
# = \tfrac12 \Big( \sum_d \log \Lambda_{dd} - \log \det \Lambda \Big).$$

# %%
angle = math.pi / 6
W = torch.tensor([[1.0, math.cos(angle)], [0.0, math.sin(angle)]])
noise = 0.5
precision = torch.eye(2) + W.T @ W / noise**2
covariance = precision.inverse()


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ W.T, noise).to_event(1), obs=x)


torch.manual_seed(0)
z = torch.randn(4000, 2)
x = z @ W.T + noise * torch.randn(4000, 2)
trace = poutine.trace(model).get_trace(x[:5])
trace.compute_log_prob()
print(trace.format_shapes())
best_scale = precision.diagonal().rsqrt()
gap = float(precision.diagonal().log().sum() - precision.logdet()) / 2
true_scale = covariance.diagonal().sqrt()
print(f"gap {gap:.3f} nats; scale {best_scale[0]:.3f}, true {true_scale[0]:.3f}")
assert trace.nodes["z"]["log_prob"].shape == (5,)
assert abs(gap - 0.327) < 5e-4
assert abs(best_scale[0] - 0.447) < 5e-4
assert abs(true_scale[0] - 0.620) < 5e-4

# %% [markdown]
# The gap is 0.327 nats for every $x$. And the guide is too narrow: its scale is 0.447, that of
# the posterior 0.620. There is a reason. The divergence $KL(q \,\|\, p)$ is large where $q$ has
# mass and $p$ has little, so the best $q$ stays inside.
#
# ## The trap: a posterior too narrow
#
# Suppose that you report an interval that should hold the code with probability 0.9. Draw codes
# from the prior, draw data, and count.

# %%
mean = x @ W @ covariance / noise**2  # (4000, 2): m(x)
half = 1.645  # standard deviations, to each side, of 90 % of a Normal
inside = {
    "independent": ((z - mean).abs() < half * best_scale)[:, 0].float(),
    "true": ((z - mean).abs() < half * true_scale)[:, 0].float(),
}
share = {name: float(hits.mean()) for name, hits in inside.items()}
error = {name: math.sqrt(p * (1 - p) / len(z)) for name, p in share.items()}
for name in share:
    print(f"{name:<12} {share[name]:.3f} ± {error[name]:.3f} of the intervals hold the code")
expected = math.erf(half * float(best_scale[0] / true_scale[0]) / math.sqrt(2))
assert abs(expected - 0.764) < 1e-3
assert abs(share["independent"] - expected) < 4 * error["independent"]
assert abs(share["true"] - 0.9) < 4 * error["true"]

# %% [markdown]
# The intervals should hold the code with probability 0.9, and do so with 0.764. Neither the ELBO
# nor the loss curve shows that. The check above does, for any model: draw a code and data from
# the model, and compare the code with the guide's interval. The repair is a guide that can lean.
#
# ## A guide of your own
#
# A full covariance $L L^T$ needs a triangular matrix $L$ for each datum: $d$ means, $d$ positive
# numbers on the diagonal, and $d (d - 1) / 2$ numbers below it.


# %%
class LeaningGuide(PyroModule):
    """A Normal with any covariance, given the data."""

    def __init__(self, data_shape, latent_dim=2, width=128):
        super().__init__()
        size = torch.Size(data_shape).numel()
        self.features = nn.Sequential(
            nn.Flatten(), nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip
        self.loc = nn.Linear(width, latent_dim)
        self.diagonal = nn.Linear(width, latent_dim)
        self.below = nn.Linear(width, latent_dim**2)

    def parameters_of(self, x):
        """Mean and triangular factor, shapes (batch, d) and (batch, d, d)."""
        features = self.features(x)
        diagonal = softplus(self.diagonal(features)) + 1e-4  # a floor keeps the factor invertible
        below = self.below(features).unflatten(-1, (diagonal.shape[-1], -1)).tril(-1)
        return self.loc(features), torch.diag_embed(diagonal) + below

    def forward(self, x):
        loc, factor = self.parameters_of(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=factor))


# %% [markdown]
# Save the imports and the class in a file, `own.py`, to use it on the command line:
#
#     pyro-mivae train vae --guide own.py:LeaningGuide
#
# ## Two gaps
#
# On the digits the posterior has no formula. Call the best member of the guide's family for *one*
# datum $q^*_x$. Then (Cremer, Li & Duvenaud, 2018)
#
# $$\log p(x) - ELBO
# = \underbrace{\log p(x) - ELBO[q^*_x]}_{\text{approximation: the family}}
# + \underbrace{ELBO[q^*_x] - ELBO[q(z \mid x)]}_{\text{amortisation: the network}}.$$
#
# A richer family makes only the first gap smaller. We train two models with a code of two
# dimensions, one with independent coordinates and one with the guide above, and measure both
# gaps on 40 test images.

# %%
digits = mi.load_dataset("digits", binarize="fixed")
some = digits.x_test[:40]


def train(**parts):
    torch.manual_seed(0)
    decoder = MLPDecoder(2, digits.data_shape, (128, 128))
    vae = mi.VAE(digits.data_shape, latent_dim=2, decoder=decoder, **parts)
    mi.fit(vae, digits.x_train, epochs=40, lr=2e-3, engine="staged")
    return vae


encoder = MLPEncoder(digits.data_shape, (128, 128), batch_norm=True)
vaes = {
    "independent": train(encoder=encoder),
    "leaning": train(guide=LeaningGuide(digits.data_shape)),
}

# %% [markdown]
# With two dimensions, $\log p(x)$ needs no sampling: sum $p(z)\, p(x \mid z)$ over a fine grid.
# With more dimensions a grid is too large, and annealed importance sampling (AIS, chapter 3)
# takes its place. Here we can check AIS against the grid.


# %%
def log_likelihood(vae, z, x):
    """log p(x|z) of every image at every code, shape (codes, images)."""
    logits = vae.model.decoder(z).flatten(-3)  # (..., 64)
    return logits @ x.flatten(1).T - softplus(logits).sum(-1, keepdim=True)


def exact_log_px(vae, x):
    axis = torch.linspace(-5, 5, 201)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_joint = log_likelihood(vae, z, x) + dist.Normal(0.0, 1.0).log_prob(z).sum(1)[:, None]
    return log_joint.logsumexp(0) + 2 * math.log(0.05)


log_px = {name: exact_log_px(vae, some) for name, vae in vaes.items()}
vae = vaes["independent"]
ais = mi.annealed_log_likelihood(
    vae.model, vae.guide, some, num_temperatures=40, num_chains=2, leapfrog_steps=3
)
off = ais.log_px - log_px["independent"]
print(f"grid {log_px['independent'].mean():.2f}, AIS minus grid {off.mean():+.3f} nats")
assert abs(off.mean()) < 0.1

# %% [markdown]
# Now the best member of the family. For each image, start at what the network says, and climb
# the ELBO with the decoder fixed. The expectation over $q$ is taken at 8 × 8 points
# (Gauss–Hermite), so the climb has no noise. For the picture, the model with independent
# coordinates is also climbed with a leaning $q$.

# %%
nodes, weights = (torch.tensor(v, dtype=torch.float32) for v in hermegauss(8))
points = torch.cartesian_prod(nodes, nodes)  # (64, 2)
mass = torch.cartesian_prod(weights, weights).prod(1) / (2 * math.pi)
standard = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))


def elbo_of(vae, loc, factor, x):
    """The ELBO of each image, for Normals with these means and triangular factors."""
    z = loc + (factor @ points[:, None, :, None]).squeeze(-1)  # (64, images, 2)
    logits = vae.model.decoder(z).flatten(-3)
    log_lik = (logits * x.flatten(1) - softplus(logits)).sum(-1)
    q = torch.distributions.MultivariateNormal(loc, scale_tril=factor)
    return mass @ log_lik - torch.distributions.kl_divergence(q, standard)


@torch.no_grad()
def said(vae, x):
    """What the network says: means and factors."""
    q = poutine.trace(vae.guide).get_trace(x).nodes["z"]["fn"]
    factor = q.scale_tril if hasattr(q, "scale_tril") else torch.diag_embed(q.base_dist.scale)
    return q.mean.clone(), factor.clone()


def best(vae, x, leans, steps=120):
    """The largest ELBO of each image over the family, and where it is."""
    loc, factor = said(vae, x)
    log_diagonal, below = factor.diagonal(dim1=-2, dim2=-1).log(), factor.tril(-1)
    free = [part.requires_grad_() for part in (loc, log_diagonal, below)[: 3 if leans else 2]]
    optimiser = torch.optim.Adam(free, lr=0.03)
    for _ in range(steps):
        factor = torch.diag_embed(log_diagonal.exp()) + below.tril(-1)
        value = elbo_of(vae, loc, factor, x)
        optimiser.zero_grad()
        (-value.sum()).backward()
        optimiser.step()
    return value.detach(), loc.detach(), factor.detach()


gaps = {}
for name, vae in vaes.items():
    vae.requires_grad_(False)
    amortised = elbo_of(vae, *said(vae, some), some)
    inside = best(vae, some, leans=name == "leaning")[0]
    gaps[name] = {"approximation": log_px[name] - inside, "amortisation": inside - amortised}
    for gap_name, values in gaps[name].items():
        error = float(values.std()) / math.sqrt(len(values))
        print(f"{name:<12} {gap_name:<14} {values.mean():.3f} ± {error:.3f} nats")
    assert gaps[name]["approximation"].min() > -0.01  # the grid and the 64 points round a little
    assert gaps[name]["amortisation"].mean() > gaps[name]["approximation"].mean()
assert gaps["leaning"]["approximation"].mean() < gaps["independent"]["approximation"].mean()

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
bottom = [0.0, 0.0]
for color, gap_name in zip(PALETTE, ("approximation", "amortisation")):
    heights = [float(gaps[name][gap_name].mean()) for name in vaes]
    left.bar(list(vaes), heights, bottom=bottom, color=color, width=0.5, label=gap_name)
    bottom = [a + b for a, b in zip(bottom, heights)]
left.set(ylabel="log p(x) - ELBO, nats")
left.legend(frameon=False)

vae = vaes["independent"]
image = int(gaps["independent"]["approximation"].argmax())  # where leaning matters most
axis = torch.linspace(-3.5, 3.5, 141)
plane = torch.cartesian_prod(axis, axis)
log_posterior = log_likelihood(vae, plane, some[image : image + 1])[:, 0] + standard.log_prob(
    plane
)
shape = (log_posterior - log_posterior.max()).exp().reshape(141, 141).T
right.contourf(axis, axis, shape, levels=8, cmap="Greys")
circle = torch.linspace(0, 2 * math.pi, 100)
ring = 2 * torch.stack([circle.cos(), circle.sin()])  # two standard deviations
for color, (label, leans) in zip(
    PALETTE[2:], (("network", None), ("best independent", False), ("best leaning", True))
):
    loc, factor = said(vae, some) if leans is None else best(vae, some, leans)[1:]
    right.plot(*(loc[image][:, None] + factor[image] @ ring), color=color, label=label)
right.set(title="one posterior", xlabel="z1", ylabel="z2")
right.legend(frameon=False, fontsize=8)
for ax in (left, right):
    style_axes(ax)
plt.show()

# %% [markdown]
# On the left, the two gaps. The leaning family closes half of the approximation gap or more. But
# in both models the larger gap is that of the *network*: it was trained on 1,438 images, and its
# means and scales are worse for images that it has not seen. A flow, a mixture or a full
# covariance cannot mend that. More data, an encoder that is trained longer, or a few steps of
# the climb above for each image (a *semi-amortised* guide) can.
#
# On the right, the test image whose posterior suffers most from independent coordinates: its
# exact posterior in grey, with the network's answer and the best of each family at two standard
# deviations. The picture shows one image; the bars are the mean of 40.
#
# ## A second trap: the slow side of a flow
#
# If one Normal is not enough, an *autoregressive* flow bends it. Coordinate $i$ is moved by an
# amount that depends on the coordinates before it. One direction computes all coordinates at
# once. The other has to go one by one, since each needs the ones before it. Let us count how
# often the network runs, for eight coordinates.

# %%
passes = []
network = AutoRegressiveNN(8, [32])
network.register_forward_hook(lambda *_: passes.append(1))
flow = dist.TransformedDistribution(
    dist.Normal(torch.zeros(8), 1.0).to_event(1), [AffineAutoregressive(network)]
)


def count(run):
    passes.clear()
    result = run()
    return result, len(passes)


drawn, to_draw = count(flow.rsample)
_, to_score_it = count(lambda: flow.log_prob(drawn))
_, to_score_another = count(lambda: flow.log_prob(torch.zeros(8)))
print(f"passes: to draw {to_draw}, to score that {to_score_it}, any other {to_score_another}")
assert (to_draw, to_score_it, to_score_another) == (1, 0, 8)

# %% [markdown]
# Drawing takes one pass, and the density of its own draw is free: that is an *inverse*
# autoregressive flow, right for a guide, which scores what it drew. Scoring any other value
# takes one pass per coordinate. A prior scores values that the guide drew, so it wants the
# opposite direction (a *masked* autoregressive flow, MAF), which is then slow to sample. The
# wrong direction gives the right numbers, but takes as many passes as there are coordinates.
#
# ## Sampled KL
#
# A flow has no divergence in closed form; its ELBO takes $\log q(z) - \log p(z)$ at a draw. Is
# that noisier? Return to the linear model, where the guide can be the exact posterior.

# %%
posterior = dist.MultivariateNormal(mean[:1000], covariance)
prior = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
torch.manual_seed(0)
codes = posterior.sample()
log_lik = dist.Normal(codes @ W.T, noise).log_prob(x[:1000]).sum(1)
closed = log_lik - torch.distributions.kl_divergence(posterior, prior)
sampled = log_lik - posterior.log_prob(codes) + prior.log_prob(codes)
marginal = W @ W.T + noise**2 * torch.eye(2)
evidence = dist.MultivariateNormal(torch.zeros(2), marginal).log_prob(x[:1000])
scatter = {n: float((e - evidence).std()) for n, e in (("closed", closed), ("sampled", sampled))}
print("scatter about log p(x):", {name: f"{value:.1e}" for name, value in scatter.items()})
assert scatter["closed"] > 0.3
assert scatter["sampled"] < 1e-4

# %% [markdown]
# At the true posterior the sampled ELBO has no scatter at all: the noise of its two parts
# cancels. The closed form keeps the noise of the reconstruction. So a closed form is better for a
# bad guide, and not for a good one. Do not choose a guide because its divergence has a formula.

# %% [markdown]
# ## Exercises
#
# 1. At which angle between the columns of $W$ is the gap of independent coordinates 0, and what
#    happens to it as the angle goes to 0?
# 2. Which share of the 90 % intervals holds the code at an angle of 10°?
# 3. An autoregressive flow on one coordinate: count its passes. Can it bend a Normal?
#
# The answers are code that runs: `tests/chapters/test_answers_later.py`.

# %% [markdown]
# ## Sources
#
# * C. Cremer, X. Li and D. Duvenaud (2018), Inference Suboptimality in Variational Autoencoders:
#   the two gaps. <https://arxiv.org/abs/1801.03558>
# * D. Kingma et al. (2016), Improved Variational Inference with Inverse Autoregressive Flow.
#   <https://arxiv.org/abs/1606.04934>
# * G. Papamakarios et al. (2017), Masked Autoregressive Flow for Density Estimation.
#   <https://arxiv.org/abs/1705.07057>
# * G. Roeder, Y. Wu and D. Duvenaud (2017), Sticking the Landing: the noise that cancels.
#   <https://arxiv.org/abs/1703.09194>
# * Y. Wu et al. (2017), On the Quantitative Analysis of Decoder-Based Generative Models: AIS.
#   <https://arxiv.org/abs/1611.04273>
