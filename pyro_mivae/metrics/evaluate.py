"""Every figure of a trained variant, with the protocol that it was measured by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.bounds import barber_agakov_bound
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.isolation import isolated
from pyro_mivae.diagnostics.report import information
from pyro_mivae.errors import DataError, OptionError
from pyro_mivae.metrics.classifier import fit_classifier
from pyro_mivae.metrics.clustering import (
    LIVE,
    adjusted_rand_index,
    categories_used,
    cluster_accuracy,
    normalised_mutual_information,
    occupancy,
)
from pyro_mivae.metrics.critic import CRITIC_BATCH, critic_estimates
from pyro_mivae.metrics.generation import generation_accuracy
from pyro_mivae.metrics.probes import linear_probe, mlp_probe
from pyro_mivae.metrics.reconstruction import reconstruction_r2
from pyro_mivae.variants import Variant

ENCODE_BATCH = 1024


class EvaluationResult(dict[str, float]):
    """The figures of `evaluate` by name, and how they were measured.

    Args:
        values: The figures.
        protocol: What was encoded, how much of it, which split, which seed: plain values.

    Attributes:
        protocol: The protocol.
    """

    def __init__(self, values: Mapping[str, float], protocol: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.protocol = dict(protocol)

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """What the figures say is wrong with the model, see `diagnose`."""
        return diagnose(self)


def evaluate(
    vae: Variant,
    x: Tensor,
    labels: Tensor | None = None,
    train: tuple[Tensor, Tensor] | None = None,
    *,
    probe_items: int = 10_000,
    samples_per_category: int = 1000,
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
    * with a critic: ``mi_<sites>_critic``, its estimate of the information in these data, beside
      the bounds ``mi_lower`` and ``mi_upper`` that need none, and ``critic_falls_short``, 1 where
      it is under half of the lower bound and more than 0.5 nats under it, else 0 (see
      `critic_estimates`);
    * with categories: ``categories_used``, how many hold at least 0.5 % of the data by the argmax
      of q(c|x); ``occupancy_<k>``, the share that each holds; ``barber_agakov_<site>_mean``, the
      bound :math:`\log K + E \log q(c \mid x')` on the information between c and the mean image
      that it generates, for equally frequent categories;
    * with categories and labels: ``cluster_accuracy``, ``nmi``, ``ari`` of that argmax on all the
      data, and ``generation_accuracy``, the share of each category's samples to which a classifier
      of real data gives the category's majority class, over the categories in use, beside the
      classifier's own accuracy on real data, ``judge_accuracy``;
    * with labels: ``linear_probe`` and ``mlp_probe``, accuracies of classifiers of the posterior
      means of all sites together (of a category its probabilities), and with several sites
      ``linear_probe_<site>`` of each alone.

    Keys that need labels, or a category, are absent without.

    Args:
        vae: The variant.
        x: Data that it was not trained on, shape ``(n, *data_shape)``.
        labels: Their labels, integers, shape ``(n,)``.
        train: Other data and their labels, on which probes and judge learn. If omitted they learn
            on a random half of ``x``, stratified by label, and are scored on the other half.
        probe_items: The probes learn on at most so many data, drawn at random.
        samples_per_category: How many images each category generates.
        seed: Of all draws, splits and classifiers. Torch's generators, Pyro's parameter store and
            the modules' mode are left as they were.
        **options: Options of `information`.

    Returns:
        The figures, with the attributes ``protocol`` and ``diagnoses``.

    Raises:
        DataError: If the data do not fit the variant, or the labels the data.
        OptionError: If a number is not positive.
    """
    for name, value in (
        ("probe_items", probe_items),
        ("samples_per_category", samples_per_category),
    ):
        if value < 1:
            raise OptionError(f"{name}={value}: at least 1 is needed")
    vae.check_data(x)
    _check_labels(x, labels, "labels")
    if train is not None:
        vae.check_data(train[0])
        _check_labels(*train, "the labels of train")
    report = information(vae.model, vae.guide, x, seed=seed, **options)
    with isolated(seed, vae, device=vae.device):
        evaluation = _Evaluation(vae, x, seed)
        evaluation.values |= report.to_dict()
        evaluation.protocol["information"] = dict(report.protocol)
        evaluation.reconstruction(x)
        evaluation.critics(x)
        if vae.category is not None:
            generated = evaluation.categories(samples_per_category)
        if labels is not None:
            lesson = _Lesson.of(x, labels, train, seed, vae.device)
            evaluation.protocol["classifiers"] = lesson.description
            if vae.category is not None:
                evaluation.clusters(labels)
                evaluation.generation(lesson, generated)
            evaluation.probes(lesson, probe_items)
    return EvaluationResult(evaluation.values, evaluation.protocol)


