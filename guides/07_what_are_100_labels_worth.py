# %% [markdown]
# # What are 100 labels worth?
#
# Labels cost much and images cost little. A model with a category can use both: a label tells it
# one category for certain, and all other images tell it where the categories end. This chapter
# counts what each label buys.
#
# After this chapter you can
#
# * write an objective for data of which some have labels, and check it by hand;
# * notice a mistake that rewards a guide for being unsure of labelled data;
# * say why the ELBO alone does not train a classifier, and which term does;
# * compare labels with and without images, over splits.

# %%
import math
import warnings

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.nn import PyroModule
from sklearn.linear_model import LogisticRegression
from torch import nn

import pyro_mivae as mi
from pyro_mivae.networks import MLPDecoder, MLPEncoder
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

# %% [markdown]
# ## Three numbers, two labels
#
# Two lumps on a line, and three data. The first two have a label, 0 and 1; the third has none.
#
# $$c \sim U\{0, 1\}, \qquad x \mid c \sim N(m_c, 1), \qquad m = (-1.5, 1.5).$$
#
# The category of a labelled datum is observed. So we want a bound on $\log p(x, c = y)$ for
# labelled data, and on $\log p(x)$ for the others (Kingma et al., 2014). `mi.observe_category`
# makes the guide certain of each known label; -1 stands for none. The category is still summed
# out: for labelled data, one value has weight 1 and the others have weight 0.

# %%
centres = torch.tensor([-1.5, 1.5])
x, y = torch.tensor([-2.0, 0.5, 1.0]), torch.tensor([0, 1, -1])


def model(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.OneHotCategorical(torch.ones(2)))
        pyro.sample("x", dist.Normal(c @ centres, 1.0), obs=x)


logits = torch.zeros(3, 2, requires_grad=True)  # a guide that knows nothing yet


def guide(x):
    with pyro.plate("data", len(x)):
        fn = dist.OneHotCategorical(logits=logits)
        pyro.sample("c", fn, infer={"enumerate": "parallel"})


observing = mi.observe_category(guide, y)
listed = poutine.trace(poutine.enum(observing, first_available_dim=-2)).get_trace(x)
listed = poutine.trace(poutine.replay(model, listed)).get_trace(x)
listed.compute_log_prob()
print(listed.format_shapes())

log_joint = dist.Normal(centres, 1.0).log_prob(x[:, None]) - math.log(2)  # (3, 2): log p(x, c)
elbo = TraceEnum_ELBO(max_plate_nesting=1)
without_label = float((log_joint[2] + math.log(2)).mean())  # sum of q log(p/q) with q = 1/2
by_hand = float(log_joint[0, 0] + log_joint[1, 1]) + without_label
measured = -elbo.loss(model, observing, x)
print(f"by hand {by_hand:.4f}, by the library {measured:.4f}")
assert listed.nodes["x"]["log_prob"].shape == (2, 3)
assert abs(measured - by_hand) < 1e-4

# %% [markdown]
# ## The trap: a label that the guide does not know
#
# It seems simpler to observe `c` in the model, as one observes `x`, and to leave the guide as it
# is. Give all three data a label, so that nothing needs to be guessed: the ELBO must then be
# $\log p(x, y)$, exactly.

# %%
y_all = torch.tensor([0, 1, 1])
truth = float(log_joint.gather(1, y_all[:, None]).sum())


def observing_model(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.OneHotCategorical(torch.ones(2)), obs=torch.eye(2)[y_all])
        pyro.sample("x", dist.Normal(c @ centres, 1.0), obs=x)


with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    too_good = -elbo.loss(observing_model, guide, x)
right = -elbo.loss(model, mi.observe_category(guide, y_all), x)
print(f"log p(x, y) {truth:.3f}; label in the model {too_good:.3f}; in the guide {right:.3f}")
print(str(told[0].message).splitlines()[0])
assert abs(right - truth) < 1e-4
assert abs(too_good - truth - 3 * math.log(2)) < 1e-4
assert abs(3 * math.log(2) - 2.079) < 5e-4
assert "in guide but not model" in str(told[0].message)

