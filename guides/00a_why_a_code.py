# %% [markdown]
# # Why would a model of images have a code, and what is a nat?
#
# A photograph has thousands of pixels and few causes: a face, a light, a pose. A *latent code* is
# a short description of such causes. Nobody wrote it down for us. We have to guess it from the
# pixels.
#
# This page needs PyTorch and no Pyro. Its models are so small that each number has an exact value.
#
# After this chapter you can
#
# * say in nats how well a model predicts data, and read that number as a length and as a bet;
# * write a model with a code, and sum the code out exactly;
# * invert such a model with Bayes' rule: from an image to its likely codes;
# * explain why a table of codes stops being enough.

# %%
import math

import matplotlib.pyplot as plt
import torch
from torch.distributions import Bernoulli

import pyro_mivae as mi
from pyro_mivae.plots import PALETTE
from pyro_mivae.plots.style import style_axes

# %% [markdown]
# ## Four lamps
#
# Four lamps hang in a room. The room is awake or asleep, with probability 1/2 each. If it is
# awake, each lamp is lit with probability 9/10. If it is asleep, each is lit with probability
# 1/10. Given the state of the room, the lamps are independent.
#
# We see the lamps and not the state. The lamps are the data, $x$. The state is the code, $c$.
# There are only 16 patterns of lamps, so we can list them all, with their probability
#
# $$p(x) = \sum_c p(c) \prod_{i=1}^4 p(x_i \mid c).$$

# %%
patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)  # (16, 4): every x
lit = torch.tensor([0.1, 0.9])  # (2,): of each lamp, asleep and awake
log_p_x_given_c = Bernoulli(lit[:, None]).log_prob(patterns[:, None, :].expand(-1, 2, -1)).sum(-1)
log_p_x_and_c = log_p_x_given_c + math.log(1 / 2)  # (16, 2)
log_p_x = log_p_x_and_c.logsumexp(1)  # (16,): the code is summed out
p_x = log_p_x.exp()

assert abs(p_x.sum() - 1) < 1e-6
print(f"probability that all four are lit: {p_x[-1]:.4f}")
assert abs(p_x[-1] - 0.3281) < 5e-5

# %% [markdown]
# All four lamps are lit in 0.3281 of all cases. Four fair coins would give 1/16, or 0.0625.
#
# ## The nat
#
# A good model gives a high probability to what happens. Probabilities of many pixels multiply to
# numbers that no computer can hold, so we add their logarithms. The *surprise* at a datum is
# $-\log p(x)$. With the natural logarithm its unit is the *nat*.
#
# There are two ways to feel a nat:
#
# * As a length. A code book for messages needs about $-\log_2 p(x)$ bits for $x$, and one nat is
#   $1/\log 2$ bits. The shortest mean length is the mean surprise, the *entropy* $H(x)$.
# * As a bet. A model that is one nat better on a datum gave it 2.718 times the probability.

# %%
entropy = -(p_x * log_p_x).sum()
no_code = 4 * math.log(2)  # each lamp alone is lit half of the time
bits_per_nat = 1 / math.log(2)

print(f"nats per pattern: {entropy:.3f} with the code, {no_code:.3f} without")
print(f"one nat is {bits_per_nat:.3f} bits")
assert abs(math.e - 2.718) < 5e-4 and abs(p_x.new_tensor(0.5) ** 4 - 0.0625) < 1e-9
assert abs(entropy - 1.94) < 5e-3 and abs(no_code - 2.77) < 5e-3
assert abs(bits_per_nat - 1.443) < 5e-4

# %% [markdown]
# A model without a code looks at each lamp alone. Each is lit half of the time, so that model
# needs $4 \log 2$, or 2.77 nats, for every pattern. The model with a code needs 1.94 nats on
# average. That is the entropy: no model can do better on these data.
#
# The code saves about a third, and it does so by one idea: *given the code, the pixels have
# nothing left to say about each other.*
#
# ## From an image to its code: Bayes' rule
#
# The model runs from the code to the lamps. To go back, divide:
#
# $$p(c \mid x) = \frac{p(c)\, p(x \mid c)}{p(x)}.$$
#
# This is the *posterior*: what we know about the code after we have seen the datum. The *prior*
# $p(c)$ is what we knew before. The *Kullback–Leibler divergence*
# $KL(q \,\|\, p) = E_q \log q / p$ says how far $q$ is from $p$. It is 0 only if they are the
# same. The divergence of the posterior from the prior, averaged over the data, is the
# *information* that the data hold about the code,
#
# $$I(c; x) = E_x\, KL(p(c \mid x) \,\|\, p(c)) = E_{c, x} \log \frac{p(c \mid x)}{p(c)}.$$

