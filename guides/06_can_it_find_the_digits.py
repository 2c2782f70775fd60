# %% [markdown]
# # Can it find the digits by itself?
#
# Ten kinds of digits, no labels. A code with a category in it has ten places to put images. This
# chapter asks whether the places become the digits, and how one would know.
#
# After this chapter you can
#
# * sum a category out exactly, and read its extra dimension in a table of shapes;
# * notice when a category is drawn although you meant to sum it out;
# * write a prior and a guide with a category, and plug them into the command line;
# * report categories by all seeds, their use and their samples, and not by the best of them.

# %%
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.nn import PyroModule
from sklearn.cluster import KMeans
from torch import nn
from torch.nn.functional import softplus

import pyro_mivae as mi
from pyro_mivae import metrics
from pyro_mivae.networks import MLPDecoder
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

# %% [markdown]
# ## Three lumps on a line
#
# The smallest model with a category: one of three lumps, and a number from it.
#
# $$c \sim U\{1, 2, 3\}, \qquad x \mid c \sim N(m_c, 1), \qquad m = (-2, 0, 2).$$
#
# The sum over $c$ has three terms, so $\log p(x)$ is exact, and so is the posterior
# $p(c \mid x)$. The guide gives $q(c \mid x)$. Its annotation `infer={"enumerate": "parallel"}`
# allows a tool to run the guide with all three values at once, in place of one draw. This is
# called *enumeration*. Below, `poutine.enum` does it. The plate has dimension -1 (the last), so
# the three values go to the next one to the left, -2.

# %%
centres = torch.tensor([-2.0, 0.0, 2.0])


def model(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.OneHotCategorical(torch.ones(3)))
        pyro.sample("x", dist.Normal(c @ centres, 1.0), obs=x)


def make_guide(logits_of, annotation):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.OneHotCategorical(logits=logits_of(x)), infer=annotation)

    return guide


def log_joint(x):
    """log p(x, c), shape (batch, 3)."""
    return dist.Normal(centres, 1.0).log_prob(x[:, None]) - math.log(3)


SUMMED, DRAWN = {"enumerate": "parallel"}, {}
x = torch.tensor([-2.5, -1.0, 0.3, 2.0, 4.0])
guide = make_guide(log_joint, SUMMED)  # the true posterior: logits need not be normalised
listed = poutine.trace(poutine.enum(guide, first_available_dim=-2)).get_trace(x)
listed = poutine.trace(poutine.replay(model, listed)).get_trace(x)
listed.compute_log_prob()
print(listed.format_shapes())
assert listed.nodes["c"]["value"].shape == (3, 1, 3)
assert listed.nodes["x"]["log_prob"].shape == (3, 5)

# %% [markdown]
# Read the table from the right. The value of `c` has shape $(3, 1, 3)$: three values, the same
# for all data (the 1 stands where the five data are), each a one-hot vector of three numbers. The
# log-probability of `x` is a table of three values by five data. Nothing in the model was written
# for that: broadcasting did it.
#
# `TraceEnum_ELBO`, Pyro's ELBO for enumerated sites, weighs this table by $q(c \mid x)$:
#
# $$ELBO(x) = \sum_c q(c \mid x) \log \frac{p(x, c)}{q(c \mid x)}
# = \log p(x) - KL(q(c \mid x) \,\|\, p(c \mid x)).$$
#
# With the true posterior as the guide, the ELBO must be $\log p(x)$. With a flat guide, which
# gives each category 1/3, it is less by the divergence. Nothing is sampled.

# %%
elbo = TraceEnum_ELBO(max_plate_nesting=1)
log_px = log_joint(x).logsumexp(1)
posterior = log_joint(x).log_softmax(1)
flat = torch.zeros(5, 3, requires_grad=True)
at_posterior = -elbo.loss(model, guide, x)
at_flat = -elbo.loss(model, make_guide(lambda x: flat, SUMMED), x)
divergence = float((-math.log(3) - posterior).mean(1).sum())
print(f"log p(x), five data {log_px.sum():.4f}; ELBO, true posterior {at_posterior:.4f}")
print(f"ELBO, flat guide {at_flat:.4f}; log p(x) - KL {log_px.sum() - divergence:.4f}")
assert abs(at_posterior - float(log_px.sum())) < 1e-4
assert abs(at_flat - float(log_px.sum() - divergence)) < 1e-4

