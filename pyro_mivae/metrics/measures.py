"""Figures that `evaluate` adds to the information report."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from pyro_mivae.arguments import checked
from pyro_mivae.bounds import barber_agakov_bound
from pyro_mivae.diagnostics.diagnoses import diagnose
from pyro_mivae.diagnostics.elbo_parts import ACTIVE
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.figures import MEAN, key, with_errors
from pyro_mivae.likelihoods import GaussianLikelihood
from pyro_mivae.metrics.checkers import SEED
from pyro_mivae.metrics.classifier import fit_classifier, linear_probe, mlp_probe
from pyro_mivae.metrics.clustering import (
    LIVE,
    adjusted_rand_index,
    categories_used,
    cluster_accuracy,
    contingency,
    generation_accuracy,
    generation_consistency,
    match_labels,
    normalised_mutual_information,
    occupancy,
)
from pyro_mivae.metrics.dci import DCI, TREES, dci_scores
from pyro_mivae.metrics.encoded import (
    ENCODE_BATCH,
    Codes,
    EncodedData,
    batches,
    explained,
    side_by_side,
    variation,
)
from pyro_mivae.metrics.factors import (
    BINS,
    ITEMS_PER_VOTE,
    VOTES,
    factor_vae_score,
    modularity,
    mutual_information_gap,
    separated_attribute_predictability,
)
from pyro_mivae.metrics.protocol import Findings
from pyro_mivae.metrics.splits import PROBE_ITEMS, Pair, Split, numbered
from pyro_mivae.posterior.preserved_state import preserved_state
from pyro_mivae.terms import ENOUGH_DATA, CriticBound
from pyro_mivae.training.arguments import batch_sizes
from pyro_mivae.variants import VARIANT, Variant

LINEAR, MLP = "logistic regression", "a network with one hidden layer of 256 units"
MEANS = (
    "posterior means, for a category its probabilities (dimensions whose means have a variance of "
    f"{ACTIVE} or less count as constant)"
)
DRAWN = "draws of the guide, one of each code"
UNDEFINED = math.nan, math.nan
MOST_SPREAD, SHUFFLES = 1000, 20
CRITIC_BATCH, ENOUGH_BATCHES = 256, 5  # batches whose spread is worth a standard error


def reconstruction(data: EncodedData, findings: Findings) -> None:
    """Measures the share of variance that the code, and each site alone, reconstructs."""
    x, spread = data.x, variation(data.x)
    values = {}
    for site, group in data.groups.items():
        parts = zip(*(data.codes[site].split(ENCODE_BATCH) for site in group))
        decoded = (
            data.vae.decode(dict(zip(group, part)), len(part[0]), given=next(iter(others), None))
            for part, (_, *others) in zip(parts, batches(data.args), strict=True)
        )
        r2 = explained(x.split(ENCODE_BATCH), decoded, spread)
        values[key("reconstruction_r2", site)] = r2
    line = (
        f"share of the variance in the {len(x)} items; decoded posterior means (of a category "
        "the most probable); for a site alone, every other one is at its prior mean given it"
    )
    findings.record(line, values, "reconstruction_r2*")


def fixed_scale(data: EncodedData, findings: Findings) -> None:
    """Compares the fixed scale of a Gaussian likelihood with the spread of the data."""
    likelihood = data.vae.likelihood
    if not isinstance(likelihood, GaussianLikelihood) or likelihood.learn_scale:
        return
    some = data.x[:MOST_SPREAD].flatten(1).double()
    some = some - some.mean(0)
    largest = float(torch.linalg.eigvalsh(some @ some.T)[-1]) / len(some)
    findings.record(
        f"of the likelihood, and of the first {len(some)} items in the direction that varies most",
        {"fixed_scale": float(likelihood.scale), "data_scale": math.sqrt(max(0.0, largest))},
    )


def critics(data: EncodedData, findings: Findings) -> None:
    """Measures the information by the variant's critics, if there are any."""
    found = critic_estimates(data.vae, data.x, data.seed)
    if not found:
        return
    findings.record(f"batches of {CRITIC_BATCH} items in random order", found)
    kinds = {diagnosis.kind for diagnosis in diagnose(findings.values)}
    findings.record(
        "1 if a critic's estimate is under half of the lower bound and 0.5 nats under it",
        {"critic_falls_short": float("critic too low" in kinds)},
    )


