"""Kernels of a training step, ours beside hand-written PyTorch: loss and gradient.

A staged step is counted by the operations of its graph, a hand-written one by those of its forward
and backward pass. Both counts are of kernels that a GPU would launch: views and empty tensors
count nothing, a composite operation counts its parts. Compiled steps are counted on the CPU, by
the loops and library calls that inductor's fusion leaves. The optimiser and the batch's copy are
the same for all, and left out.

    python -m benchmarks nodes
    python -m benchmarks nodes --variants vae infocat --hidden-dims 400 --compiled
"""

from __future__ import annotations

import argparse
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import common
from benchmarks.speed import OPTIONS

aten = torch.ops.aten
FREE = {
    operator.getitem,
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten._unsafe_view.default,
    aten._reshape_alias.default,
    aten.lift_fresh.default,
}
"""Operations that launch no kernel, beside views."""


def launches(target: Any, args: tuple[Any, ...]) -> int:
    """Returns how many kernels an operation launches.

    Args:
        target: An operation of torch's, or what else a graph calls.
        args: Its arguments.
    """
    if target in FREE or getattr(target, "is_view", False):
        return 0
    if target == aten.binary_cross_entropy_with_logits.default:
        reduction = args[4] if len(args) > 4 else 1
        return 4 + bool(reduction)
    return 1


def count_graph(graph: Graph) -> Counter[str]:
    """Counts the kernels of a graph, by operation.

    Args:
        graph: A graph of torch's operations.
    """
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op == "call_function":
            counts[str(node.target)] += launches(node.target, node.args)
    return +counts


class Launches(TorchDispatchMode):
    """Counts the kernels of what runs within, by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs and counts an operation."""
        self.counts[str(func)] += launches(func, args)
        return func(*args, **(kwargs or {}))


def count_run(run: Callable[[], Tensor]) -> Counter[str]:
    """Counts the kernels of a loss and its gradient, by operation.

    Args:
        run: Returns the loss.
    """
    with Launches() as found:
        run().backward()
    return +found.counts


@contextmanager
def fused(counts: Counter[str]) -> Iterator[None]:
    """Adds up the kernels of what inductor compiles within, by kind."""
    import torch._inductor.config as config
    from torch._inductor.scheduler import ExternKernelSchedulerNode, NopKernelSchedulerNode

    def note(nodes: list[Any]) -> list[Any]:
        for node in nodes:
            if not isinstance(node, NopKernelSchedulerNode):
                extern = isinstance(node, ExternKernelSchedulerNode)
                counts["library calls" if extern else "loops"] += 1
        return nodes

    options: dict[str, Any] = {"_post_fusion_custom_pass": note, "fx_graph_cache": False}
    options["force_pointwise_cat"] = True  # as on a GPU
    with patch.multiple(config, **options):
        torch.compiler.reset()
        yield


def program_of(vae: Any) -> Any:
    """Returns the program of a variant's training step: its loss per datum, and the ledger.

    Args:
        vae: The variant.
    """
    from pyro_mivae.engine.tracing import TrainStep

    objective = vae.objective()

    def loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        value = objective.differentiable_loss(vae.model, vae.guide, x)
        return value / len(x), objective.ledger

    return TrainStep.of_modules(loss, vae.train(), objective.state)


def staged_kernels(vae: Any, x: Tensor) -> Counter[str]:
    """Counts the kernels of a variant's staged step on a GPU, by operation.

    Args:
        vae: The variant.
        x: A batch.
    """
    from pyro_mivae.engine.fusion import fuse_rounding
    from pyro_mivae.engine.steps import trace_step

    graph = trace_step(program_of(vae), x).graph
    fuse_rounding(graph)  # as where the step is on a GPU
    return count_graph(graph.graph)


def compiled_kernels(vae: Any, x: Tensor) -> Counter[str]:
    """Counts the kernels of a variant's compiled step, by kind.

    Args:
        vae: The variant.
        x: A batch.
    """
    from pyro_mivae.engine.steps import compile_graph, trace_step

    counts: Counter[str] = Counter()
    staged = trace_step(program_of(vae), x)
    with fused(counts):
        compile_graph(staged, x)
    return counts


def handwritten_kernels(
    vae: Any, x: Tensor, handwritten: type[nn.Module] | None = None, *, compiled: bool = False
) -> Counter[str]:
    """Counts the kernels of a variant's loss by hand and its gradient.

    Args:
        vae: The variant.
        x: A batch.
        handwritten: Its loss by hand; that of the variant with its own parts if omitted.
        compiled: Whether it is compiled.
    """
    from benchmarks.contenders import COMPILED
    from benchmarks.handwritten import HANDWRITTEN

    loss: Any = (handwritten or HANDWRITTEN[vae.name])(vae.train())
    vae.zero_grad()
    if not compiled:
        return count_run(lambda: loss(x))
    counts: Counter[str] = Counter()
    with fused(counts):
        torch.compile(loss, **COMPILED)(x).backward()
    return counts


def table(content: dict[str, dict[str, Counter[str]]]) -> str:
    """Lays the counts out.

    Args:
        content: What `main` returns.

    Returns:
        A Markdown table.
    """
    lines = ["| variant | step | ours | by hand | ours / by hand |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for variant, counts in content.items():
        for step in dict.fromkeys(name.split(", ")[0] for name in counts):
            ours, theirs = (counts[f"{step}, {who}"].total() for who in ("ours", "by hand"))
            lines.append(f"| {variant} | {step} | {ours} | {theirs} | {ours / theirs:.2f} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Makes the command's parser."""
    made = common.parser("nodes", __doc__)
    made.add_argument("--variants", nargs="+", help="all if omitted")
    made.add_argument("--batch-size", type=int, default=128)
    made.add_argument("--hidden-dims", nargs="+", type=int, help="of plain MLPs for all")
    made.add_argument("--compiled", action="store_true", help="count compiled steps too")
    made.add_argument("--by-operation", action="store_true", help="list the operations")
    return made


def main(argv: list[str] | None = None) -> dict[str, dict[str, Counter[str]]]:
    """Counts, and prints the table.

    Args:
        argv: The command line.

    Returns:
        The counts by variant and step.
    """
    from benchmarks.handwritten import CASES, HANDWRITTEN, build_case

    command = parser()
    args = command.parse_args(argv)
    variants = args.variants or list(HANDWRITTEN)
    common.check_names(command, "--variants", variants, CASES)
    x = torch.rand(args.batch_size, 1, 28, 28)
    content = {}
    for variant in variants:
        options = OPTIONS.get(variant, {})
        vae, loss = build_case(variant, tuple(x.shape[1:]), options, args.hidden_dims)
        counts = {"staged, ours": staged_kernels(vae, x)}
        counts["staged, by hand"] = handwritten_kernels(vae, x, loss)
        if args.compiled:
            counts["compiled, ours"] = compiled_kernels(vae, x)
            counts["compiled, by hand"] = handwritten_kernels(vae, x, loss, compiled=True)
        content[variant] = counts
    print(table(content))
    if args.by_operation:
        for variant, counts in content.items():
            names = sorted({name for step in counts.values() for name in step})
            print(f"\n{variant}: {', '.join(counts)}")
            for name in names:
                print(f"  {name}: {', '.join(str(step[name]) for step in counts.values())}")
    return content


if __name__ == "__main__":
    main()