# %% [markdown]
# ## The trap: a category that nobody sums out
#
# Forget the annotation. A site without it is drawn. A draw of a category has no derivative, so
# the gradient is estimated: the loss of the draw times the gradient of the draw's log-probability
# (the *score*). Loss and gradient are right on average. `TraceEnum_ELBO` warns only if *no* site
# is enumerated, and the other ELBOs of Pyro never warn. Look at the noise.


# %%
def loss_and_slope(elbo, annotation):
    """The loss of the flat guide, and its slope by the first datum's first logit."""
    loss = elbo.differentiable_loss(model, make_guide(lambda x: flat, annotation), x)
    (gradient,) = torch.autograd.grad(loss, flat)
    return torch.stack([loss.detach(), gradient[0, 0]])


pyro.set_rng_seed(0)
summed = torch.stack([loss_and_slope(elbo, SUMMED) for _ in range(20)])
drawn = torch.stack([loss_and_slope(Trace_ELBO(), DRAWN) for _ in range(300)])
runs = {"summed": summed, "drawn": drawn}
for name, run in runs.items():
    mean, sd = run.mean(0), run.std(0)
    print(f"{name:<7} loss {mean[0]:6.2f} ± {sd[0]:.2f}   slope {mean[1]:6.2f} ± {sd[1]:.2f}")
error = runs["drawn"].std(0) / math.sqrt(300)
assert (runs["summed"].std(0) < 1e-4).all()
assert ((runs["drawn"].mean(0) - runs["summed"][0]).abs() < 4 * error).all()
assert runs["drawn"][:, 1].std() > runs["summed"][0, 1].abs()

# %% [markdown]
# Both means agree within their standard errors. But the drawn slope scatters by more than its own
# size, and in a model with a decoder that noise decides whether categories form at all.
#
# The table of shapes shows the fault at once: a drawn `c` has no leading dimension of size 3.
# The library's own loss, `mi.MutualInformationELBO`, refuses the pair, and `mi.check` names the
# fault.

# %%
forgotten = make_guide(lambda x: flat, DRAWN)
drawn = poutine.trace(poutine.enum(forgotten, first_available_dim=-2)).get_trace(x)
print(drawn.format_shapes())
try:
    mi.MutualInformationELBO(max_plate_nesting=1).loss(model, forgotten, x)
    message = ""
except mi.errors.SiteError as error:
    message = str(error)
print(message)
faults = str(mi.check(model, forgotten, x))
print(faults)
assert "enumerate" in faults
assert drawn.nodes["c"]["value"].shape == (5, 3)
assert "enumerate" in message

# %% [markdown]
# ## A second trap: the shape of c
#
# The extra dimension travels into everything that is computed from `c`. `c @ centres` keeps it.
# But a code of two sites, a category `c` and a vector `s`, has to be joined for the decoder, and
# `torch.cat` does not broadcast. `mi.priors.join` broadcasts first, and then joins.

# %%
c, s = torch.eye(3)[:, None, :], torch.randn(5, 2)  # (3, 1, 3), as enumerated, and (5, 2)
try:
    torch.cat([c, s], -1)
    refused = ""
except RuntimeError as error:
    refused = str(error)
code = mi.priors.join([c, s])
print(refused)
print(f"joined: {tuple(code.shape)}")
assert "same number of dimensions" in refused
assert code.shape == (3, 5, 5)

# %% [markdown]
# ## A prior with ten places
#
# For the digits the category gets a companion: a continuous $z$ for all that differs between two
# images of one kind. Each category has its own place, $\mu_c = r\, e_c$: a point on the c-th
# axis, at a distance $r$ from the origin (Pineau & Lelarge, 2018):
#
# $$c \sim U\{1..10\}, \qquad z \mid c \sim N(\mu_c, I).$$
#
# The prior is a module of its own. The model calls it inside the plate of the data, and decodes
# what it returns: here $z$ alone, since $z$ lies near $\mu_c$ and so tells the category.


# %%
class AxisMixture(PyroModule):
    """A uniform category, and a Normal about a point on the category's own axis."""

    def __init__(self, num_categories=10, latent_dim=10, radius=6.0):
        super().__init__()
        self.register_buffer("means", radius * torch.eye(num_categories, latent_dim))
        self.register_buffer("logits", torch.zeros(num_categories))

    def forward(self):
        c = pyro.sample("c", dist.OneHotCategorical(logits=self.logits))
        return pyro.sample("z", dist.Normal(c @ self.means, 1.0).to_event(1))


# %% [markdown]
# The guide is $q(c \mid x)\, q(z \mid x, c)$: one network for the features, a linear map to the
# category's logits, two to the mean and the scale of $z$, and a shift of the mean per category,
# which starts at $\mu_c$. Where `c` is enumerated, $z$ gets a row for each pair of category and
# image.


