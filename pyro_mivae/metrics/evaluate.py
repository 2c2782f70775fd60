"""Every figure of a trained variant, with the protocol that it was measured by."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyro_mivae.arguments import checked, flag
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.report import information
from pyro_mivae.metrics import families
from pyro_mivae.metrics.effort import GIVEN, PROBE_ITEMS, SAMPLES, Effort
from pyro_mivae.metrics.findings import Findings
from pyro_mivae.metrics.lesson import (
    Known,
    Train,
    check_known,
    make_lesson,
)
from pyro_mivae.metrics.progress import bars
from pyro_mivae.metrics.protocol import information_lines
from pyro_mivae.metrics.subject import Subject
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.posterior.progress import tell
from pyro_mivae.variants import Variant
from pyro_mivae.variants.checks import check_weights


class EvaluationResult(dict[str, float]):
    """The figures of `evaluate` by name, and how they were measured.

    Args:
        values: The figures.
        protocol: What was encoded, how much of it, which split, which seed: plain values.
        seconds: How long each part took on the clock.
        noise: Sites that are not meant to say anything of the data.

    Attributes:
        protocol: The protocol; under ``figures`` a line for every figure, see `how_measured`.
        seconds: How long each part took on the clock.
        diagnoses: What the figures say is wrong with the model, see `diagnose`.
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


@checked(**GIVEN, progress=flag())
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

    The figures, all floats:

    * everything of `information`, in nats per datum;
    * ``reconstruction_r2``, the share of the data's variance that the decoded posterior means
      account for (`reconstruction_r2`), and with several sites ``reconstruction_r2_<site>`` of
      each alone, every other one at its prior mean. The decoder seldom saw such codes, so that
      these may be below 0; read them together;
    * with a Gaussian likelihood of fixed scale: ``fixed_scale``, and ``data_scale``, the data's
      standard deviation in the direction that varies most. A scale that is larger makes the code
      collapse, which `diagnose` names;
    * with a critic: ``mi_<sites>_critic``, its estimate of the information in these data, beside
      the bounds ``mi_lower`` and ``mi_upper`` that need none, and ``critic_falls_short``, 1 where
      it is under half of the lower bound and more than 0.5 nats under it, else 0 (see
      `critic_estimates`);
    * with categories: ``categories_used``, how many hold at least 0.5 % of the data by the argmax
      of q(c|x); ``occupancy_<k>``, the share that each holds; ``barber_agakov_<site>_mean``, the
      bound :math:`\log K + E \log q(c \mid x')` on the information between c and the mean image
      that it generates, for equally frequent categories;
    * with categories and labels: ``cluster_accuracy``, ``nmi``, ``ari`` of that argmax on all the
      data (NaN with one label), beside ``cluster_accuracy_chance``, what shuffled labels get;
      ``generation_accuracy``, the share of the samples to which a classifier of real data gives
      the label that is matched to their category one to one (see `generation_accuracy`), and
      ``generation_consistency``, the share of each category's samples with its most frequent
      judged label, whichever it is; beside the classifier's own accuracy on real data,
      ``judge_accuracy``;
    * with labels: ``largest_label``, the share of the most frequent one, which a constant guess
      has; ``linear_probe`` and ``mlp_probe``, accuracies of classifiers of the posterior
      means of all sites together (of a category its probabilities), and with several sites
      ``linear_probe_<site>`` of each alone, where dimensions whose means have a variance of 0.01
      or less count as constant; ``linear_probe_sampled`` and ``mlp_probe_sampled``,
      those of classifiers of one draw of each code, which its noise is part of;
    * with factors: ``mig`` (`mutual_information_gap`), ``sap``
      (`separated_attribute_predictability`), ``modularity``, ``factor_vae_score``, and
      ``dci_disentanglement``, ``dci_completeness`` and ``dci_informativeness`` (`dci_scores`), of
      the posterior means of all sites together. A category is one dimension, its most probable
      value; dimensions whose means have a variance of 0.01 or less count as constant.

    Keys that need labels, factors, or a category, are absent without. ``<name>_se`` is the
    standard error of an average.

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
            importance samples of each of the data, single dimensions and total correlation on all
            of them, 2,000 generated data with 1,000 importance samples each, probes and forests
            that learn on all, 10,000 images of each category. Options of `information` that are
            given go before it. `forecast` says how long it will take.
        probe_items: The probes learn on at most so many data, drawn at random, and the forests on
            half as many.
        samples_per_category: How many images each category generates.
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
    known = check_known(vae, x, labels, factors, train)
    effort = Effort.of(len(known.x), full, probe_items, samples_per_category, options)
    check_weights(vae)
    with bars(enabled=progress):
        return measure(vae, known, effort, seed)


def measure(vae: Variant, known: Known, effort: Effort, seed: int) -> EvaluationResult:
    """Measures what `evaluate` says, of data that were checked."""
    x, labels, factors = known.x, known.labels, known.factors
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
        report = information(vae.model, vae.guide, x, seed=seed, **effort.information)
        clock |= {f"information, {name}": took for name, took in report.seconds.items()}
        findings.values |= report.to_dict()
    with part("codes"):
        subject = Subject(vae, x, seed)
    with part("reconstruction"):
        families.reconstruction(subject, findings)
        families.fixed_scale(subject, findings)
    with part("critics"):
        families.critics(subject, findings)
    generated = None
    if vae.category is not None:
        with part("categories"):
            generated = families.categories(subject, findings, effort.samples)
            if labels is not None:
                families.clusters(subject, findings, labels)
    lesson = make_lesson(known, seed, vae.device)
    if lesson.labels is not None:
        if generated is not None:
            with part("judge"):
                families.generation(subject, findings, lesson, lesson.labels, generated)
        with part("probes"):
            families.probes(subject, findings, lesson, lesson.labels, effort.probes)
    if factors is not None and lesson.factors is not None:
        with part("factors"):
            families.factors(subject, findings, lesson, factors, lesson.factors, effort.forests)
    protocol = {
        "data": f"{len(x)} items given to evaluate",
        "encoded": "posterior means; of a category its probabilities, and their argmax",
        "seed": seed,
        "full": effort.full,
        "information": dict(report.protocol),
        "figures": findings.lines | information_lines(report.protocol),
    }
    return EvaluationResult(findings.values, protocol, clock, vae.noise)