@checked(vae=VARIANT, seed=SEED)
def critic_estimates(vae: Variant, x: Tensor, seed: int = 0) -> dict[str, float]:
    """Estimates the information of held-out data by a variant's critics, in batches.

    Batches hold many data in random order; a small last one joins the one before. It returns
    ``mi_<sites>_critic``, the mean over the batches in nats, and its standard error, NaN if there
    are too few data or batches; nothing if the variant has no critic.
    """
    x = vae.check_data(x)
    objective = vae.objective()
    terms = objective.terms if isinstance(objective, MutualInformationELBO) else ()
    names = [term.name for term in terms if isinstance(term, CriticBound)]
    if not names:
        return {}
    if len(x) < ENOUGH_DATA:
        return with_errors(dict.fromkeys(names, (math.nan, math.nan)))
    sizes = batch_sizes(len(x), CRITIC_BATCH, needs_batch=True)
    rows: list[list[float]] = []
    with preserved_state(seed, vae, device=vae.device):
        order = torch.randperm(len(x)).to(x.device)
        for index in order.split(sizes):
            objective.differentiable_loss(vae.model, vae.guide, x[index].to(vae.device))
            rows.append([float(objective.ledger[name]) / len(index) for name in names])
    values, weights = torch.tensor(rows).double(), torch.tensor(sizes).double() / len(x)
    means = weights @ values
    enough = len(rows) >= ENOUGH_BATCHES
    errors = values.std(0) / math.sqrt(len(rows)) if enough else values[0] * math.nan
    return with_errors(dict(zip(names, zip(means.tolist(), errors.tolist()))))


def categories(data: EncodedData, findings: Findings, samples: int) -> Tensor:
    """Measures the use of the categories, and generates images of each."""
    site, count = data.category
    shares = enumerate(occupancy(data.found, count).tolist())
    findings.record(
        f"by the most probable category of each item; used of {count} with {LIVE:.1%} or more",
        {"categories_used": float(categories_used(data.found, count))}
        | {key("occupancy", str(k)): share for k, share in shares},
        f"categories_used, {key('occupancy', '*')}",
    )
    others = data.conditions(samples)
    parts = list(batches([torch.zeros(samples), *others]))

    def sample(category: int) -> Tensor:
        """Draws images of a category, of the data's conditions if there are any."""
        some = [
            data.vae.sample(len(size), category, given=next(iter(given), None))
            for size, *given in parts
        ]
        return torch.cat(some)

    drawn = [sample(category) for category in range(count)]
    logs = [data.encode([x, *others])[site][:, k].log() for k, x in enumerate(drawn)]
    # A probability that underflows counts as the smallest number, not as minus infinity.
    scores = torch.cat(logs).clamp_min(math.log(torch.finfo(torch.float32).tiny)).double()
    error = float(scores.std()) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    bound = float(barber_agakov_bound(scores, math.log(count)))
    findings.record(
        f"{samples} codes of each category, drawn from the prior, decoded to the mean and encoded",
        {key("barber_agakov", site, MEAN): (bound, error)},
    )
    return torch.stack(drawn)


def clusters(data: EncodedData, findings: Findings, labels: Tensor) -> None:
    """Compares categories with labels."""
    values, truth = labels.cpu().unique(return_inverse=True)
    truth = truth.to(data.vae.device)
    told = f"most probable categories of all {len(truth)} items and their labels"
    accuracy = nmi = ari = purity = math.nan
    if len(values) < 2:
        told = f"not defined, because there is only one label: {told}"
    else:
        accuracy = cluster_accuracy(data.found, truth)
        nmi = normalised_mutual_information(data.found, truth)
        ari = adjusted_rand_index(data.found, truth)
        purity = float(contingency(data.found, truth).amax(1).sum()) / len(truth)
    findings.record(
        f"{told}; the accuracy uses the best one-to-one map from categories to labels",
        {"cluster_accuracy": _share(accuracy, len(truth)), "nmi": nmi, "ari": ari},
    )
    findings.record(
        f"{told}; each category predicts its most frequent label",
        {"purity": _share(purity, len(truth))},
    )
    generator = torch.Generator().manual_seed(data.seed)
    shuffled = [truth[torch.randperm(len(truth), generator=generator)] for _ in range(SHUFFLES)]
    by_chance = [cluster_accuracy(data.found, labels) for labels in shuffled]
    findings.record(
        f"the clustering accuracy of the same categories with the labels shuffled, mean of "
        f"{SHUFFLES} times",
        {"cluster_accuracy_chance": sum(by_chance) / SHUFFLES},
    )


