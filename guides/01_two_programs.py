# %% [markdown]
# # Two programs: what does one step of SVI compute?
#
# A latent-variable model comes as two programs. The *model* draws a code and then data. The
# *guide* looks at data and draws a code that could have made them. One step of stochastic
# variational inference runs both and compares. This chapter takes such a step apart, in a model
# where everything has an exact value.
#
# After this chapter you can
#
# * write a model and an amortised guide, and read the shapes of both;
# * compute the loss of `svi.step` by hand, to the last digit;
# * split log p(x) into the ELBO and the gap, and say which part training can close;
# * recognise a loss that is a sum, a plate with a scale, and a site that does not match.

# %%
import copy
import math
import warnings

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from pyro.optim import Adam
from torch import nn
from torch.distributions import kl_divergence

import pyro_mivae as mi
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

pyro.set_rng_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## The model
#
# The code has two dimensions, the data three, and a given matrix $W$ maps one to the other:
#
# $$z \sim N(0, I), \qquad x \mid z \sim N(W z, s^2 I).$$
#
# The two columns of $W$ have length one, and we choose the angle between them. The third number of
# a datum is only noise. Nothing of this model is trained. The evidence is normal with covariance
# $W W^T + s^2 I$. The posterior is normal with the precision matrix (inverse covariance)
# $\Lambda = I + W^T W / s^2$ and the mean $\Lambda^{-1} W^T x / s^2$.


# %%
class LinearModel(PyroModule):
    def __init__(self, degrees, noise=0.5):
        super().__init__()
        angle = math.radians(degrees)
        self.weight = torch.tensor([[1.0, math.cos(angle)], [0.0, math.sin(angle)], [0.0, 0.0]])
        self.noise = noise

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ self.weight.T  # (batch, 3)
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)

    def draw(self, n):
        z = torch.randn(n, 2)
        return z @ self.weight.T + self.noise * torch.randn(n, 3)

    def log_evidence(self, x):
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(3)
        return dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(x)

    def posterior(self, x):
        precision = torch.eye(2) + self.weight.T @ self.weight / self.noise**2
        loc = torch.linalg.solve(precision, self.weight.T @ x.T / self.noise**2).T
        return dist.MultivariateNormal(loc, precision_matrix=precision)


# %% [markdown]
# ## The guide
#
# We could store a mean and a scale for each datum. A new datum would then need a new optimisation.
# An *amortised* guide learns the function from the datum to its posterior instead. Here that
# function is one linear layer for the mean, and one scale per dimension that all data share.
#
# The dimensions of the code are independent given the datum. This is called *mean field*.


# %%
class LinearGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Linear(3, 2)
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        loc = self.loc(x)  # (batch, 2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, self.log_scale.exp()).to_event(1))


model, guide = LinearModel(degrees=90), LinearGuide()
x = model.draw(512)

# Run the guide, and then the model on the codes that the guide drew.
guide_trace = poutine.trace(guide).get_trace(x)
model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
guide_trace.compute_log_prob()
model_trace.compute_log_prob()
print(model_trace.format_shapes())
assert model_trace.nodes["z"]["fn"].batch_shape == (512,)
assert model_trace.nodes["z"]["fn"].event_shape == (2,)
assert (
    model_trace.nodes["x"]["log_prob"].shape == guide_trace.nodes["z"]["log_prob"].shape == (512,)
)
assert model_trace.nodes["z"]["value"] is guide_trace.nodes["z"]["value"]  # replayed

# %% [markdown]
# `poutine.replay` runs the model on the guide's draws: the site `z` of the model takes the value
# of the site of the same name in the guide. This is the only link between the two programs. They
# never call each other.
#
# ## The bound
#
# For any density $q(z \mid x)$,
#
# $$\log p(x) = \underbrace{E_q[\log p(x \mid z)] - KL(q(z \mid x) \,\|\, p(z))}_{ELBO}
# + \underbrace{KL(q(z \mid x) \,\|\, p(z \mid x))}_{\text{gap}}.$$
#
# The gap is at least 0, so the ELBO is a lower bound. Here evidence, ELBO and gap have a formula.
# For a normal $q$ with variances $\sigma_d^2$, the expected log-likelihood is the log-likelihood
# at the mean of $q$ minus the price of its width, $\sum_{i,d} W_{id}^2 \sigma_d^2 / 2 s^2$, over
# the dimensions $i$ of the data and $d$ of the code. The guide is still untrained, and the
# equation holds all the same, for each datum.


