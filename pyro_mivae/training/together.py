"""Epochs of several trainers at once: one graph takes the steps of all, one optimiser follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.engine.stacking import EachStep, Stack, StackedStep, Streams, same_structure
from pyro_mivae.engine.staging import Staged, stage
from pyro_mivae.errors import CaptureError, StagingError
from pyro_mivae.training import recorded
from pyro_mivae.training.likeness import alike
from pyro_mivae.training.loop import Trainer
from pyro_mivae.training.meter import Meter

WORTH_STACKING = 400
"""Steps of single models, in batches of one size, from which on their own graph pays."""


class Together:
    """Trainers whose steps are taken at once, each as it would be alone.

    While this lives the models' parameters are views of stacked ones; `release` ends that.

    Args:
        trainers: Trainers at the same step, with the same data, batches and options, but for the
            learning rate and the seed.
        staged: Each one's graph for the first size of batch.
        streams: Their random numbers.
        compiled: Whether the graph is compiled.

    Raises:
        StagingError: If their steps cannot be taken at once.
    """

    def __init__(
        self,
        trainers: Sequence[Trainer],
        staged: Sequence[Staged],
        streams: Streams,
        *,
        compiled: bool,
    ) -> None:
        self.trainers, self.streams = tuple(trainers), streams
        first = trainers[0]
        self.x, self.device, self.settings = first.x, first.device, first.settings
        self.stack = Stack([trainer.program for trainer in trainers])
        try:
            size = first.batch_sizes[0]
            step = StackedStep(
                self.stack,
                staged,
                streams,
                (self._examples(size),),
                compiled=compiled,
                precision=self.settings.precision,
            )
        except StagingError:
            self.release()
            raise
        self._steps: dict[int, StackedStep | EachStep] = {size: step}
        self.optimiser = self._make_optimiser()
        self._recorded: dict[int, Callable[[Tensor], Tensor]] = {}
        self._record(step, size)

    def run_epoch(self, on_step: Callable[[], object] = lambda: None) -> list[Meter]:
        """Takes the steps of an epoch.

        Args:
            on_step: Called after each step.

        Returns:
            For each trainer the ledgers of its steps.
        """
        orders = torch.stack([trainer.next_order() for trainer in self.trainers])
        orders = orders.to(self.x.device)
        meters = [Meter(trainer.step + 1) for trainer in self.trainers]
        for trainer in self.trainers:
            trainer.vae.train()
        for size, indices in self._runs(orders):
            step = self._step_for(size)
            values = []
            for done, index in enumerate(indices):
                step.prepare(len(indices) - done)
                values.append(self._take(step, index))
                on_step()
            taken = torch.stack(values, 1)  # (trainers, steps, entries)
            for meter, own in zip(meters, taken, strict=True):
                meter.add(step.entries, own, size * len(indices))
        return meters

    def share_state(self) -> None:
        """Lets each trainer's own optimiser hold its part of the state, for its checkpoint."""
        for number, trainer in enumerate(self.trainers):
            for group in trainer.optimiser.param_groups:
                group["lr"] = group["initial_lr"] * trainer.lr_factor(trainer.step - 1)
            for parameter, stacked, alone in self._places(number):
                state = self.optimiser.state.get(stacked)
                if state:
                    trainer.optimiser.state[parameter] = {
                        name: value if alone or name == "step" else value[number]
                        for name, value in state.items()
                    }

    def release(self) -> None:
        """Gives every model memory of its own again."""
        self.stack.release()

    def _take(self, step: StackedStep | EachStep, index: Tensor) -> Tensor:
        """One step of all, of data whose indices are of shape ``(trainers, size)``."""
        factor = self.trainers[0].lr_factor(self.trainers[0].step)
        for group in self.optimiser.param_groups:
            rate = group["initial_lr"] * factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        x = self.x[index].to(self.device, non_blocking=True)
        take = self._recorded.get(index.shape[1])
        values = self._update(lambda: step(x)) if take is None else take(x)
        for trainer in self.trainers:
            trainer.objective.advance()
            trainer.step += 1
        return values

    def _update(self, evaluate: Callable[[], Tensor]) -> Tensor:
        """Evaluates, clips, and lets the optimiser follow."""
        values = evaluate()
        if self.settings.clip_norm is not None:
            clip_each(self.stack.parameters, self.settings.clip_norm)
        for view, stacked, number in self._views:
            view.grad = None if stacked.grad is None else stacked.grad[number]
        self.optimiser.step()
        return values

    def _record(self, step: StackedStep, size: int) -> None:
        """Records the step with the optimiser's part, if the device has such a thing."""
        recorder = recorded.recorder_for(self.optimiser, self.device)
        if recorder is None:
            return
        recorded.make_capturable(self.optimiser, self.device)
        batch, noise = self._examples(size), [n.clone() for n in step.noise_example]
        log = batch.new_zeros(len(self.trainers), len(step.entries))

        def body() -> None:
            log.copy_(self._update(lambda: step.evaluate((batch,), noise)))

        try:
            (replay,) = recorder.record(body, [1], [*self.stack.state, log])
        except CaptureError as error:
            recorded.tell_no_capture(error)
            return

        def take(x: Tensor) -> Tensor:
            batch.copy_(x, non_blocking=True)
            for static, drawn in zip(noise, step.take_noise(), strict=True):
                static.copy_(drawn)
            replay()
            return log.clone()

        self._recorded[size] = take

    def _runs(self, orders: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
        """The batches of an epoch, those of one size after each other."""
        batches = orders.split(self.trainers[0].batch_sizes, 1)
        for size, run in groupby(batches, key=lambda index: index.shape[1]):
            yield size, list(run)

    def _step_for(self, size: int) -> StackedStep | EachStep:
        """The step for a size of batch; a last, small one has a graph only where that pays.

        Reduced precision is to be had of a graph alone.
        """
        if size not in self._steps:
            self._steps[size] = EachStep(self.stack, self.streams)
            precision = self.settings.precision
            worth = self.settings.epochs * len(self.trainers) >= WORTH_STACKING
            if worth or precision == "bf16":
                args = self._examples(size)
                staged = stage_each(self.trainers, size)
                self._steps[size] = StackedStep(
                    self.stack, staged, self.streams, (args,), precision=precision
                )
        return self._steps[size]

    def _examples(self, size: int) -> Tensor:
        return torch.stack([trainer.example(size) for trainer in self.trainers])

    def _make_optimiser(self) -> torch.optim.Adam:
        """One Adam of all: on the stacked parameters, or on views where options differ."""
        options = [_options(trainer.optimiser) for trainer in self.trainers]
        groups: dict[tuple[Any, ...], list[Tensor]] = {}
        self._views: list[tuple[Tensor, Tensor, int]] = []
        self._own: dict[tuple[int, int], Tensor] = {}
        before: dict[Tensor, dict[str, Tensor]] = {}
        for index, stacked in enumerate(self.stack.parameters):
            twins = [program.parameters[index] for program in self.stack.programs]
            keys = [own[twin] for own, twin in zip(options, twins, strict=True)]
            states: list[dict[str, Tensor]] = [
                trainer.optimiser.state.get(twin, {})
                for trainer, twin in zip(self.trainers, twins, strict=True)
            ]
            if len(set(keys)) == 1:
                groups.setdefault(keys[0], []).append(stacked)
                before[stacked] = {
                    name: value.clone()
                    if name == "step"
                    else torch.stack([s[name] for s in states])
                    for name, value in states[0].items()
                }
                continue
            for number, key in enumerate(keys):
                view = self._own[index, number] = nn.Parameter(stacked[number])
                groups.setdefault(key, []).append(view)
                self._views.append((view, stacked, number))
                before[view] = dict(states[number])
        optimiser = torch.optim.Adam(
            [
                {"params": tensors, **dict(key), "initial_lr": dict(key)["lr"]}
                for key, tensors in groups.items()
            ],
            fused=True,
        )
        optimiser.state.update({tensor: state for tensor, state in before.items() if state})
        return optimiser

    def _places(self, number: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """A trainer's parameters, what the common optimiser has for each, and if it alone does."""
        for index, parameter in enumerate(self.stack.programs[number].parameters):
            own = self._own.get((index, number))
            yield parameter, self.stack.parameters[index] if own is None else own, own is not None


def stage_each(trainers: Sequence[Trainer], size: int) -> list[Staged]:
    """Stages the step of each trainer; those that are alike share one graph.

    Args:
        trainers: The trainers.
        size: Size of the batch.

    Returns:
        For each its graph.

    Raises:
        StagingError: If one cannot be staged.
    """
    kinds: list[tuple[Trainer, Staged]] = []
    staged = []
    for trainer in trainers:
        trainer.vae.train()
        known = next((graph for other, graph in kinds if alike(other.vae, trainer.vae)), None)
        if known is None:
            known = stage(trainer.program, trainer.example(size), decompose=True)
            kinds.append((trainer, known))
        staged.append(known)
    return staged


def group_by_structure(staged: Sequence[Staged]) -> list[list[int]]:
    """Groups graphs that are the same but for numbers.

    Args:
        staged: The graphs.

    Returns:
        Positions of those that go together.
    """
    groups: list[list[int]] = []
    for position, graph in enumerate(staged):
        fitting = (group for group in groups if same_structure(staged[group[0]], graph))
        group = next(fitting, None)
        if group is None:
            groups.append([position])
        else:
            group.append(position)
    return groups


@torch.no_grad()
def clip_each(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Clips the gradient of each of several stacked models, as ``clip_grad_norm_`` does of one.

    Args:
        parameters: Shape ``(models, ...)`` each, with gradients.
        max_norm: Largest norm.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
    shares = (max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(shares.view(-1, *(1,) * (gradient.dim() - 1)))


def _options(optimiser: torch.optim.Optimizer) -> dict[Tensor, tuple[Any, ...]]:
    """The options of each parameter, as `make_optimiser` set them."""
    found = {}
    for group in optimiser.param_groups:
        plain = {k: v for k, v in group.items() if k not in ("params", "initial_lr", "lr")}
        key = tuple(sorted({**plain, "lr": group["initial_lr"]}.items()))
        for parameter in group["params"]:
            found[parameter] = key
    return found