def classification(data: EncodedData, findings: Findings, labels: Tensor, num_labels: int) -> None:
    """Compares the numbers of categories with labels, if training saw labels."""
    right = float((data.found == labels.to(data.found.device)).double().mean())
    findings.record(
        f"the most probable category of each of all {len(labels)} items is its label, by number, "
        f"without a map; training used {num_labels} labels of other items",
        {"classification_accuracy": _share(right, len(labels))},
    )


def generation(
    data: EncodedData, findings: Findings, split: Split, labels: Pair, generated: Tensor
) -> None:
    """Judges the images of each category by a classifier of real data."""
    device, (learn, score) = data.vae.device, labels
    accuracy = consistency = UNDEFINED
    right, reason, classes = math.nan, "", len(learn.unique())
    if split.is_empty or classes < 2:
        reason = "not defined, because the data to learn on have fewer than two labels: "
    else:
        width = int(torch.cat([learn, score]).max()) + 1
        x = split.x.to(device)
        judge = fit_classifier(x, learn, width, per_feature=False, seed=data.seed)
        judged = judge.predict(generated.flatten(0, 1)).reshape(generated.shape[:2])
        live = occupancy(data.found, len(generated)) >= LIVE
        chosen = split.choose(PROBE_ITEMS, data.seed)
        found = data.encode(split.args, chosen)[data.category[0]].argmax(-1)
        names = match_labels(found, learn[chosen.to(device)], len(generated))
        accuracy = generation_accuracy(judged, names, live, classes)
        consistency = generation_consistency(judged, live)
        guesses = [judge.predict(x) for (x,) in batches([data.x], split.rows)]
        right = float((torch.cat(guesses) == score).double().mean())
    of = (
        f"{reason}{generated.shape[1]} images of each category in use, drawn from the prior, "
        f"decoded to the mean and judged by {MLP} that {split.text}"
    )
    findings.record(
        f"{of}; the label matched to the category on the data to learn is correct (for a "
        "category left over its most frequent label); a label without a category is missed",
        {"generation_accuracy": accuracy},
    )
    findings.record(
        f"{of}; the category's most frequent judged label is correct",
        {"generation_consistency": consistency},
    )
    findings.record(
        f"{reason}that network's accuracy on real items; it {split.text}",
        {"judge_accuracy": _share(right, len(score))},
    )


def probes(
    data: EncodedData, findings: Findings, split: Split, labels: Pair, items: int | None
) -> None:
    """Trains probes that read labels from means of all sites or of one, and from draws."""
    chosen = split.choose(items, data.seed)
    learn, score = labels[0][chosen.to(labels[0].device)], labels[1]
    findings.record(
        f"share of the most frequent label among the {len(score)} scored items: the accuracy of a "
        "constant guess",
        {"largest_label": float(score.bincount().max()) / len(score) if len(score) else math.nan},
    )
    told = f"{split.text}; {len(chosen)} items used to learn"
    if len(learn.unique()) == 1:
        told = f"not defined, because the data to learn on have one label: {told}"

    def read(probe: Callable[..., float], pair: tuple[Codes, Codes], group: list[str]) -> float:
        train, codes = (torch.cat([part[site] for site in group], 1) for part in pair)
        return probe(train, learn, codes, score)

    def mlp(*given: Tensor) -> float:
        return mlp_probe(*given, seed=data.seed)

    for suffix, what in (("", MEANS), ("_sampled", DRAWN)):
        drawn = bool(suffix)
        groups = {"": data.groups[""]} if drawn else data.groups
        linear = dict.fromkeys(groups, math.nan)
        network = math.nan
        if not split.is_empty:
            pair = _both(data, split, chosen, drawn=drawn)
            if not drawn:
                pair = _without_idle(*pair, data.categories)
            network = read(mlp, pair, groups[""])
            linear = {site: read(linear_probe, pair, group) for site, group in groups.items()}
        findings.record(
            f"{LINEAR} of standardised {what}: {told}",
            {
                key(f"linear_probe{suffix}", site): _share(value, len(score))
                for site, value in linear.items()
            },
        )
        findings.record(
            f"{MLP} of standardised {what}: {told}",
            {f"mlp_probe{suffix}": _share(network, len(score))},
        )


