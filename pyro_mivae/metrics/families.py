"""What `evaluate` measures beside the information report, family by family."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from pyro_mivae.bounds import barber_agakov_bound
from pyro_mivae.diagnostics.diagnoses import diagnose
from pyro_mivae.diagnostics.elbo_parts import ACTIVE
from pyro_mivae.likelihoods import GaussianLikelihood
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
from pyro_mivae.metrics.dci import TREES, dci_scores
from pyro_mivae.metrics.effort import PROBE_ITEMS
from pyro_mivae.metrics.factors import (
    BINS,
    ITEMS_PER_VOTE,
    VOTES,
    factor_vae_score,
    modularity,
    mutual_information_gap,
    separated_attribute_predictability,
)
from pyro_mivae.metrics.findings import Findings, share
from pyro_mivae.metrics.generation import (
    generation_accuracy,
    generation_consistency,
    match_labels,
)
from pyro_mivae.metrics.lesson import Lesson
from pyro_mivae.metrics.probes import linear_probe, mlp_probe
from pyro_mivae.metrics.reconstruction import explained, variation
from pyro_mivae.metrics.subject import ENCODE_BATCH, Codes, Subject, batches

Labels = tuple[Tensor, Tensor]
LINEAR, MLP = "logistic regression", "a network with one hidden layer of 256 units"
MEANS = (
    "posterior means, of a category its probabilities (dimensions whose means have a variance of "
    f"{ACTIVE} or less count as constant)"
)
SAMPLED = ("_sampled", "draws of the guide, one of each code")
MOST_SPREAD, SHUFFLES = 1000, 20
DCI_NAMES = ("dci_disentanglement", "dci_completeness", "dci_informativeness")


def reconstruction(subject: Subject, findings: Findings) -> None:
    """Measures how much of the data the code gives back, and each site of it alone."""
    x, spread = subject.x, variation(subject.x)
    values = {}
    for suffix, group in subject.groups.items():
        parts = zip(*(subject.codes[site].split(ENCODE_BATCH) for site in group))
        decoded = (subject.vae.decode(dict(zip(group, part)), len(part[0])) for part in parts)
        values[f"reconstruction_r2{suffix}"] = explained(x.split(ENCODE_BATCH), decoded, spread)
    line = (
        f"share of the variance in the {len(x)} items; posterior means are decoded (of a category "
        "the most probable), for a site alone with every other at its prior mean given it"
    )
    findings.record(line, values, "reconstruction_r2*")


def fixed_scale(subject: Subject, findings: Findings) -> None:
    """Compares a Gaussian likelihood's scale, where it is fixed, with the data's spread."""
    likelihood = subject.vae.likelihood
    if not isinstance(likelihood, GaussianLikelihood) or likelihood.learn_scale:
        return
    some = subject.x[:MOST_SPREAD].flatten(1).double()
    some = some - some.mean(0)
    largest = float(torch.linalg.eigvalsh(some @ some.T)[-1]) / len(some)
    findings.record(
        f"of the likelihood, and of the first {len(some)} items in the direction that varies most",
        {"fixed_scale": float(likelihood.scale), "data_scale": math.sqrt(max(0.0, largest))},
    )


def critics(subject: Subject, findings: Findings) -> None:
    """Measures what critics hear, where there are any."""
    found = critic_estimates(subject.vae, subject.x, subject.seed)
    if not found:
        return
    findings.record(f"batches of {CRITIC_BATCH} items in random order", found)
    kinds = {diagnosis.kind for diagnosis in diagnose(findings.values)}
    findings.record(
        "1 where a critic's estimate is under half of the lower bound and 0.5 nats under it",
        {"critic_falls_short": float("critic too low" in kinds)},
    )


def categories(subject: Subject, findings: Findings, samples: int) -> Tensor:
    """Measures what needs no labels, and generates images by category."""
    site, count = subject.category
    found = subject.found
    findings.record(
        f"by the most probable category of each item; used of {count} with {LIVE:.1%} or more",
        {
            "categories_used": float(categories_used(found, count)),
            **{f"occupancy_{k}": s for k, s in enumerate(occupancy(found, count).tolist())},
        },
        "categories_used, occupancy_*",
    )
    generated = torch.stack([_sample(subject, samples, k) for k in range(count)])
    logs = [subject.encode(images)[site][:, k].log() for k, images in enumerate(generated)]
    # A probability that underflows counts as the smallest number, not as minus infinity.
    scores = torch.cat(logs).clamp_min(math.log(torch.finfo(torch.float32).tiny)).double()
    error = float(scores.std()) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    name = f"barber_agakov_{site}_mean"
    bound = float(barber_agakov_bound(scores, math.log(count)))
    findings.record(
        f"{samples} codes of each category, drawn from the prior, decoded to the mean and encoded",
        {name: bound, f"{name}_se": error},
    )
    return generated


def clusters(subject: Subject, findings: Findings, labels: Tensor) -> None:
    """Compares categories with labels."""
    values, truth = labels.cpu().unique(return_inverse=True)
    truth = truth.to(subject.vae.device)
    told = f"most probable categories of all {len(truth)} items and their labels"
    scores = dict.fromkeys(("cluster_accuracy", "nmi", "ari"), math.nan)
    if len(values) < 2:
        told = f"not defined, as there is one label: {told}"
    else:
        scores = {
            "cluster_accuracy": cluster_accuracy(subject.found, truth),
            "nmi": normalised_mutual_information(subject.found, truth),
            "ari": adjusted_rand_index(subject.found, truth),
        }
    scores["cluster_accuracy_se"] = share(scores["cluster_accuracy"], len(truth))[1]
    findings.record(
        f"{told}; for the accuracy each category gets a label of its own, so that most agree",
        scores,
    )
    generator = torch.Generator().manual_seed(subject.seed)
    shuffled = [truth[torch.randperm(len(truth), generator=generator)] for _ in range(SHUFFLES)]
    by_chance = [cluster_accuracy(subject.found, labels) for labels in shuffled]
    findings.record(
        f"the clustering accuracy of the same categories with the labels shuffled, mean of "
        f"{SHUFFLES} times",
        {"cluster_accuracy_chance": sum(by_chance) / SHUFFLES},
    )


def generation(
    subject: Subject, findings: Findings, lesson: Lesson, labels: Labels, generated: Tensor
) -> None:
    """Lets a classifier of real data judge the images of each category."""
    device, (learn, score) = subject.vae.device, labels
    accuracy = consistency = (math.nan, math.nan)
    right, told, classes = math.nan, generated.shape[1], len(learn.unique())
    reason = ""
    if lesson.is_empty or classes < 2:
        reason = "not defined, as what is learned on has under two labels: "
    else:
        width = int(torch.cat([learn, score]).max()) + 1
        x = lesson.x.to(device)
        judge = fit_classifier(x, learn, width, per_feature=False, seed=subject.seed)
        judged = judge.predict(generated.flatten(0, 1)).reshape(generated.shape[:2])
        live = occupancy(subject.found, len(generated)) >= LIVE
        chosen = lesson.choose(PROBE_ITEMS, subject.seed)
        found = subject.encode(lesson.x, chosen)[subject.category[0]].argmax(-1)
        names = match_labels(found, learn[chosen.to(device)], len(generated))
        accuracy = generation_accuracy(judged, names, live, classes)
        consistency = generation_consistency(judged, live)
        guesses = [judge.predict(part) for part in batches(subject.x, lesson.rows)]
        right = float((torch.cat(guesses) == score).double().mean())
    of = (
        f"{reason}{told} images of each category in use, drawn from the prior, decoded to the "
        f"mean and judged by a network with one hidden layer of 256 units that {lesson.text}"
    )
    findings.record(
        f"{of}; right is the label matched to the category one to one on what is learned (a "
        "category left over: its most frequent label), a label without a category is missed",
        {"generation_accuracy": accuracy[0], "generation_accuracy_se": accuracy[1]},
    )
    findings.record(
        f"{of}; right is the category's most frequent judged label, whichever it is",
        {"generation_consistency": consistency[0], "generation_consistency_se": consistency[1]},
    )
    right, right_error = share(right, len(score))
    findings.record(
        f"{reason}that network's accuracy on real items; it {lesson.text}",
        {"judge_accuracy": right, "judge_accuracy_se": right_error},
    )


def probes(
    subject: Subject, findings: Findings, lesson: Lesson, labels: Labels, items: int | None
) -> None:
    """Reads labels from codes, from their means and from one draw of each."""
    chosen = lesson.choose(items, subject.seed)
    learn, score = labels[0][chosen.to(labels[0].device)], labels[1]
    told = f"{len(chosen)} of what is {lesson.text}"
    findings.record(
        f"share of the {len(score)} items that are scored with their most frequent label: what a "
        "constant guess has",
        {"largest_label": float(score.bincount().max()) / len(score) if len(score) else math.nan},
    )
    if len(learn.unique()) == 1:
        told = f"not defined, as what is learned on has one label: {told}"
    for kind, what in (("", MEANS), SAMPLED):
        names = [f"linear_probe{kind}", f"mlp_probe{kind}"]
        if not kind:
            names += [f"linear_probe{suffix}" for suffix in subject.groups if suffix]
        values = dict.fromkeys(names, math.nan)
        if not lesson.is_empty:
            train, codes = _both(subject, lesson, chosen, sampled=bool(kind))
            if not kind:
                train, codes = _without_idle(train, codes, subject.category[0])
            for suffix, group in subject.groups.items():
                given = torch.cat([train[site] for site in group], 1), learn
                asked = torch.cat([codes[site] for site in group], 1), score
                if not suffix:
                    values[names[1]] = mlp_probe(*given, *asked, seed=subject.seed)
                if not suffix or not kind:
                    values[f"linear_probe{kind}{suffix}"] = linear_probe(*given, *asked)
        for probe, name in (("linear", LINEAR), ("mlp", MLP)):
            own = {key: value for key, value in values.items() if key.startswith(probe)}
            errors = {f"{key}_se": share(value, len(score))[1] for key, value in own.items()}
            findings.record(f"{name} of standardised {what}: {told}", own | errors)


def factors(
    subject: Subject,
    findings: Findings,
    lesson: Lesson,
    given: Tensor,
    pair: Labels,
    items: int | None,
) -> None:
    """Sets codes beside the factors that made the data."""
    site, _ = subject.category
    codes, categorical = side_by_side(subject.codes, site)
    dead = codes.var(0) <= ACTIVE if len(codes) > 1 else torch.ones(codes.shape[1]).bool()
    dead[categorical] = False

    def alive(codes: Tensor) -> Tensor:
        return codes.masked_fill(dead.to(codes.device), 0.0)

    truth = given.to(codes.device)
    truth = torch.stack([v.unique(return_inverse=True)[1] for v in truth.unbind(1)], 1)
    of = (
        f"posterior means of {len(codes)} items, a category as its most probable value; "
        f"dimensions whose means have a variance of {ACTIVE} or less count as constant "
        f"({int(dead.sum())} of {codes.shape[1]})"
    )
    kept = alive(codes)
    counted = f"{of}; mutual informations of counts in {BINS} bins of equal width"
    findings.record(
        counted,
        {
            "mig": mutual_information_gap(kept, truth, categorical=categorical),
            "modularity": modularity(kept, truth, categorical=categorical),
        },
    )
    sap = separated_attribute_predictability(kept, truth, categorical=categorical)
    findings.record(f"{of}; thresholds placed and scored on the same", {"sap": sap})
    score, error = factor_vae_score(kept, truth, categorical=categorical, seed=subject.seed)
    findings.record(
        f"{of}; {VOTES} votes to learn from and {VOTES} others, of {ITEMS_PER_VOTE} items each",
        {"factor_vae_score": score, "factor_vae_score_se": error},
    )
    scores = [math.nan] * 3
    chosen = lesson.choose(items, subject.seed)
    if not lesson.is_empty:
        learn, asked = (
            alive(side_by_side(part, site)[0])
            for part in _both(subject, lesson, chosen, sampled=False)
        )
        learned = pair[0][chosen.to(pair[0].device)]
        found = dci_scores(
            learn, learned, asked, pair[1], categorical=categorical, seed=subject.seed
        )
        scores = list(found[:3])
    findings.record(
        f"random forests of {TREES} trees on {len(chosen)} of what is {lesson.text}; {of}",
        dict(zip(DCI_NAMES, scores)),
    )


def _both(
    subject: Subject, lesson: Lesson, chosen: Tensor, *, sampled: bool
) -> tuple[Codes, Codes]:
    """Codes to learn on and codes to be scored."""
    if sampled:
        return subject.draw(lesson.x, chosen), subject.draw(subject.x, lesson.rows)
    own = {site: code[lesson.rows.to(code.device)] for site, code in subject.codes.items()}
    return subject.encode(lesson.x, chosen), own


def _without_idle(train: Codes, codes: Codes, category: str) -> tuple[Codes, Codes]:
    """Codes with 0 for dimensions, or a category, whose means hardly vary."""
    kept = []
    for part in (train, codes):
        of = {}
        for site, code in part.items():
            spread = train[site].var(0, correction=0)
            alive = spread.sum() > ACTIVE if site == category else spread > ACTIVE
            of[site] = torch.where(alive, code, 0.0)
        kept.append(of)
    return kept[0], kept[1]


def side_by_side(codes: Codes, category: str) -> tuple[Tensor, list[int]]:
    """Puts all sites side by side, the category as a single column."""
    parts = {
        site: code.argmax(1, keepdim=True).to(code) if site == category else code
        for site, code in codes.items()
    }
    starts = dict(zip(parts, itertools.accumulate([0, *(p.shape[1] for p in parts.values())])))
    return torch.cat(list(parts.values()), 1), [starts[s] for s in parts if s == category]


def _sample(subject: Subject, count: int, category: int) -> Tensor:
    sizes = [min(ENCODE_BATCH, count - i) for i in range(0, count, ENCODE_BATCH)]
    return torch.cat([subject.vae.sample(size, category=category) for size in sizes])
