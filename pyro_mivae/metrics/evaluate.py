"""All figures of a trained variant, with the protocol of their measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from pyro_mivae.arguments import checked, flag, whole
from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.report import information
from pyro_mivae.errors import OptionError
from pyro_mivae.metrics import measures
from pyro_mivae.metrics.checkers import COUNT, SEED
from pyro_mivae.metrics.encoded import EncodedData
from pyro_mivae.metrics.protocol import Findings, information_lines
from pyro_mivae.metrics.splits import PROBE_ITEMS, Known, Train, check_known, split
from pyro_mivae.metrics.summary import summarise
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.progress import bars, tell
from pyro_mivae.ranks import workers
from pyro_mivae.tables import Shown
from pyro_mivae.variants import VARIANT, Variant
from pyro_mivae.variants.checks import check_weights

SAMPLES, MANY_SAMPLES = 1000, 10_000
FULL = {"iwae_samples": 5000, "generative_items": 2000, "generative_samples": 1000}


class Budget(NamedTuple):
    """Numbers of data and draws of each figure."""

    full: bool
    probes: int | None  # data that the probes learn on at most; None for all
    samples: int  # images of each category
    information: InformationOptions

    @property
    def forests(self) -> int | None:
        """Largest number of data that the forests learn on; None for all."""
        return None if self.probes is None else max(1, self.probes // 2)

    @classmethod
    @checked(full=flag(), probe_items=whole(least=1), samples_per_category=COUNT)
    def of(
        cls,
        items: int,
        *,
        full: bool = False,
        probe_items: int = PROBE_ITEMS,
        samples_per_category: int = SAMPLES,
        **options: Any,
    ) -> Budget:
        """Fills in the defaults."""
        if not full:
            return cls(full, probe_items, samples_per_category, InformationOptions.of(options))
        for name, value, usual in (
            ("probe_items", probe_items, PROBE_ITEMS),
            ("samples_per_category", samples_per_category, SAMPLES),
        ):
            if value != usual:
                raise OptionError(
                    f"{name}={value} and full=True are given, but full uses all data; leave one "
                    "of them out"
                )
        everything = FULL | {"iwae_items": items, "subset": items}
        return cls(full, None, MANY_SAMPLES, InformationOptions.of(everything | options))


class EvaluationResult(Shown, dict[str, float]):
    """Figures of `evaluate` by key; printed, the main ones as a table.

    Attributes:
        protocol: Data, their number, split and seed as plain values; a line for every figure under
            ``figures``; under ``likelihood`` a remark on data that do not suit the likelihood, if
            they do not.
        seconds: Wall time of each part.
        diagnoses: Sentences on what is wrong with the model, see `diagnose`.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        protocol: Mapping[str, Any],
        seconds: Mapping[str, float],
        noise: Collection[str] = (),
    ) -> None:
        super().__init__(values)
        self.protocol, self.seconds = dict(protocol), dict(seconds)
        self.diagnoses: list[Diagnosis] = diagnose(values, noise=noise)
        self._noise = tuple(noise)

    def __str__(self) -> str:
        note = self.protocol.get("likelihood")
        return summarise(self, notes=[note] if note else [], noise=self._noise)

    def __repr__(self) -> str:
        return f"EvaluationResult({len(self)} figures of {self.protocol.get('data', 'data')})"


