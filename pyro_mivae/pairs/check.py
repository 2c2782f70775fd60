"""`check`: the faults of a model/guide pair, in plain words and with their remedies."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_mivae.arguments import checked, function, instance
from pyro_mivae.elbo import MutualInformationELBO, Objective
from pyro_mivae.engine.snapshot import preserved
from pyro_mivae.errors import PyroMivaeError, PyroMivaeWarning, SiteError
from pyro_mivae.inputs import as_condition
from pyro_mivae.models import GenerativeModel
from pyro_mivae.pairs import rules
from pyro_mivae.pairs.findings import Finding, PairReport
from pyro_mivae.pairs.gradients import of_parameters, unchanged
from pyro_mivae.posterior.preserved_state import device_of
from pyro_mivae.terms import ENOUGH_DATA, LabelledCategory
from pyro_mivae.traces import Program, TracePair, run_programs
from pyro_mivae.variants import Variant
from pyro_mivae.variants.checks import check_store

SEED = 0
LABELS = "labels", "labelled"  # keywords of an objective with labels, which keeps them
ALONE = "call objective.loss(model, guide, x) to see where"
MEMORY = (
    "sample fewer categories, or decode a few of them, by CatVAE's categorical='sample' or "
    "SampledCategoricalELBO"
)
BROADCAST = (
    "let all that depends on them broadcast: a table of K values has shape (K, 1, ...) beside "
    "data of shape (batch, ...)"
)


@checked(model=function("model(x)"), objective=instance(Objective, example="vae.objective()"))
def check(
    model: Any, guide: Any, *args: Any, objective: Objective | None = None, **kwargs: Any
) -> PairReport:
    """Runs a model/guide pair, and reports its faults in plain words, each with a remedy.

    It takes any pair of Pyro programs, ``check(model, guide, x)``, or a variant and its data,
    ``check(vae, x)``. A fault is reported, not raised. The kinds of faults:

    * ``program``: a program fails.
    * ``sites``: model and guide do not sample the same sites, or the model observes nothing.
    * ``plate``: a batch dimension of a site is not in a plate.
    * ``shape``: a site's shape differs between the two programs.
    * ``data``: the likelihood gives the data no density; ``support``: the prior gives none to the
      values that the guide draws.
    * ``enumeration``: the annotation of a discrete site is forgotten or has no effect, or the pair
      fails when the values of the site are laid out.
    * ``gradient``: a site of the guide is neither reparametrised nor enumerated.
    * ``sub-sampling``: model and guide draw different mini-batches.
    * ``scale``: a site has a scale of its own that is no weight of its KL divergence.
    * ``parameters``: the objective does not train some parameters, or Pyro does not know them.
    * ``objective``: the objective refuses the pair. ``remark``: it warns about it.

    The programs run a few times, in their present mode. Parameters, buffers, gradients, random
    numbers of the CPU and the device, and Pyro's parameter store are as before afterwards. Faults
    of supports, gradients and enumeration are those for `MutualInformationELBO`; another
    objective, such as `InfoGANLoss`, is evaluated, and its error reported.

    Args:
        model: The model, or a `Variant`.
        guide: The guide; with a variant, the data.
        *args: Arguments of model and guide, a batch of data first, then their condition if there
            is one. Of a variant's data the first 64 are used, unless there are other arguments.
        objective: The loss; that of the variant, or `MutualInformationELBO` if omitted.
        **kwargs: Keyword arguments of model and guide, or labels for the objective.

    Returns:
        The findings, none if the pair is right, with a table of shapes.

    Raises:
        OptionError: If model or guide cannot be called, or the objective is none of the library's.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.7))
        >>> report = check(model, guide, torch.tensor([1.0, 2.0, 3.0]))
        >>> print(report[0])
        plate, site 'z': in the model, at site "z", invalid log_prob shape Expected [], actual [3]
          remedy: enclose the batched tensor in a with pyro.plate(...): context, or
            .to_event(...) the distribution being sampled, or .permute() data dimensions
    """
    if isinstance(model, Variant):
        given = guide, *args
        objective = objective or model.objective()
        return _checked(model.model, model.guide, given, kwargs, objective, owner=model)
    function("guide(x)")("guide", guide)
    owner = model if isinstance(model, GenerativeModel) else None
    return _checked(model, guide, args, kwargs, objective or MutualInformationELBO(), owner=owner)


def _checked(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    objective: Objective,
    owner: Any,
) -> PairReport:
    device = device_of(torch.zeros(()), model, guide)
    if owner is not None and args:
        x, *others = args
        given = others.pop(0) if others else kwargs.get("given")
        kwargs = {name: value for name, value in kwargs.items() if name != "given"}
        site = "x"
        try:
            data = owner.check_data(x).to(device)
            site = "given"
            condition = as_condition(given, owner.given_shape, len(data))
        except PyroMivaeError as error:
            return PairReport((Finding.of("data", error, site),), "")
        if condition is not None:
            others.insert(0, condition.to(data))
        args = (data, *others) if others or kwargs else (data[:ENOUGH_DATA],)
    store = pyro.get_param_store()
    with (
        unchanged(objective, model, guide),
        preserved([], device),
        store.scope(None if isinstance(owner, Variant) else store.get_state()),
        pyro.validation_enabled(True),
        warnings.catch_warnings(record=True) as told,
        torch.enable_grad(),
    ):
        warnings.simplefilter("always")
        torch.manual_seed(SEED)
        examination = _Examination(model, guide, args, kwargs, objective)
        examination.run()
        if isinstance(owner, Variant):
            try:
                check_store(owner)
            except SiteError as error:
                examination.note([Finding.of("parameters", error)])
        remarks = [w.message for w in told if isinstance(w.message, PyroMivaeWarning)]
        examination.note(Finding.of("remark", remark) for remark in remarks)
    return PairReport(tuple(dict.fromkeys(examination.findings)), examination.shapes)


class _Examination:
    """The findings about a pair, collected from a few runs."""

    def __init__(
        self,
        model: Program,
        guide: Program,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        objective: Objective,
    ) -> None:
        self.model, self.guide, self.args, self.given = model, guide, args, kwargs
        terms = getattr(objective, "terms", ())
        taken = LABELS if any(isinstance(term, LabelledCategory) for term in terms) else ()
        self.kwargs = {name: value for name, value in kwargs.items() if name not in taken}
        self.objective = objective
        self.findings: list[Finding] = []
        self.shapes = ""

    def note(self, findings: Iterable[Finding]) -> None:
        """Adds findings."""
        self.findings.extend(findings)

    def run(self) -> None:
        """Applies the rules, from those that any pair must pass to those of the objective."""
        stated = rules.Stated()
        try:
            plain = self._traces(stated(self.model), self.guide)
        except Exception as error:
            self.note(self._why(error))
            return
        self._show(*plain)
        self.note(rules.of_sites(*plain))
        self.note(rules.of_shapes(*plain))
        self.note(rules.of_subsamples(*plain, stated.indices))
        if self.objective.max_plate_nesting == math.inf:
            frames = [f for s in rules.samples(plain[1]).values() for f in s["cond_indep_stack"]]
            nesting = max((-frame.dim for frame in frames if frame.vectorized), default=0)
            self.objective.max_plate_nesting = nesting
        if isinstance(self.objective, MutualInformationELBO):
            self.note(rules.of_supports(*plain))
            self.note(self._of_elbo(*plain, stated.annotated))
        with pyro.validation_enabled(not self.findings):
            self._train()

    def _traces(self, model: Program, guide: Program) -> tuple[Any, Any]:
        return run_programs(model, guide, self.args, self.kwargs, None)

    def _numbers(self) -> list[Tensor]:
        return [part for part in (*self.args, *self.kwargs.values()) if isinstance(part, Tensor)]

    def _show(self, guide: Any, model: Any) -> None:
        tables = []
        for title, trace in (("guide:", guide), ("model:", model)):
            shown = prune_subsample_sites(trace)
            for name in shown.param_nodes:
                shown.remove_node(name)
            lines = shown.format_shapes(title).splitlines()
            tables += [line.rstrip() for line in lines if line.strip() != "Param Sites:"]
        self.shapes = "\n".join(tables)

    def _why(self, error: Exception) -> Iterator[Finding]:
        """Finds the program that fails, or the differences of two that run alone."""
        alone = {}
        for name, program in (("guide", self.guide), ("model", self.model)):
            try:
                traced = poutine.trace(program)
                alone[name] = traced.get_trace(*self.args, **self.kwargs)
            except Exception as own:
                site = next(reversed(rules.samples(traced.trace)), "")
                after = f" after site {site!r}" if site else ""
                found = f"the {name} fails{after}: {_told(own)}"
                remedy = f"make the {name} run alone on this batch"
                if not all(part.isfinite().all() for part in self._numbers()):
                    remedy = "fill or remove the NaN and infinity in its arguments"
                if "inside plate" in str(own):
                    remedy = (
                        "end the distribution with .to_event(1) if its last dimension belongs to "
                        "one datum, or give that dimension a plate of its size"
                    )
                yield Finding("program", "", found, remedy)
                return
        different = list(rules.of_programs(alone["guide"], alone["model"]))
        told = f"both programs run alone, but not the model on the guide's values: {_told(error)}"
        yield from different or [Finding("program", "", told, "give sites the same shapes")]

    def _of_elbo(self, guide: Any, model: Any, annotated: list[str]) -> Iterator[Finding]:
        """Applies the rules of an ELBO that sums annotated sites out."""
        sites = rules.samples(guide)
        wanted = [n for n, s in sites.items() if s["infer"].get("enumerate") == "parallel"]
        if wanted and all(sites[name]["fn"].has_enumerate_support for name in wanted):
            nesting = int(self.objective.max_plate_nesting)
            laid_out = EnumMessenger(first_available_dim=-1 - nesting)(self.guide)
            try:
                guide, model = self._traces(EnumMessenger()(self.model), laid_out)
            except Exception as error:
                if not self.findings:  # otherwise a consequence
                    told = f"the pair fails with all values of {wanted} laid out: {_told(error)}"
                    full = "memory" in str(error)
                    yield Finding("enumeration", "", told, MEMORY if full else BROADCAST)
                return
            self._show(guide, model)
        unused = list(rules.of_annotations(guide, annotated))
        yield from unused
        yield from rules.of_scales(guide, model)
        try:
            pair = TracePair(guide, model)
        except SiteError as error:
            if not any(finding.kind == "sites" for finding in self.findings):
                yield Finding.of("enumeration", error)
            return
        without = {finding.site for finding in unused}
        yield from (f for f in rules.of_gradients(pair) if f.site not in without)

    def _train(self) -> None:
        """Evaluates the objective, and finds the parameters that it does not train."""
        data = self.objective, self.model, self.guide, self.args, self.given
        try:
            self.note(list(of_parameters(*data)))
        except PyroMivaeError as error:
            self.note([] if self.findings else [Finding.of("objective", error)])
        except Exception as error:
            told = f"the objective fails on the pair: {_told(error)}"
            self.note([] if self.findings else [Finding("objective", "", told, ALONE)])


def _told(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
