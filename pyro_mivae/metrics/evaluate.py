"""Every figure of a trained variant, with the protocol that it was measured by."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
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
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.posterior.progress import bars, tell
from pyro_mivae.variants import VARIANT, Variant
from pyro_mivae.variants.checks import check_weights

SAMPLES, MANY_SAMPLES = 1000, 10_000
FULL = {"iwae_samples": 5000, "generative_items": 2000, "generative_samples": 1000}


class Budget(NamedTuple):
    """Amount of data and draws of each figure."""

    full: bool
    probes: int | None  # data that the probes learn on at most; None for all
    samples: int  # images of each category
    information: InformationOptions

    @property
    def forests(self) -> int | None:
        """Data that the forests learn on at most; None for all."""
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
        """Fills in what is not asked for."""
        if not full:
            return cls(full, probe_items, samples_per_category, InformationOptions.of(options))
        for name, value, usual in (
            ("probe_items", probe_items, PROBE_ITEMS),
            ("samples_per_category", samples_per_category, SAMPLES),
        ):
            if value != usual:
                raise OptionError(
                    f"{name}={value} and full=True are given, and full takes all there is; leave "
                    "one of them out"
                )
        everything = FULL | {"iwae_items": items, "subset": items}
        return cls(full, None, MANY_SAMPLES, InformationOptions.of(everything | options))


class EvaluationResult(dict[str, float]):
    """Figures of `evaluate` by key.

    Attributes:
        protocol: What was encoded, how much of it, which split, which seed: plain values; under
            ``figures`` a line for every figure, see `how_measured`.
        seconds: Seconds of each part on the clock.
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


@checked(vae=VARIANT, progress=flag(), seed=SEED)
def evaluate(
    vae: Variant,
    x: Any,
    labels: Any = None,
    train: Train | None = None,
    *,
    factors: Any = None,
    full: bool = False,
    probe_items: int = PROBE_ITEMS,
    samples_per_category: int = SAMPLES,
    progress: bool = False,
    seed: int = 0,
    **options: Any,
) -> EvaluationResult:
    r"""Measures what a trained variant knows about data, and how its categories fit labels.

    The figures, all floats; ``<key>_se`` is the standard error of an average:

    * everything of `information`, in nats per datum;
    * ``reconstruction_r2`` (`reconstruction_r2` of the decoded posterior means), and with several
      sites ``reconstruction_r2_<site>`` of each alone, every other one at its prior mean. The
      decoder seldom saw such codes, so these may be below 0; read them together;
    * with a Gaussian likelihood of fixed scale: ``fixed_scale``, and ``data_scale``, the data's
      standard deviation in the direction that varies most. A larger scale makes the code collapse;
    * with a critic: ``mi_<sites>_critic`` (`critic_estimates`), and ``critic_falls_short``, 1
      where it is under half of the lower bound of that information and more than 0.5 nats under
      it, else 0;
    * with categories, by the argmax of q(c|x): ``categories_used``, those that hold at least 0.5 %
      of the data; ``occupancy_<k>``, the share that each holds; ``barber_agakov_<site>_mean``, the
      bound :math:`\log K + E \log q(c \mid x')` on the information between c and the mean image
      that it generates, for equally frequent categories;
    * with categories and labels: ``cluster_accuracy``, ``nmi``, ``ari`` of that argmax (NaN with
      one label), and ``cluster_accuracy_chance``, with shuffled labels; ``generation_accuracy``
      and ``generation_consistency`` by the functions of these names, judged by a classifier of
      real data, and the accuracy of that one on real data, ``judge_accuracy``;
    * with labels: ``largest_label``, the share of the most frequent one; ``linear_probe`` and
      ``mlp_probe``, accuracies of classifiers of the posterior means of all sites together (of a
      category its probabilities), and with several sites ``linear_probe_<site>`` of each alone;
      ``linear_probe_sampled`` and ``mlp_probe_sampled``, of one draw of each code;
    * with factors: ``mig`` (`mutual_information_gap`), ``sap``
      (`separated_attribute_predictability`), ``modularity``, ``factor_vae_score``, and
      ``dci_disentanglement``, ``dci_completeness`` and ``dci_informativeness`` (`dci_scores`), of
      the posterior means of all sites together, a category being one dimension.

    For probes and factors, dimensions whose means have a variance of 0.01 or less are constant.

    Args:
        vae: The variant.
        x: Data that it was not trained on, as `Variant.check_data` takes them, shape
            ``(n, *data_shape)``.
        labels: Their labels, integers, booleans or strings; a tensor, an array or a list, shape
            ``(n,)``.
        train: Other data, their labels and their factors (None where not known; without factors
            the last may be left out), on which probes, judge and forests learn. If omitted they
            learn on a random half of ``x``, stratified by label, and are scored on the other half.
        factors: What made each of the data, where it is known, integers, shape ``(n, F)``.
        full: Takes all data wherever some are taken for speed, and more of every draw: 5,000
            importance samples of each, 2,000 generated data with 1,000 each, 10,000 images of
            each category. Options of `information` that are given go before it. `forecast` says
            how long it will take.
        probe_items: The probes learn on at most so many data, drawn at random, and the forests on
            half as many.
        samples_per_category: Images that each category generates.
        progress: Shows what is done on stderr, if that is a terminal.
        seed: Of all draws, splits and classifiers. Torch's generators, Pyro's parameter store and
            the modules' mode are left as they were.
        **options: Options of `information`.

    Returns:
        The figures, with the attributes ``protocol``, ``diagnoses`` and ``seconds``.

    Raises:
        DataError: If the data do not fit the variant, or labels or factors the data.
        OptionError: If a number is out of range, or is given beside ``full``; an option is
            unknown; or weights of the variant are not finite.
    """
    known, taught = check_known(vae, x, labels, factors, train)
    options |= {"full": full, "probe_items": probe_items}
    budget = Budget.of(len(known.x), samples_per_category=samples_per_category, **options)
    check_weights(vae)
    with bars(enabled=progress):
        return measure(vae, known, taught, budget, seed)


