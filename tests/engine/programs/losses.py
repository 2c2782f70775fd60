"""Losses: the library's terms, weights and variants; Pyro's own; a user's."""

import pyro
import pyro.distributions as dist
import torch
from pyro import infer
from torch import Tensor, nn

import pyro_mivae as mi
from pyro_mivae.networks import MLPDecoder, MLPEncoder

from .harness import Case, data, decode, encode, late, program
from .structures_pyro import classify, mixture

SHAPE = (1, 2, 2)


def add(name, make, expected="staged", slow=True, **options):
    def build():
        return Case(decode, encode, loss=make())

    build.__name__ = f"loss_{name}"
    program(expected, slow=slow, **options)(build)


def critic():
    return mi.build_critic("separable", (3,), 2, hidden_dims=(4,))


for name, make_terms, quick in [
    ("barber_agakov", lambda: [mi.BarberAgakov("z", generated="straight-through")], True),
    ("barber_agakov_of_means", lambda: [mi.BarberAgakov("z", weight=0.5)], False),
    (
        "barber_agakov_scheduled",
        lambda: [mi.BarberAgakov("z", weight=mi.linear_warmup(15))],
        False,
    ),
    ("critic_nwj", lambda: [mi.CriticBound("z", critic=critic(), weight=0.1)], False),
    (
        "critic_infonce",
        lambda: [mi.CriticBound("z", critic=critic(), bound="infonce", weight=0.5)],
        False,
    ),
    (
        "critic_mine_with_its_average",
        lambda: [mi.CriticBound("z", critic=critic(), bound="mine", weight=0.1)],
        False,
    ),
    (
        "critic_of_a_seed",
        lambda: [mi.CriticBound("z", critic=critic(), bound="jensen-shannon", seed=3)],
        False,
    ),
    ("mmd", lambda: [mi.MaximumMeanDiscrepancy("z", weight=10.0)], True),
    (
        "mmd_scheduled",
        lambda: [mi.MaximumMeanDiscrepancy("z", weight=mi.cyclic_warmup(12))],
        False,
    ),
    (
        "penalty",
        lambda: [
            mi.Penalty("z", function=lambda p: p.traces.guide.nodes["z"]["value"].square().sum())
        ],
        False,
    ),
    (
        "two_terms",
        lambda: [
            mi.MaximumMeanDiscrepancy("z"),
            mi.BarberAgakov("z", generated="straight-through"),
        ],
        False,
    ),
]:
    add(
        name,
        lambda make_terms=make_terms: mi.MutualInformationELBO(make_terms()),
        slow=not quick,
    )
for name, weight in [("zero", 0.0), ("four", 4.0), ("warmed_up", mi.linear_warmup(10))]:
    add(f"weight_{name}", lambda weight=weight: mi.MutualInformationELBO(kl_weights={"z": weight}))
for name, loss_class, options in [
    ("trace", infer.Trace_ELBO, {}),
    ("trace_particles", infer.Trace_ELBO, {"num_particles": 2}),
    (
        "trace_vectorised",
        infer.Trace_ELBO,
        {"num_particles": 2, "vectorize_particles": True, "max_plate_nesting": 1},
    ),
    ("mean_field", infer.TraceMeanField_ELBO, {}),
    ("graph", infer.TraceGraph_ELBO, {}),
    ("renyi", infer.RenyiELBO, {"alpha": 0.5, "num_particles": 2}),
]:
    add(
        f"pyro_{name}",
        lambda loss_class=loss_class, options=options: loss_class(**options),
        "either",
        slow=name != "trace",
    )


@program("staged")
def loss_regularized_information():
    loss = mi.MutualInformationELBO([mi.RegularizedInformation("c0", weight=0.5)])
    return Case(mixture, lambda x: classify(x, enumerate="parallel"), loss=loss)


@program("either")
def loss_enumerating_of_pyro():
    loss = infer.TraceEnum_ELBO(max_plate_nesting=1)
    return Case(mixture, lambda x: classify(x, enumerate="parallel"), loss=loss)


@program("either")
def loss_score_function_of_pyro():
    """A discrete draw with a baseline that decays: a state of the loss's own."""

    def guide(x):
        baseline = {"use_decaying_avg_baseline": True, "baseline_beta": 0.9}
        classify(x, baseline=baseline)

    return Case(mixture, guide, pyro.optim.Adam({"lr": 1e-3}), infer.TraceGraph_ELBO())


def variant_case(vae, objective=None):
    batches = [torch.sigmoid(data(8, 4, seed)).reshape(8, *SHAPE) for seed in range(3)]
    return Case(
        vae.model,
        vae.guide,
        pyro.optim.Adam(vae.optim_args),
        objective or vae.objective(12),
        batch=lambda step: (batches[step % 3],),
        modules=[vae],
    )