# %% [markdown]
# The "bound" is 2.079 nats *above* the truth. The guide still enumerates a category that the
# model no longer has, so the guide's entropy is added to the ELBO, $\log 2$ per datum here.
# Training would raise this entropy: it rewards the guide for being unsure of data whose label is
# known. Pyro gives one warning. The library's loss refuses the pair.
#
# ## A second trap: labels that teach nobody
#
# Now the label is in the guide. Look at the gradient of the loss by the guide's logits.

# %%
(slope,) = torch.autograd.grad(elbo.differentiable_loss(model, observing, x), logits)
print("slope by the logits, ELBO alone:", slope.tolist())
alpha = 1.0
taught = mi.MutualInformationELBO([mi.LabelledCategory("c", weight=alpha)], max_plate_nesting=1)
loss = taught.differentiable_loss(model, guide, x, labels=y)
(taught_slope,) = torch.autograd.grad(loss, logits)
print("and with the classifier's term:  ", taught_slope.tolist())
assert (slope[:2] == 0).all()
assert (slope[2] != 0).any()
assert taught_slope[0, 0] < 0
assert taught_slope[1, 1] < 0

# %% [markdown]
# The gradient of the two labelled data is 0: where the category is known, $q(c \mid x)$ is not
# used. The labels train the decoder, but not the classifier that we wanted. So Kingma et al.
# add $\alpha\, E[\log q(c = y \mid x)]$ over the labelled data. The library takes its *mean* over
# the labelled data, times the number of all data. So 100 labels among 60,000 images count as much
# as 100 among 600. Here $\alpha = 1$.
#
# ## Labels with and without images
#
# Now the digits, and the classifier alone. The same network learns in two ways: from the labels
# only, and from the labels *and* all training images, of which most have no label. The images
# enter by the aim of chapter 6: all categories are used, and a small change of an image does not
# change its category.


# %%
class Classifier(PyroModule):
    """A guide that has a category and nothing else."""

    def __init__(self):
        super().__init__()
        self.features = MLPEncoder((1, 8, 8), (64, 64), batch_norm=True)
        self.category = nn.Linear(64, 10)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            fn = dist.OneHotCategorical(logits=self.category(self.features(x)))
            pyro.sample("c", fn, infer={"enumerate": "parallel"})


digits = mi.load_dataset("digits")
x_train, y_train, x_test, y_test = digits.x_train, digits.y_train, digits.x_test, digits.y_test