# %%
posterior = (log_p_x_and_c - log_p_x[:, None]).exp()  # (16, 2)
three_lit = patterns.sum(1).eq(3).nonzero()[0, 0]
two_lit = patterns.sum(1).eq(2).nonzero()[0, 0]
information = (log_p_x_and_c.exp() * (posterior.log() - math.log(1 / 2))).sum()

print(f"awake, if three lamps are lit: {posterior[three_lit, 1]:.3f}")
print(f"awake, if two lamps are lit:   {posterior[two_lit, 1]:.3f}")
print(f"information: {information:.2f} of {math.log(2):.2f} nats")
assert abs(posterior[three_lit, 1] - 81 / 82) < 1e-6  # odds of 9 for each lamp more
assert abs(posterior[two_lit, 1] - 0.5) < 1e-6
assert abs(information - 0.64) < 5e-3 and abs(math.log(2) - 0.69) < 5e-3

# %% [markdown]
# Three lamps of four make us almost sure that the room is awake: the odds are 81 to 1. Two lamps
# tell us nothing. On average the lamps hold 0.64 nats about the state, out of the 0.69 nats of a
# fair choice between two.
#
# The nats balance exactly. A pattern that is sent by way of its code costs the information, and
# then the surprise of each lamp once the code is known:
#
# $$\underbrace{H(x)}_{\text{all}} = \underbrace{I(c; x)}_{\text{rate}}
# + \underbrace{E_{c, x}[-\log p(x \mid c)]}_{\text{distortion}}.$$
#
# You will meet these two words, *rate* and *distortion*, in each chapter of this book.

# %%
distortion = -(log_p_x_and_c.exp() * log_p_x_given_c).sum()
print(f"rate {information:.4f} + distortion {distortion:.4f} = {information + distortion:.4f}")
assert abs(information + distortion - entropy) < 1e-5

# %% [markdown]
# ## Handwritten digits
#
# Now 64 pixels in place of four lamps: the digits that scikit-learn ships, with each grey pixel
# drawn once as 0 or 1. First a model without a code: each pixel has its own probability, the share
# of training images in which it is lit.

# %%
digits = mi.load_dataset("digits", binarize="fixed")
train, test = digits.x_train.flatten(1), digits.x_test.flatten(1)  # (1438, 64), (359, 64)


def nats(probs, x):
    """Mean surprise at images whose pixels are independent with these probabilities."""
    return -Bernoulli(probs).log_prob(x).sum(-1).mean()


alone = train.mean(0)  # (64,)
naive = -(torch.xlogy(test, alone) + torch.xlogy(1 - test, 1 - alone)).sum(-1)  # 0 log 0 is 0
print(f"{int(naive.isinf().sum())} of {len(test)} test images have an infinite surprise")
assert (alone == 0).any() and naive.isinf().any() and naive.mean() == math.inf

# %% [markdown]
# ## The trap: probability zero
#
# The model fails. Some pixels at the border are never lit in the training images, so their
# probability became 0. One such pixel, lit in one test image, is infinitely surprising, and so the
# mean over all test images is infinite too. A model that calls a possible thing impossible loses
# everything by one datum, however good it is elsewhere.
#
# The repair is old and small. Pretend to have seen each pixel lit once more, and dark once more
# (Laplace's rule of succession). Never call impossible what you have merely not seen.

# %%
alone = (train.sum(0) + 1) / (len(train) + 2)
without_code = float(nats(alone, test))
print(f"no code, repaired: {without_code:.1f} nats per test image")
assert abs(without_code - 27.1) < 0.05

# %% [markdown]
# The model without a code pays 27.1 nats per test image. The data are fixed and the model has a
# formula, so this number has no noise from training. Guessing each pixel by a fair coin costs
# $64 \log 2$, about 44 nats.
#
# ## A table of codes, learned without labels
#
# Let the code be one of $K$ values, each with 64 probabilities of its own. The sum over $c$ is
# exact, so plain gradient descent on $-\log p(x)$ can learn the table. The data have labels, but
# we do not use them.
#
# With logits $\ell$, $\log p(x \mid c) = \sum_i (x_i \ell_{ci} - \log(1 + e^{\ell_{ci}}))$. That
# is a matrix product, and so all images meet all codes at once.