# %%
class CategoricalGuide(PyroModule):
    """A category given the data, and a Normal given both."""

    def __init__(self, data_shape, num_categories=10, latent_dim=10, width=128):
        super().__init__()
        layers = [nn.Flatten()]
        for size in (math.prod(data_shape), width):
            layers += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.category = nn.Linear(width, num_categories)
        self.loc = nn.Linear(width, latent_dim)
        self.scale = nn.Linear(width, latent_dim)
        self.shift = nn.Parameter(6.0 * torch.eye(num_categories, latent_dim))

    def forward(self, x):
        features = self.features(x)  # (batch, width)
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(logits=self.category(features))
            c = pyro.sample("c", fn, infer={"enumerate": "parallel"})
            loc = self.loc(features) + c @ self.shift  # (..., batch, latent_dim)
            scale = softplus(self.scale(features)) + 1e-4
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


# %% [markdown]
# To use the two on the command line, save the imports and both classes in a file, `own.py`. The
# command passes the sizes that a class takes by name: a `latent_dim` of 20, or of `--latent-dim`.
#
#     pyro-mivae train infocat --prior own.py:AxisMixture --guide own.py:CategoricalGuide
#
# ## Five seeds
#
# What makes a category a digit? The ELBO does not: it accepts any ten groups of images that help
# the decoder. So the library first trains $q(c \mid x)$ alone, towards one aim: *all categories
# are used, and a small change of an image never changes its category* (Hu et al., 2017). It uses
# no decoder and no label. We run this start from five seeds and look at each. The labels are used
# once, to count. Each category is paired with one digit, by the one-to-one pairing that agrees
# with most labels. The accuracy is the share of test images whose category is paired with their
# digit.

# %%
digits = mi.load_dataset("digits")
x_train, x_test, y_test = digits.x_train, digits.x_test, digits.y_test


def build(seed, steps):
    torch.manual_seed(seed)
    return mi.InfoCatVAE(
        digits.data_shape,
        prior=AxisMixture(),
        guide=CategoricalGuide(digits.data_shape),
        decoder=MLPDecoder(10, digits.data_shape, (64, 64)),
        warm_start=mi.CategoryStart(steps, starts=1),
    )


def categories(vae):
    vae.eval()
    return vae.encode(x_test)["c"].argmax(1)


vaes = []
for seed in range(5):
    vaes.append(build(seed, steps=100))
    vaes[-1].initialize(x_train)  # the start: q(c|x) alone
found = [categories(vae) for vae in vaes]
accuracies = torch.tensor([metrics.cluster_accuracy(c, y_test) for c in found])
mean, sd = float(accuracies.mean()), float(accuracies.std())
means_of_pixels = KMeans(10, n_init=4, random_state=0).fit(x_train.flatten(1).numpy())
by_pixels = torch.tensor(means_of_pixels.predict(x_test.flatten(1).numpy())).long()
k_means = metrics.cluster_accuracy(by_pixels, y_test)
print("accuracy of each seed:", [f"{a:.3f}" for a in accuracies.tolist()])
print(f"mean {mean:.3f} ± {sd:.3f}; k-means of the pixels {k_means:.3f}")
assert abs(mean - k_means) < 0.1
assert 0.01 < sd < 0.2

# %% [markdown]
# The seeds scatter, with the same method and the same data. One seed alone could pass for a
# success or for a failure. The baseline is k-means, which groups images by the distance of their
# pixels; the mean of the seeds is about as good, and no better. (These starts are short, to keep
# this page quick. By default the library takes six times the steps, tries two sets of first
# weights, and keeps the one with the larger term, without a label; `docs/categories.md` has its
# figures.)
#
# ## From categories to samples
#
# The start does not fit $p(x)$. Training does: it fits the decoder and $q(z \mid x, c)$ by the
# ELBO. InfoCatVAE adds a term to it, so that the category can be read from the images that the
# model generates. (The term is a lower bound of the information between the category and the
# mean images of the decoder. Chapter 8 looks into such bounds.) We train the first seed, because
# it is the first.

# %%
vae = vaes[0]
vae.train()  # batch norm by the batch again
epochs = 9
objective = vae.objective(num_steps=6 * epochs)  # its weights change over so many steps
# The steps of pyro.infer.SVI, but faster (chapter 12).
svi = mi.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 3e-3}), loss=objective)
for _ in range(epochs):
    for rows in torch.randperm(len(x_train))[:1320].split(220):  # six full batches
        svi.step(x_train[rows])