def small(name, latent_dim=2, **options):
    """Builds a variant of networks with four units.

    No bias stands before batch norm: its gradient is rounding alone, of which Adam makes steps.
    """
    code = latent_dim
    if name in ("cat", "infocat"):
        options = {"num_categories": 2, "warm_start": 0, **options}
    if name == "infogan":
        latent_dim, code, options = 3, 5, {"code_dim": 1, "num_categories": 2}
    if name == "critic-infomax":
        options["critic"] = mi.build_critic("separable", SHAPE, latent_dim, hidden_dims=(4,))
    encoder: nn.Module = MLPEncoder(SHAPE, (4,), nn.Tanh)
    if name == "beta":
        linear = nn.Linear(4, 4, bias=False)
        encoder = nn.Sequential(nn.Flatten(), linear, nn.BatchNorm1d(4), nn.Tanh())
    decoder = MLPDecoder(code, SHAPE, (4,), nn.Tanh)
    return mi.VARIANTS[name](
        SHAPE, latent_dim=latent_dim, encoder=encoder, decoder=decoder, **options
    )


def add_variant(name):
    def build():
        return variant_case(small(name))

    build.__name__ = f"variant_{name.replace('-', '_')}"
    program("staged", slow=name not in ("vae", "infocat"))(build)


for name in mi.VARIANTS:
    add_variant(name)


@program("staged")
def loss_few_categories_decoded():
    vae = small("cat", latent_dim=3, num_categories=3)
    return variant_case(vae, mi.SampledCategoricalELBO())


@program("staged", slow=False)
def loss_soft_category():
    return variant_case(small("infocat", categorical="soft"))


@program("staged")
def loss_relaxed_category_with_a_temperature_that_falls():
    loss = mi.RelaxedCategoricalELBO(
        relaxation="gumbel", temperature=mi.linear_warmup(20, start=1.0, end=0.3)
    )
    return variant_case(small("cat"), loss)


class Own(infer.ELBO):
    """A loss as a user writes it: a reparametrised estimate with a weight of the KL."""

    beta = 1.0

    def _get_trace(self, model, guide, args, kwargs):
        guided = pyro.poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = pyro.poutine.replay(model, guided)
        return pyro.poutine.trace(replayed).get_trace(*args, **kwargs), guided

    def differentiable_loss(self, model, guide, *args, **kwargs) -> Tensor:
        modelled, guided = self._get_trace(model, guide, args, kwargs)
        latent = guided.log_prob_sum() - modelled.log_prob_sum(lambda name, site: name == "z")
        return self.beta * latent - modelled.log_prob_sum(lambda name, site: name == "x")

    def loss(self, model, guide, *args, **kwargs):
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model, guide, *args, **kwargs):
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()


@program("either", slow=False)
def loss_of_the_users():
    return Case(decode, encode, loss=Own())


@program("either")
def loss_of_the_users_with_a_weight_that_changes():
    loss = Own()
    return Case(decode, encode, loss=loss, before=lambda step: setattr(loss, "beta", late(step)))


@program("either")
def loss_of_the_users_that_clips_gradients():
    class Clips(mi.MutualInformationELBO):
        def loss_and_grads(self, model, guide, *args, **kwargs):
            loss = super().loss_and_grads(model, guide, *args, **kwargs)
            parameters = [p for _, p in pyro.get_param_store().named_parameters()]
            nn.utils.clip_grad_norm_(parameters, 0.5)
            return loss

    return Case(decode, encode, pyro.optim.SGD({"lr": 0.01}), Clips())


@program("either")
def loss_subclass_with_a_penalty():
    class Sparse(mi.MutualInformationELBO):
        strength = 1.0

        def differentiable_loss(self, model, guide, *args, **kwargs):
            loss = super().differentiable_loss(model, guide, *args, **kwargs)
            return loss + self.strength * pyro.param("weight").abs().sum()

    loss = Sparse()

    def change(step):
        loss.strength = late(step, 11, 1.0, 20.0)

    return Case(decode, encode, loss=loss, before=change)


@program("either")
def loss_as_a_function():
    """A function in place of an ELBO, as Pyro's SVI takes it."""

    def loss(model, guide, *args, **kwargs):
        return mi.MutualInformationELBO(max_plate_nesting=1).differentiable_loss(
            model, guide, *args, **kwargs
        )

    return Case(decode, encode, loss=loss)


@program("either")
def loss_replaced_in_the_middle():
    other = mi.MutualInformationELBO(kl_weights={"z": 3.0})

    def step_of(svi, step):
        if step == 11:
            svi.loss, svi.loss_and_grads = other.loss, other.loss_and_grads
        return svi.step(data())

    return Case(decode, encode, step=step_of)


@program("either")
def loss_factor():
    def model(x):
        z = decode(x)
        pyro.factor("energy", -z.square().sum(-1).mean() / 5)

    return Case(model, encode)


@program("error")
def loss_of_an_unknown_site():
    return Case(decode, encode, loss=mi.MutualInformationELBO(kl_weights={"nothing": 2.0}))


@program("either")
def loss_with_a_deterministic_code():
    def guide(x):
        slope = pyro.param("slope", lambda: torch.full((3, 2), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x @ slope).to_event(1))

    return Case(decode, guide)