@checked(vae=VARIANT, num_labels=whole(least=0), progress=flag(), seed=SEED)
def evaluate(
    vae: Variant,
    x: Any,
    labels: Any = None,
    train: Train | None = None,
    *,
    factors: Any = None,
    given: Any = None,
    full: bool = False,
    num_labels: int = 0,
    probe_items: int = PROBE_ITEMS,
    samples_per_category: int = SAMPLES,
    progress: bool = False,
    seed: int = 0,
    **options: Any,
) -> EvaluationResult:
    r"""Measures the information of a trained variant, and its agreement with labels and factors.

    The figures, all floats; ``docs/evaluation.md`` says how each is measured, and ``<key>_se`` is
    the standard error of an average:

    * everything of `information`, in nats per datum;
    * ``reconstruction_r2``, and with several sites ``reconstruction_r2_<site>`` of each alone;
    * with a Gaussian likelihood of fixed scale, ``fixed_scale`` and ``data_scale``;
    * with a critic, ``mi_<sites>_critic`` and ``critic_falls_short``;
    * with categories, ``categories_used``, ``occupancy_<k>``, ``barber_agakov_<site>_mean``;
    * with categories and labels, ``cluster_accuracy``, ``cluster_accuracy_chance``, ``nmi``,
      ``ari``, ``purity``, ``generation_accuracy``, ``generation_consistency``,
      ``judge_accuracy``; if training used labels, ``classification_accuracy``;
    * with labels, ``largest_label``, ``linear_probe``, ``mlp_probe``, ``linear_probe_<site>``,
      ``linear_probe_sampled``, ``mlp_probe_sampled``;
    * with factors, ``mig``, ``sap``, ``modularity``, ``factor_vae_score``,
      ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness``.

    Args:
        vae: The variant.
        x: Data that it was not trained on, as `Variant.check_data` takes them, shape
            ``(n, *data_shape)``.
        labels: Their labels, integers, booleans or strings; a tensor, an array or a list, shape
            ``(n,)``.
        train: Other data, their labels and their factors, on which probes, judge and forests
            learn. Unknown labels are None; unknown factors are None or left out. If omitted, they
            learn on a random half of ``x``, stratified by label, and are scored on the other half.
        factors: Known factors of each datum, integers, shape ``(n, F)``.
        given: The condition of each datum, see `Variant.arguments`; that of ``train`` is its
            fourth part. Information is then that given the condition, see `information`, and
            generated images get the conditions of the data.
        full: True to measure on all data and with more draws: 5,000 importance samples per datum,
            2,000 generated data with 1,000 each, and 10,000 images per category. Given options of
            `information` override it. ``forecast`` estimates the time.
        num_labels: Number of labels that training used, see `fit`; 0 for none.
        probe_items: Largest number of data that the probes learn on, drawn at random; the forests
            learn on half as many.
        samples_per_category: Number of images that each category generates.
        progress: True to show progress on stderr, if that is a terminal.
        seed: Seed of all draws, splits and classifiers. Torch's generators, Pyro's parameter store
            and the modules' mode are restored.
        **options: Options of `information`.

    Returns:
        The figures, with the attributes ``protocol``, ``diagnoses`` and ``seconds``.

    Raises:
        DataError: If the data do not match the variant, or labels or factors do not match the
            data.
        OptionError: If a number is out of range, or is given beside ``full``; ``num_labels`` is
            given without labels or categories; an option is unknown; or weights of the variant
            are not finite.

    Example:
        >>> digits = mi.load_dataset("digits")
        >>> vae = mi.VAE(digits.data_shape, latent_dim=2).eval()
        >>> results = evaluate(vae, digits.x_test[:64], iwae_samples=4)
        >>> results["mi_lower"] <= results["mi_upper"] <= results["rate"] + 1e-3
        True
    """
    known, taught = check_known(vae, x, labels, factors, train, given)
    options |= {"full": full, "probe_items": probe_items}
    budget = Budget.of(len(known.x), samples_per_category=samples_per_category, **options)
    if num_labels and (known.labels is None or vae.category is None):
        raise OptionError(
            f"num_labels={num_labels} needs labels of the data, and a variant with categories"
        )
    check_weights(vae)
    with bars(enabled=progress):
        return measure(vae, known, taught, budget, seed, num_labels)


def measure(
    vae: Variant,
    known: Known,
    taught: Known | None,
    budget: Budget,
    seed: int,
    num_labels: int = 0,
) -> EvaluationResult:
    """Measures the figures of `evaluate` on checked data, in all processes that work on them."""
    (x, *given), labels, factors = known
    clock: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        """Restarts the random numbers from the seed, so that no part depends on other parts."""
        began = time.perf_counter()
        tell(name, 0, 1)
        with preserved_state(seed, vae, device=vae.device):
            yield
        tell(name, 1, 1)
        clock[name] = time.perf_counter() - began

    with part("codes"):
        data = EncodedData(vae, known.args, seed)
    parts = split(known, taught, seed, vae.device)
    reports: list[dict[str, Any]] = []

    def of_information(findings: Findings) -> None:
        with part("information"):
            how = asdict(budget.information)
            how["given"] = next(iter(given), None)
            report = information(vae.model, vae.guide, x, seed=seed, **how)
        clock.update({f"information, {name}": took for name, took in report.seconds.items()})
        reports.append(report.protocol)
        findings.values |= report.to_dict()
        with part("critics"):
            measures.critics(data, findings)

    def of_categories(findings: Findings) -> None:
        with part("reconstruction"):
            measures.reconstruction(data, findings)
            measures.fixed_scale(data, findings)
        if vae.category is None:
            return
        with part("categories"):
            generated = measures.categories(data, findings, budget.samples)
            if labels is not None:
                measures.clusters(data, findings, labels)
                if num_labels:
                    measures.classification(data, findings, labels, num_labels)
        if parts.labels is not None:
            with part("judge"):
                measures.generation(data, findings, parts, parts.labels, generated)

    def of_probes(findings: Findings) -> None:
        if parts.labels is not None:
            with part("probes"):
                measures.probes(data, findings, parts, parts.labels, budget.probes)

    def of_factors(findings: Findings) -> None:
        if factors is not None and parts.factors is not None:
            with part("factors"):
                measures.factors(data, findings, parts, factors, parts.factors, budget.forests)

    findings = _divided([of_information, of_categories, of_probes, of_factors])
    told = workers().from_each(reports)[0][0]
    protocol = {
        "data": f"{len(x)} items passed to evaluate",
        "encoded": "posterior means; the probabilities of a category, and their argmax",
        "seed": seed,
        "full": budget.full,
        "information": dict(told),
        "figures": findings.lines | information_lines(told),
    }
    if misfit := vae.likelihood.misfit(x):
        protocol["likelihood"] = misfit
    return EvaluationResult(findings.values, protocol, clock, vae.noise)


def _divided(tasks: Sequence[Callable[[Findings], None]]) -> Findings:
    """Collects the findings of tasks: the first process does the first, others share the rest."""
    ranks, own = workers(), dict[int, Findings]()
    for number, task in enumerate(tasks):
        if ranks.rank == (1 + (number - 1) % (ranks.size - 1) if number and ranks.size > 1 else 0):
            task(own.setdefault(number, Findings()))
    each = {number: found for share in ranks.from_each(own) for number, found in share.items()}
    whole = Findings()
    for number in sorted(each):
        whole.values |= each[number].values
        whole.lines |= each[number].lines
    return whole