# %%
def exact_elbo(model, guide, x):
    """The ELBO of each datum, without sampling: shape (batch,)."""
    loc, scale = guide.loc(x), guide.log_scale.exp()
    fit = dist.Normal(loc @ model.weight.T, model.noise).log_prob(x).sum(-1)
    width = (model.weight**2 @ scale**2).sum() / (2 * model.noise**2)
    rate = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum(-1)  # KL(q(z|x) || p(z))
    return fit - width - rate


def exact_gap(model, guide, x):
    q = dist.MultivariateNormal(guide.loc(x), torch.diag(guide.log_scale.exp() ** 2))
    return kl_divergence(q, model.posterior(x))


with torch.no_grad():
    log_px, elbo, gap = (
        model.log_evidence(x),
        exact_elbo(model, guide, x),
        exact_gap(model, guide, x),
    )
print(f"log p(x) {log_px.mean():.3f} = ELBO {elbo.mean():.3f} + gap {gap.mean():.3f}")
assert (elbo + gap - log_px).abs().max() < 1e-9 and (gap > 0).all()
bars = {"untrained, 90°": (float(log_px.mean()), float(elbo.mean()))}  # for the picture below

# %% [markdown]
# ## One step by hand
#
# Without formulas, the ELBO is estimated from one draw of each code:
#
# $$\widehat{ELBO} = \log p(x, z) - \log q(z \mid x), \qquad z \sim q(z \mid x).$$
#
# The two traces hold all of it. The gradient passes through the draw, since
# $z = \mu + \sigma \epsilon$ with $\epsilon \sim N(0, I)$ (the *reparametrisation*). So a step is:
# two traces, one subtraction, `backward`, and an optimiser. Let us do it next to `svi.step`, on
# two copies of the guide and with the same random numbers.