def choose(labels, split):
    """Rows of so many labelled images, the same number of each digit."""
    order = torch.randperm(len(y_train), generator=torch.Generator().manual_seed(split))
    rows = [order[y_train[order] == k][: labels // 10] for k in range(10)]
    return torch.cat(rows)


def from_labels(known):
    """Accuracy of a logistic regression that sees the labelled images alone."""
    classifier = LogisticRegression(max_iter=1000)
    classifier.fit(x_train[known].flatten(1).numpy(), y_train[known].numpy())
    return classifier.score(x_test.flatten(1).numpy(), y_test.numpy())


def from_both(known, steps=60):
    """Accuracy of a classifier that sees the labels, and all images."""
    classifier = Classifier()
    taught, wish = mi.LabelledCategory("c"), mi.RegularizedInformation("c", radius=0.7)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=6e-3)
    for _ in range(steps):
        rows = known[torch.randint(len(known), (100,))]
        images = x_train[torch.randint(len(x_train), (140,))]
        value = taught.per_datum(classifier, x_train[rows], y_train[rows])
        value = value + wish.per_datum(classifier, images)
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
    classifier.eval()
    logits = classifier.category(classifier.features(x_test))
    return float((logits.argmax(1) == y_test).float().mean())


counts, splits = [10, 30, 100], range(3)
table = {"labels": [], "labels and images": []}
for count in counts:
    chosen = [choose(count, split) for split in splits]
    torch.manual_seed(0)
    table["labels"].append([from_labels(known) for known in chosen])
    table["labels and images"].append([from_both(known) for known in chosen])
table = {name: torch.tensor(rows) for name, rows in table.items()}
for place, count in enumerate(counts):
    shown = [f"{t[place].mean():.3f} ± {t[place].std():.3f} of {n}" for n, t in table.items()]
    print(f"{count:3d} labels: " + ", ".join(shown))
paired = table["labels and images"] - table["labels"]
assert (paired[:2].mean(1) > 0).all()
assert paired[0].mean() > 3 * paired[0].std() / math.sqrt(len(splits))

# %% [markdown]
# Each row has three splits: three choices of the images that have a label. Images without a label
# help most where there are ten labels. About 30 labels with images are worth 100 without. With
# more labels the gain is smaller, and at 100 labels it is as large as its scatter.
#
# ## The whole model
#
# The classifier is the part $q(c \mid x)$ of CatVAE. `mi.fit(vae, x, labels=labels)` trains the
# whole model. The labels take part in the start of chapter 6. In the ELBO they are observed
# categories. And they train the classifier, by its term, on labelled images that `fit` draws
# beside each batch. The result is a model of the images, in which category $k$ *is* label $k$.
# Here is the first split, with 100 labels:

# %%
labels = torch.full_like(y_train, -1)  # -1 for none
known = choose(100, split=0)
labels[known] = y_train[known]
torch.manual_seed(0)
vae = mi.CatVAE(
    digits.data_shape,
    latent_dim=10,
    encoder=MLPEncoder(digits.data_shape, (128, 128), batch_norm=True),
    decoder=MLPDecoder(10, digits.data_shape, (64, 64)),
    warm_start=mi.CategoryStart(80, starts=1),
)
mi.fit(vae, x_train, labels=labels, epochs=7, batch_size=180, lr=3e-3, engine="staged")
right = (vae.encode(x_test)["c"].argmax(1) == y_test).float()
whole = float(right.mean())
error = math.sqrt(whole * (1 - whole) / len(right))
print(f"CatVAE with 100 labels: {whole:.3f} ± {error:.3f} of the test images")
assert whole > table["labels"][-1].mean() + 2 * error

# %%
torch.manual_seed(0)
rows = torch.stack([vae.sample(8, category=k) for k in range(10)])[:, :, 0]  # (10, 8, 8, 8)
picture = torch.nn.functional.pad(rows, (1, 1, 1, 1)).permute(0, 2, 1, 3).reshape(100, 80)
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for color, (name, values) in zip((PALETTE[3], PALETTE[0]), table.items()):
    left.errorbar(
        counts, values.mean(1), values.std(1), marker="o", capsize=3, color=color, label=name
    )
left.plot(
    100,
    whole,
    marker="*",
    markersize=11,
    color=PALETTE[2],
    linestyle="",
    label="CatVAE, one split",
)
left.set(
    xscale="log",
    xlabel="labels",
    ylabel="accuracy, test images",
    xticks=counts,
    xticklabels=counts,
)
left.legend(frameon=False, loc="lower right")
right.imshow(picture.numpy(), cmap="gray_r")
right.set(
    title="samples of category 0 to 9", xticks=[], yticks=range(5, 100, 10), yticklabels=range(10)
)
for ax in (left, right):
    style_axes(ax)
plt.show()

# %% [markdown]
# The bars are the standard deviation over splits. The star is one split. The error printed above
# comes from the finite test set, a third source beside splits and seeds. When you report an
# error, say which of the three it covers. `examples/labels.py` trains longer, and
# `docs/labels.md` has MNIST.

# %% [markdown]
# ## Exercises
#
# 1. With the label in the model and not in the guide, the "bound" is too good by the entropy of
#    the guide. Check it for a guide with the logits $(3, 0)$ at each datum.
# 2. Ten of 1,438 images are labelled sevens. Which share of the batches of 128 holds none of
#    them?
# 3. Two classifiers are right on 90 % and 92 % of 359 test images. Is the difference larger than
#    two standard errors?
#
# The answers are code that runs: `tests/chapters/test_answers_later.py`.

# %% [markdown]
# ## Sources
#
# * D. Kingma et al. (2014), Semi-supervised Learning with Deep Generative Models: the bound, and
#   the classifier's weight in equation 9. <https://arxiv.org/abs/1406.5298>
# * W. Hu et al. (2017), Learning Discrete Representations via Information Maximizing
#   Self-Augmented Training: the aim for images without a label. <https://arxiv.org/abs/1702.08720>
# * Pyro's tutorial of a semi-supervised VAE: <https://pyro.ai/examples/ss-vae.html>