# %%
class Table(torch.nn.Module):
    """A code of K values, with a row of pixel logits for each."""

    def __init__(self, num_codes, num_pixels=64):
        super().__init__()
        self.prior_logits = torch.nn.Parameter(torch.zeros(num_codes))
        self.pixel_logits = torch.nn.Parameter(0.3 * torch.randn(num_codes, num_pixels))

    def log_joint(self, x):
        """log p(x, c), shape (batch, K)."""
        rows = self.pixel_logits
        log_likelihood = x @ rows.T - torch.nn.functional.softplus(rows).sum(1)
        return self.prior_logits.log_softmax(0) + log_likelihood

    def nats(self, x):
        """Mean surprise at the images."""
        return -self.log_joint(x).logsumexp(1).mean()


def fit_table(num_codes, x, steps=150, seed=0):
    torch.manual_seed(seed)
    table = Table(num_codes)
    optimiser = torch.optim.Adam(table.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        table.nats(x).backward()
        optimiser.step()
    return table.requires_grad_(False)


sizes = [1, 2, 5, 10, 20, 50, 100, 200, 400]
tables = {k: fit_table(k, train) for k in sizes}
on_train = torch.stack([tables[k].nats(train) for k in sizes])
on_test = torch.stack([tables[k].nats(test) for k in sizes])
for k, a, b in zip(sizes, on_train, on_test):
    print(f"K = {k:3d}: {a:.1f} nats per training image, {b:.1f} per test image")

best = int(on_test.argmin())
assert abs(on_test[0] - without_code) < 0.1  # one code is no code
assert 20 <= sizes[best] <= 100 and abs(on_test[best] - 23.4) < 0.3  # seeds differ by 0.1
assert (on_train.diff() < 0).all() and on_test[-1] > on_test[best] + 1

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(sizes, on_train, "o-", color=PALETTE[3], label="training images")
axes.plot(sizes, on_test, "o-", color=PALETTE[0], label="test images")
axes.axhline(without_code, color=PALETTE[2], linestyle="--", label="no code")
axes.set(xscale="log", xlabel="values of the code, K", ylabel="nats per image")
axes.legend(frameon=False)
style_axes(axes, grid=True)

# %% [markdown]
# A table with one row is the model without a code. More rows help until about 50 of them, where a
# test image costs 23.4 nats: the code has saved between three and four nats. That is a factor of
# about forty in probability, for each image.
#
# After that the two curves part. Each row is learned from its own images only, and there are fewer
# and fewer of them. With 400 rows there are three or four images for a row, and the test images
# lose what the training images seem to gain.
#
# ## Beyond the table
#
# A table cannot share. A stroke at the left that many digits have in common must be learned anew
# in each row. Describe an image by $d$ yes-or-no causes instead, and there are $2^d$ codes; let
# the causes be real numbers, $z \in \mathbb{R}^d$, and the sum becomes an integral:
#
# $$p(x) = \int p(z)\, p(x \mid z)\, dz.$$
#
# A network, the *decoder*, turns $z$ into 64 probabilities, so that codes near each other share
# what they know. This buys much and costs one thing. The integral has no formula, and neither does
# the posterior $p(z \mid x)$. A second network must guess the posterior. That pair of programs,
# one from code to data and one from data to code, is what this library is about.
#
# The next page introduces Pyro, in which both programs are written.

# %% [markdown]
# ## Exercises
#
# 1. The lamps of a third room are lit with probability 1/2 when it is asleep, and 9/10 when it is
#    awake. How many nats do the four lamps now hold about the state? Should it be more or less
#    than before?
# 2. In the table with ten rows, replace the posterior by a uniform $q(c \mid x)$. Show that rate
#    and distortion then add up to more than $-\log p(x)$. Which divergence is the difference?
# 3. Give the table a row for each training image: probability 9/10 where a pixel is lit, and 1/10
#    where it is dark. What does a training image cost, at most? What does a test image cost?
#
# The answers are code that runs: `tests/chapters/test_answers_road.py`.
#
# ## Sources
#
# * Shannon (1948), A Mathematical Theory of Communication,
#   <https://doi.org/10.1002/j.1538-7305.1948.tb01338.x>: entropy, and the length of codes.
# * MacKay (2003), Information Theory, Inference, and Learning Algorithms, chapters 2 to 5,
#   <https://www.inference.org.uk/mackay/itila/>: bits, bets and Laplace's rule.
# * McLachlan & Peel (2000), Finite Mixture Models, <https://doi.org/10.1002/0471721182>: tables.