def measure(
    vae: Variant, known: Known, taught: Known | None, budget: Budget, seed: int
) -> EvaluationResult:
    """Measures what `evaluate` says, of data that were checked."""
    x, labels, factors = known
    clock: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        """Draws from the seed anew, so that no part depends on which others there are."""
        began = time.perf_counter()
        tell(name, 0, 1)
        with preserved_state(seed, vae, device=vae.device):
            yield
        tell(name, 1, 1)
        clock[name] = time.perf_counter() - began

    findings = Findings()
    with part("information"):
        report = information(vae.model, vae.guide, x, seed=seed, **asdict(budget.information))
        clock |= {f"information, {name}": took for name, took in report.seconds.items()}
        findings.values |= report.to_dict()
    with part("codes"):
        data = EncodedData(vae, x, seed)
    with part("reconstruction"):
        measures.reconstruction(data, findings)
        measures.fixed_scale(data, findings)
    with part("critics"):
        measures.critics(data, findings)
    generated = None
    if vae.category is not None:
        with part("categories"):
            generated = measures.categories(data, findings, budget.samples)
            if labels is not None:
                measures.clusters(data, findings, labels)
    parts = split(known, taught, seed, vae.device)
    if parts.labels is not None:
        if generated is not None:
            with part("judge"):
                measures.generation(data, findings, parts, parts.labels, generated)
        with part("probes"):
            measures.probes(data, findings, parts, parts.labels, budget.probes)
    if factors is not None and parts.factors is not None:
        with part("factors"):
            measures.factors(data, findings, parts, factors, parts.factors, budget.forests)
    protocol = {
        "data": f"{len(x)} items given to evaluate",
        "encoded": "posterior means; of a category its probabilities, and their argmax",
        "seed": seed,
        "full": budget.full,
        "information": dict(report.protocol),
        "figures": findings.lines | information_lines(report.protocol),
    }
    return EvaluationResult(findings.values, protocol, clock, vae.noise)
