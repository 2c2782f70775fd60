"""Constants are made once, where they are needed."""

import pyro
import pytest
import torch

import pyro_mivae as mi
from pyro_mivae.engine.constant_folding import hold_constants
from pyro_mivae.engine.tracing import trace_run

aten = torch.ops.aten
MIXTURE = {"num_categories": 3, "latent_dim": 6}
CASES = {name: (name, {}) for name in ("mmd", "vmi", "critic-infomax", "infogan")} | {
    "infocat scheduled": ("infocat", MIXTURE | {"mi_weight": mi.cyclic_warmup(3, start=0.1)}),
    "sampled categories": ("infocat", MIXTURE | {"categorical": "sample"}),
    "gumbel": ("cat", MIXTURE | {"categorical": "gumbel"}),
    "mine": ("critic-infomax", {"bound": "mine"}),
    "relaxed": ("vmi", {"generated": "relaxed"}),
    "continuous": ("vae", {"likelihood": "continuous-bernoulli"}),
    "deterministic": ("infomax", {"deterministic": True}),
    "left out": ("beta", {"beta": 0.0}),
}


def targets(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def test_what_is_made_of_a_constant_is_held(write_down):
    def step(x):
        return x + torch.tensor(2.0).to(torch.float64) * torch.tensor([1.0, 3.0])

    x = torch.rand(2)
    graph, _ = write_down(step, x)
    hold_constants(graph)
    graph.recompile()
    assert targets(graph) == [aten.add.Tensor]
    assert torch.equal(*graph(x), step(x))


def test_a_constant_that_is_changed_is_made_anew(write_down):
    def step(x):
        total = torch.tensor([0.0, 0.0])
        total[0].add_(x.sum())
        return total

    x = torch.ones(3)
    graph, _ = write_down(step, x)
    hold_constants(graph)
    graph.recompile()
    assert graph(x)[0].tolist() == graph(x)[0].tolist() == [3.0, 0.0]


def test_a_constant_that_is_changed_through_another_name_is_made_anew(write_down):
    def step(x):
        total = torch.zeros(2)
        alias = total[:]
        torch.add(torch.ones(2), 1.0, out=total)
        seen = total.view(2)
        early = x + seen
        alias.add_(3.0)
        return early, x + seen

    x = torch.rand(2)
    graph, _ = write_down(step, x)
    hold_constants(graph)
    graph.recompile()
    for one, other in zip(graph(x), step(x), strict=True):
        assert torch.equal(one, other)


def test_a_tensor_that_is_read_is_read_anew(write_down):
    given = torch.ones(2)
    graph, externals = write_down(lambda x: x + given.to(torch.float64), torch.ones(2))
    assert externals[0] is given
    hold_constants(graph)
    graph.recompile()
    given += 1
    assert graph(torch.ones(2), given)[0].tolist() == [3.0, 3.0]


@pytest.mark.filterwarnings("ignore:a batch of:pyro_mivae.errors.PyroMivaeWarning")
@pytest.mark.parametrize(("name", "options"), CASES.values(), ids=CASES)
def test_a_step_copies_nothing_between_devices(name, options, make, images, program_of):
    """Traced on the device of tensors without values, which stands for any but the CPU."""
    vae = make(name, **options)
    objective = vae.objective()
    with pyro.validation_enabled(False):
        objective.differentiable_loss(vae.model, vae.guide, images)  # finds the plates
    program = program_of(vae.to("meta"), objective.to("meta"))
    recording = trace_run(program.loss, [images.to("meta")], program.guards, program.parameters)
    graph = recording.traced.graph
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        if node.op != "get_attr" and value is not None:
            assert value.device.type == "meta", node.format_node()
        if node.target in (aten.stack.default, aten.cat.default):
            parts = [part.meta["val"].device.type for part in node.args[0]]
            assert set(parts) == {"meta"}, node.format_node()
    assert aten.lift_fresh_copy.default not in targets(graph)
    assert aten._local_scalar_dense.default not in targets(graph)
    assert not {aten.nonzero.default, aten.masked_select.default} & set(targets(graph))