# %%
def loss_by_hand(model, guide, x):
    guide_trace = poutine.trace(guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    return guide_trace.log_prob_sum() - model_trace.log_prob_sum()


ours, theirs = copy.deepcopy(guide), copy.deepcopy(guide)

pyro.clear_param_store()
pyro.set_rng_seed(1)
optimiser = torch.optim.Adam(ours.parameters(), lr=0.02)
our_loss = loss_by_hand(model, ours, x)
our_loss.backward()
optimiser.step()

pyro.clear_param_store()
pyro.set_rng_seed(1)
svi = SVI(model, theirs, Adam({"lr": 0.02}), loss=Trace_ELBO())
their_loss = svi.step(x)

print(f"loss by hand {our_loss:.6f}, of svi.step {their_loss:.6f}")
print(f"per datum {our_loss / 512:.2f}, exactly {-elbo.mean():.2f}")
assert abs(our_loss - their_loss) < 1e-9
assert abs(our_loss / 512 + elbo.mean()) < 1.3  # about four standard errors of 512 draws
for a, b in zip(ours.parameters(), theirs.parameters()):
    assert (a - b).abs().max() < 1e-9  # and so are the weights after the step

# %% [markdown]
# That is all of `svi.step`. What Pyro adds is that nobody has to write it again for a model with
# more sites, with plates, or with discrete codes.
#
# (Pyro's parameter store knows tensors by their names, and the two guides have the same names. So
# the cell clears the store before each of them.)
#
# ## The trap, first part: the loss is a sum
#
# The loss above is some thousands of nats. It sums over the 512 data of the batch. Halve the batch
# and the loss halves, and no model got better. Divide by the number of data before you compare or
# report anything.
#
# A plate that draws its own mini-batch restores the sum: its log-probabilities are multiplied by
# the size of the plate over the size of the mini-batch. Then the loss estimates the loss of *all*
# data. (Its guide opens a plate of the same name and sizes.)


# %%
def subsampled(x, size=64):
    with pyro.plate("data", len(x), subsample_size=size) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        loc = z @ model.weight.T
        pyro.sample("x", dist.Normal(loc, model.noise).to_event(1), obs=x[index])


half = Trace_ELBO(num_particles=100).loss(model, guide, x[:256])
whole = Trace_ELBO(num_particles=100).loss(model, guide, x)
trace = poutine.trace(subsampled).get_trace(x)
print(f"loss of 512 data {whole:.0f}, of 256 data {half:.0f}")
print(f"per datum {whole / 512:.2f} and {half / 256:.2f}")
print(f"the plate multiplies by {trace.nodes['x']['scale']}")
assert abs(whole / half - 2) < 0.3 and abs(whole / 512 - half / 256) < 0.5
assert trace.nodes["x"]["scale"] == 512 / 64

# %% [markdown]
# ## The trap, second part: a site that does not match
#
# The link between the programs is a name. Write it differently once, and the model finds no value
# for its `z`. It then draws one from its own prior. There is a warning and no error, and the loss
# is a number like any other.


# %%
class MisnamedGuide(LinearGuide):
    def forward(self, x):
        with pyro.plate("data", len(x)):  # the next line says "Z" where the model says "z"
            pyro.sample("Z", dist.Normal(self.loc(x), self.log_scale.exp()).to_event(1))


pyro.clear_param_store()
misnamed = MisnamedGuide()
misnamed.load_state_dict(guide.state_dict())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    wrong = Trace_ELBO().loss(model, misnamed, x) / len(x)
print(f"loss per datum, misnamed: {wrong:.1f} nats")
print(*{str(warning.message) for warning in caught}, sep="\n")
findings = mi.check(model, misnamed, x[:8])
print(*findings, sep="\n")
assert any("Found vars in model but not guide: {'z'}" in str(w.message) for w in caught)
assert wrong > 0  # a number like any other
assert len(findings) > 0

pyro.clear_param_store()
repaired = mi.check(model, guide, x[:8])
assert len(repaired) == 0, str(repaired)

# %% [markdown]
# `mi.check` names the site and the remedy, and finds nothing in the repaired pair. Run it once on
# each new pair.
#
# ## What training can close
#
# Training makes the ELBO larger, so it moves $q$ towards the posterior. How near can a mean-field
# guide come? If the columns of $W$ stand at right angles, the posterior has independent
# dimensions, and the guide can be exact. At 30 degrees they are correlated. For a normal $q$ with
# the right means and the variances $\sigma_d^2$, the divergence of two normals is
#
# $$KL(q(z \mid x) \,\|\, p(z \mid x)) = \tfrac12 \Big(\sum_d \big(\Lambda_{dd} \sigma_d^2 - 1 -
# \log \sigma_d^2\big) - \log \det \Lambda\Big).$$
#
# It is least at $\sigma_d^2 = 1 / \Lambda_{dd}$. The gap that remains there is
# $\tfrac12 (\sum_d \log \Lambda_{dd} - \log \det \Lambda)$.
#
# `TraceMeanField_ELBO` takes the divergence from its formula where there is one, and only the
# likelihood from draws.

# %%
for degrees in (90, 30):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide = LinearModel(degrees), LinearGuide()
    x = model.draw(512)
    svi = SVI(model, guide, Adam({"lr": 0.02}), loss=TraceMeanField_ELBO())
    for _ in range(600):
        svi.step(x)
    with torch.no_grad():
        log_px, elbo = model.log_evidence(x).mean(), exact_elbo(model, guide, x).mean()
    precision = model.posterior(x).precision_matrix[0]
    best = 0.5 * (precision.diag().log().sum() - torch.logdet(precision))
    bars[f"trained, {degrees}°"] = float(log_px), float(elbo)
    print(f"{degrees} degrees: gap {log_px - elbo:.3f} after training, {best:.3f} at best")
    assert best - 1e-9 <= log_px - elbo < best + 0.02
assert abs(best - 0.327) < 5e-4

# %%
figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
for row, (log_px, elbo) in enumerate(bars.values()):
    names = ("log p(x)", "gap, KL(q ‖ posterior)", "ELBO") if row == 0 else (None,) * 3
    axes.barh(row, log_px, color=PALETTE[0], label=names[0])
    axes.barh(row, elbo - log_px, left=log_px, color=PALETTE[1], label=names[1])
    axes.plot([elbo] * 2, [row - 0.45, row + 0.45], color="black", label=names[2])
axes.set_yticks(range(len(bars)), list(bars))
axes.invert_yaxis()
axes.set(xlabel="nats per datum")
axes.legend(frameon=False, fontsize=8)
style_axes(axes)

# %% [markdown]
# At right angles the gap closes. At 30 degrees 0.327 nats remain, and no training takes them away:
# they belong to the *family* of the guide. Chapter 11 swaps the family.
#
# In a VAE, $W$ becomes a network that is trained as well. Then a larger ELBO can mean two things,
# a better model or a smaller gap, and the ELBO alone does not say which.
#
# ## The same step for a VAE
#
# `mi.VAE` holds a model and a guide that are longer versions of the two above. Its objective is a
# loss for `SVI`. This library calls the quantity that an objective maximises $J$; for a VAE it is
# the ELBO. The loss is minus $J$, `mi.explain` writes $J$ out, and the `ledger` of the objective
# keeps the parts of the last loss.

# %%
torch.set_default_dtype(torch.float32)
pyro.set_rng_seed(0)
digits = mi.load_dataset("digits")
vae = mi.VAE(digits.data_shape, latent_dim=2)
objective = vae.objective()
svi = SVI(vae.model, vae.guide, Adam({"lr": 1e-3}), loss=objective)
batch = digits.x_train[:128]
loss = svi.step(batch) / len(batch)
parts = {name: float(nats) / len(batch) for name, nats in objective.ledger.items()}
print(mi.explain(objective))
print({name: round(nats, 2) for name, nats in parts.items()})
assert abs(loss - parts["distortion"] - parts["rate"]) < 1e-3
assert abs(loss + parts["elbo"]) < 1e-3

# %% [markdown]
# The loss per image is the distortion plus the rate: what the code leaves unsaid, and what the
# code costs. (`kl_z` is the divergence of the site `z`. It is the whole rate of a code of one
# site.)

# %% [markdown]
# ## Exercises
#
# 1. Give the guide a full covariance: `dist.MultivariateNormal` with a `scale_tril`, a lower
#    triangular matrix with a positive diagonal, that all data share. To what does the gap at 30
#    degrees fall?
# 2. At 90 degrees, set the weights of the guide so that $q$ is the posterior. How much do the
#    losses of `Trace_ELBO` and of `TraceMeanField_ELBO` scatter from one evaluation to the next?
#    Which is less noisy, and why is it the one that samples more?
# 3. Pass mini-batches of 64 rows as `x`, without `subsample_size`, to plain gradient descent. By
#    which factor must the learning rate grow for its steps to be, on average, those of all 512
#    rows at once?
#
# The answers are code that runs: `tests/chapters/test_answers_road.py`.
#
# ## Sources
#
# * Kingma & Welling (2014), Auto-Encoding Variational Bayes, <https://arxiv.org/abs/1312.6114>.
# * Rezende, Mohamed & Wierstra (2014), <https://arxiv.org/abs/1401.4082>: the reparametrisation.
# * Cremer, Li & Duvenaud (2018), Inference Suboptimality in Variational Autoencoders,
#   <https://arxiv.org/abs/1801.03558>: what the family and what amortisation cost.
# * Pyro's page on ELBOs, <https://pyro.ai/examples/svi_part_i.html>.