@dataclass(frozen=True)
class _Lesson:
    """Data and labels to learn on, and others to be scored on; labels count from 0."""

    x_learn: Tensor
    y_learn: Tensor
    x_score: Tensor
    y_score: Tensor
    num_classes: int
    description: str

    @property
    def is_empty(self) -> bool:
        return not len(self.y_learn) or not len(self.y_score)

    @classmethod
    def of(
        cls,
        x: Tensor,
        labels: Tensor,
        train: tuple[Tensor, Tensor] | None,
        seed: int,
        device: torch.device,
    ) -> _Lesson:
        labels = labels.cpu()
        if train is None:
            learn, score = _halves(labels, seed)
            x_learn, y_learn = x[learn.to(x.device)], labels[learn]
            x_score, y_score = x[score.to(x.device)], labels[score]
            text = (
                f"learn on a random half of the data, stratified by label ({len(learn)} items), "
                f"and are scored on the other ({len(score)} items)"
            )
        else:
            x_learn, y_learn, x_score, y_score = train[0], train[1].cpu(), x, labels
            text = f"learn on {len(x_learn)} training items, are scored on the {len(x)} items"
        classes = torch.cat([y_learn, y_score]).unique()
        y_learn, y_score = (torch.searchsorted(classes, y).to(device) for y in (y_learn, y_score))
        return cls(x_learn, y_learn, x_score, y_score, len(classes), text)