kept = metrics.cluster_accuracy(categories(vae), y_test)
use = metrics.occupancy(categories(vae), 10)
objective.loss(vae.model, vae.guide, x_test)  # fills the ledger, in nats summed over x_test
shown = float(objective.ledger["mi_c_mean"]) / len(x_test)
print(f"accuracy {kept:.3f}, information shown in mean images at least {shown:.2f} nats")
assert kept > accuracies[0] - 0.1
assert 1.5 < shown < math.log(10)

# %%
torch.manual_seed(0)
rows = torch.stack([vae.sample(6, category=k) for k in range(10)])[:, :, 0]  # (10, 6, 8, 8)
picture = torch.nn.functional.pad(rows, (1, 1, 1, 1)).permute(0, 2, 1, 3).reshape(100, 60)
fig, axes = plt.subplots(1, 3, figsize=(9, 4.2), layout="constrained")
axes[0].imshow(picture.numpy(), cmap="gray_r")
axes[0].set(title="six samples of each category", ylabel="category", xticks=[])
axes[0].set(yticks=range(5, 100, 10), yticklabels=range(10))
axes[1].barh(range(10), 100 * use.numpy(), color=PALETTE[0])
axes[1].axvline(10, color="black", linewidth=0.8)
axes[1].set(
    title="its share of test images, %\n(line: a tenth)", ylim=(9.5, -0.5), yticks=range(10)
)
axes[2].plot(accuracies, "o", color=PALETTE[1], label="seeds")
axes[2].axhline(mean, color=PALETTE[1], linewidth=0.8, label="their mean")
axes[2].axhline(k_means, color="black", linestyle=":", label="k-means of the pixels")
axes[2].set(title="accuracy of the starts", xlabel="seed", xticks=range(5), ylim=(0, 1))
axes[2].legend(frameon=False, loc="lower right")
for ax in axes:
    style_axes(ax)
plt.show()

# %% [markdown]
# A row is a category: six samples from it alone, and beside them its share of the test images.
# The number of a category is arbitrary: category 3 need not be the digit 3. Two rows can show the
# same digit, and then another digit has none.
#
# ## A third trap: the best of the seeds
#
# It is tempting to show the best of five. If the seeds scatter as a Normal, the best of five is
# expected above their mean by
#
# $$5 \int z\, \varphi(z)\, \Phi(z)^4\, dz$$
#
# standard deviations. ($\varphi$ is the density of $N(0, 1)$ and $\Phi$ its distribution
# function: one of five is at $z$, and the other four are below it.) Luck alone does that, for
# any method.

# %%
line = torch.linspace(-8, 8, 16_001, dtype=torch.float64)
normal = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0)


def expected_best(n):
    density = n * normal.log_prob(line).exp() * normal.cdf(line) ** (n - 1)  # of the largest
    return float((line * density).sum() * (line[1] - line[0]))


print(f"best of five: {expected_best(5):.3f} standard deviations above the mean")
print(f"here: best {accuracies.max():.3f}, expected {mean + expected_best(5) * sd:.3f}")
assert abs(expected_best(5) - 1.163) < 5e-4

# %% [markdown]
# The best of five lies 1.163 standard deviations above the mean, the best of 20 further still. So
# report the mean and the scatter of all seeds, or choose by a rule that needs no label, as the
# library's default start does.
#
# ## Exercises
#
# 1. Give the guide of the three lumps the *true* posterior, without the annotation, and take
#    `Trace_ELBO`. How much does the loss scatter now? Why?
# 2. Give the three lumps the weights 1/2, 1/4, 1/4. How many nats can $x$ tell about $c$ at most,
#    wherever the lumps lie? (Chapter 0a has the entropy.)
# 3. How many standard deviations above the mean lies the best of 20 seeds?
#
# The answers are code that runs: `tests/chapters/test_answers_later.py`.
#
# ## Sources
#
# * T. Pineau and M. Lelarge (2018), InfoCatVAE: the prior and the information term.
#   <https://arxiv.org/abs/1806.08240>
# * W. Hu et al. (2017), Learning Discrete Representations via Information Maximizing
#   Self-Augmented Training: the start. <https://arxiv.org/abs/1702.08720>
# * J. Xie, R. Girshick and A. Farhadi (2016), Unsupervised Deep Embedding for Clustering
#   Analysis: the accuracy of clusters. <https://arxiv.org/abs/1511.06335>
# * Pyro's tutorial on enumeration: <https://pyro.ai/examples/enumeration.html>