def factors(
    data: EncodedData,
    findings: Findings,
    split: Split,
    given: Tensor,
    pair: Pair,
    items: int | None,
) -> None:
    """Compares codes with the factors that made the data."""
    seed = data.seed
    codes, categorical = side_by_side(data.codes, data.categories)
    dead = codes.var(0) <= ACTIVE if len(codes) > 1 else torch.ones(codes.shape[1]).bool()
    dead[categorical] = False

    def alive(codes: Codes) -> Tensor:
        return side_by_side(codes, data.categories)[0].masked_fill(dead.to(data.vae.device), 0.0)

    kept, truth = alive(data.codes), numbered(given.to(codes.device))
    of = (
        f"posterior means of {len(codes)} items, a category as its most probable value; "
        f"dimensions whose means have a variance of {ACTIVE} or less count as constant "
        f"({int(dead.sum())} of {codes.shape[1]})"
    )
    findings.record(
        f"{of}; mutual informations of counts in {BINS} bins of equal width",
        {
            "mig": mutual_information_gap(kept, truth, categorical=categorical),
            "modularity": modularity(kept, truth, categorical=categorical),
        },
    )
    sap = separated_attribute_predictability(kept, truth, categorical=categorical)
    findings.record(f"{of}; thresholds placed and scored on the same data", {"sap": sap})
    score = factor_vae_score(kept, truth, categorical=categorical, seed=seed)
    findings.record(
        f"{of}; {VOTES} votes to learn from and {VOTES} others, of {ITEMS_PER_VOTE} items each",
        {"factor_vae_score": score},
    )
    scores = DCI(math.nan, math.nan, math.nan, codes)
    chosen = split.choose(items, seed)
    if not split.is_empty:
        learn, asked = map(alive, _both(data, split, chosen, drawn=False))
        learned = pair[0][chosen.to(pair[0].device)]
        scores = dci_scores(learn, learned, asked, pair[1], categorical=categorical, seed=seed)
    findings.record(
        f"random forests of {TREES} trees, {split.text}; {len(chosen)} items used to learn; {of}",
        {f"dci_{name}": score for name, score in list(scores._asdict().items())[:3]},
    )


def _both(data: EncodedData, split: Split, chosen: Tensor, *, drawn: bool) -> tuple[Codes, Codes]:
    """Codes to learn on, and codes to score."""
    if drawn:
        return data.draw(split.args, chosen), data.draw(data.args, split.rows)
    own = {site: code[split.rows.to(code.device)] for site, code in data.codes.items()}
    return data.encode(split.args, chosen), own


def _without_idle(train: Codes, codes: Codes, categories: Collection[str]) -> tuple[Codes, Codes]:
    """Codes with 0 in dimensions (or a category) whose means hardly vary."""
    alive = {}
    for site, code in train.items():
        spread = code.var(0, correction=0)
        alive[site] = spread.sum() > ACTIVE if site in categories else spread > ACTIVE
    first, second = (
        {site: torch.where(alive[site], code, 0.0) for site, code in part.items()}
        for part in (train, codes)
    )
    return first, second


def _share(right: float, count: int) -> tuple[float, float]:
    """A share and its standard error."""
    if math.isnan(right) or not count:
        return UNDEFINED
    return right, math.sqrt(max(0.0, right * (1 - right)) / count)