class _Evaluation:
    """Figures that come on top of the information report's, and their protocol."""

    def __init__(self, vae: Variant, x: Tensor, seed: int) -> None:
        self.vae = vae
        self.seed = seed
        self.codes = self._encode(x)
        self.values: dict[str, float] = {}
        self.protocol: dict[str, Any] = {
            "data": f"{len(x)} items given to evaluate",
            "encoded": "posterior means; of a category its probabilities, and their argmax",
            "seed": seed,
        }

    def reconstruction(self, x: Tensor) -> None:
        """Measures how much of the data the code gives back, and each site of it alone."""
        sites = list(self.codes)
        groups = {"": sites, **{f"_{site}": [site] for site in sites if len(sites) > 1}}
        for suffix, group in groups.items():
            parts = [self.vae.reconstruct(part, keep=group) for part in x.split(ENCODE_BATCH)]
            value = reconstruction_r2(x.to(self.vae.device), torch.cat(parts))
            self.values[f"reconstruction_r2{suffix}"] = value
        self.protocol["reconstruction_r2"] = (
            "share of the variance in these items; posterior means are decoded (of a category the "
            "most probable), for a site alone with every other at its prior mean given it"
        )

    def critics(self, x: Tensor) -> None:
        """Measures what critics hear, where there are any."""
        found = critic_estimates(self.vae, x, self.seed)
        if found:
            self.values |= found
            kinds = {diagnosis.kind for diagnosis in diagnose(self.values)}
            self.values["critic_falls_short"] = float("critic too low" in kinds)
            self.protocol["critic"] = f"batches of {CRITIC_BATCH} items in random order"

    def categories(self, samples: int) -> Tensor:
        """Measures what needs no labels, and returns images by category."""
        site, count = self._category
        found = self._found
        self.values["categories_used"] = float(categories_used(found, count))
        for k, share in enumerate(occupancy(found, count).tolist()):
            self.values[f"occupancy_{k}"] = share
        generated = torch.stack([self._sample(samples, k) for k in range(count)])
        logs = [self._encode(images)[site][:, k].log() for k, images in enumerate(generated)]
        # A probability that underflows counts as the smallest number, not as minus infinity.
        scores = torch.cat(logs).clamp_min(math.log(torch.finfo(torch.float32).tiny)).double()
        bound = barber_agakov_bound(scores, math.log(count))
        self.values[f"barber_agakov_{site}_mean"] = float(bound)
        self.protocol["categories_used"] = f"of {count}, each with {LIVE:.1%} of the data or more"
        self.protocol["generation"] = (
            f"{samples} codes of each category, drawn from the prior and decoded to the mean"
        )
        return generated

    def clusters(self, labels: Tensor) -> None:
        """Compares categories with labels."""
        truth = labels.cpu().unique(return_inverse=True)[1].to(self.vae.device)
        self.values["cluster_accuracy"] = cluster_accuracy(self._found, truth)
        self.values["nmi"] = normalised_mutual_information(self._found, truth)
        self.values["ari"] = adjusted_rand_index(self._found, truth)

    def generation(self, lesson: _Lesson, generated: Tensor) -> None:
        """Lets a classifier of real data judge the images of each category."""
        names = ("generation_accuracy", "judge_accuracy")
        if lesson.is_empty:
            self.values |= dict.fromkeys(names, math.nan)
            return
        device = self.vae.device
        judge = fit_classifier(
            lesson.x_learn.to(device),
            lesson.y_learn,
            lesson.num_classes,
            per_feature=False,
            seed=self.seed,
        )
        judged = judge.predict(generated.flatten(0, 1)).reshape(generated.shape[:2])
        live = occupancy(self._found, len(generated)) >= LIVE
        accuracy = judge.accuracy(lesson.x_score.to(device), lesson.y_score)
        self.values |= dict(zip(names, (generation_accuracy(judged, live), accuracy)))

    def probes(self, lesson: _Lesson, items: int) -> None:
        """Reads labels from codes."""
        sites = list(self.codes)
        groups = {"": sites, **{f"_{site}": [site] for site in sites if len(sites) > 1}}
        if lesson.is_empty:
            names = ["mlp_probe", *(f"linear_probe{suffix}" for suffix in groups)]
            self.values |= dict.fromkeys(names, math.nan)
            return
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(lesson.x_learn), generator=generator)[:items]
        train_codes = self._encode(lesson.x_learn[chosen.to(lesson.x_learn.device)])
        train_labels = lesson.y_learn[chosen.to(lesson.y_learn.device)]
        codes = self._encode(lesson.x_score)
        for suffix, group in groups.items():
            learn, score = (torch.cat([c[s] for s in group], 1) for c in (train_codes, codes))
            self.values[f"linear_probe{suffix}"] = linear_probe(
                learn, train_labels, score, lesson.y_score
            )
            if not suffix:
                self.values["mlp_probe"] = mlp_probe(
                    learn, train_labels, score, lesson.y_score, seed=self.seed
                )
        self.protocol["probes"] = f"learn on {len(chosen)} posterior means, drawn at random"

    @property
    def _category(self) -> tuple[str, int]:
        return str(self.vae.category), int(self.vae.num_categories or 0)

    @property
    def _found(self) -> Tensor:
        return self.codes[self._category[0]].argmax(-1)

    def _encode(self, x: Tensor) -> dict[str, Tensor]:
        parts = [self.vae.encode(part) for part in torch.split(x, ENCODE_BATCH)]
        return {site: torch.cat([part[site] for part in parts]).flatten(1) for site in parts[0]}

    def _sample(self, count: int, category: int) -> Tensor:
        sizes = [min(ENCODE_BATCH, count - i) for i in range(0, count, ENCODE_BATCH)]
        return torch.cat([self.vae.sample(size, category=category) for size in sizes])


def _check_labels(x: Tensor, labels: Tensor | None, name: str) -> None:
    if labels is None:
        return
    if labels.shape != (len(x),) or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"{name}: expected {len(x)} integers, one per item, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )


def _halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two halves, with each label in both in equal number, give or take one."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # each label's data in random order
    return order[0::2].sort().values, order[1::2].sort().values
