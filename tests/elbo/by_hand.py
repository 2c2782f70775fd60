"""Sums written by hand, and pairs of a few lines."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.nn.functional import logsigmoid, softplus

import pyro_mivae as mi
from pyro_mivae.networks import MLPDecoder, MLPEncoder

SHAPE, BATCH, K = (2, 3), 4, 3
TOLERANCE = {"rtol": 0, "atol": 1e-10}


class Counting(nn.Module):
    """A decoder that counts the codes it decodes."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder
        self.rows = 0

    def forward(self, code):
        self.rows += code[..., 0].numel()
        return self.decoder(code)


def build(name, **options):
    latent_dim = options.setdefault("latent_dim", 6)
    torch.manual_seed(1)
    return mi.VARIANTS[name](
        SHAPE,
        encoder=MLPEncoder(SHAPE, (5,), nn.Tanh),
        decoder=MLPDecoder(latent_dim, SHAPE, (5,), nn.Tanh),
        **options,
    )


def noise(*shapes):
    """The noise that a run seeded alike draws, site by site."""
    torch.manual_seed(7)
    return [torch.normal(torch.zeros(shape), torch.ones(())) for shape in shapes]


def seeded_loss(objective, model, guide, *args):
    torch.manual_seed(7)
    return objective.differentiable_loss(model, guide, *args)


def mean_of(losses):
    """Mean and standard error."""
    values = torch.stack([torch.as_tensor(loss) for loss in losses])
    return values.mean(), values.std() / math.sqrt(len(values))


def bernoulli(logits, x):
    terms = x * logsigmoid(logits) + (1 - x) * logsigmoid(-logits)
    return terms.flatten(1).sum(1)


def normal_kl(loc, scale, prior_loc=0.0):
    terms = scale**2 + (loc - prior_loc) ** 2 - 1 - 2 * scale.log()
    return 0.5 * terms.sum(-1)


def gradients(loss, module):
    names, parameters = zip(*module.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True)))


def assert_same_gradients(ours, theirs, module):
    a, b = gradients(ours, module), gradients(theirs, module)
    for name in a:
        torch.testing.assert_close(a[name], b[name], **TOLERANCE, msg=name)


def cat_by_hand(vae, x, eps, num_categories, beta_c=1.0):
    """Sums over the categories in a loop."""
    features = vae.guide.encoder(x)
    log_q = vae.guide.heads[0].linear(features).log_softmax(-1)
    codes = vae.guide.heads[1].maps[0](features).reshape(len(x), num_categories, -1)
    total = 0.0
    for k in range(num_categories):
        loc, scale = codes[:, k].chunk(2, -1)
        scale = softplus(scale) + 1e-4
        log_likelihood = bernoulli(vae.model.decoder(loc + scale * eps[k]), x)
        kl_z = normal_kl(loc, scale, vae.prior.means[k])
        kl_c = log_q[:, k] + math.log(num_categories)
        total = total + log_q[:, k].exp() * (log_likelihood - kl_z - beta_c * kl_c)
    return -total.sum()


class Pair(PyroModule):
    """Parameters for a model and a guide written as methods."""

    def __init__(self, **parameters):
        super().__init__()
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(value))


def six(loc, scale):
    """Six values per datum about the same mean."""
    return dist.Normal(loc[..., None].repeat_interleave(6, -1), scale).to_event(1)


def simple_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def simple_guide(x, fn=None, infer=None, name="z"):
    with pyro.plate("data", len(x)):
        pyro.sample(name, fn or dist.Normal(x, 1.0), infer=infer)


def chances(probs, exact, draws):
    """The probability that each category is chosen, one datum, by bisection of the threshold."""
    order = probs.argsort(descending=True)
    rest = order[exact:]
    low, high = 0.0, 1.0
    for _ in range(200):
        threshold = (low + high) / 2
        expected = (probs[rest] / threshold).clamp(max=1).sum()
        low, high = (threshold, high) if expected > draws else (low, threshold)
    result = torch.ones_like(probs)
    result[rest] = (probs[rest] / high).clamp(max=1)
    return result


def pieces(probs, exact, draws):
    """Uniform numbers, one of each interval in which the choice is the same, and its length."""
    marks = {0.0, 1.0}
    for column in probs.unbind(-1):
        order = column.argsort(descending=True)
        ends = chances(column, exact, draws)[order[exact:]].cumsum(0)
        marks |= {float(end) % 1 for end in ends}
    ends = torch.tensor(sorted(marks))
    return (ends[1:] + ends[:-1]) / 2, ends.diff()
