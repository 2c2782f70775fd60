"""The objective, written out."""

from __future__ import annotations

from pyro_mivae.elbo.mutual_information import MutualInformationELBO
from pyro_mivae.elbo.relaxed import RelaxedCategoricalELBO
from pyro_mivae.schedules import Weight


def explain(objective: MutualInformationELBO) -> str:
    """Writes an objective out, with its weights and sites.

    Args:
        objective: The objective.

    Returns:
        One line per summand.

    Example:
        >>> print(explain(MutualInformationELBO(kl_weights={"z": 4.0, "c": 0.0})))
        J =  E_q[log p(x|code)]
           - 4 * KL(q(z|x) || p(z))
           - 0 * KL(q(c|x) || p(c))   [left out]
           - 1 * KL of every other site
        maximised; nats per datum
    """
    reconstruction = "E_q[log p(x|code)]"
    remark = ""
    if isinstance(objective, RelaxedCategoricalELBO):
        reconstruction = "E_q[log p(x|z)], z ~ q(z|x,a), " + (
            "a = q(c|x)" if objective.relaxation == "soft" else "a ~ Gumbel-softmax of q(c|x)"
        )
        remark = "; not a bound on log p(x)"
    lines = [f"J =  {reconstruction}"]
    for name, weight in objective.kl_weights.items():
        left_out = "   [left out]" if weight.is_zero else ""
        lines.append(f"   - {_number(weight)} * KL(q({name}|x) || p({name})){left_out}")
    if objective.latent is None:
        lines.append("   - 1 * KL of every other site")
    for name in objective.latent or ():
        if name not in objective.kl_weights:
            lines.append(f"   - 1 * KL(q({name}|x) || p({name}))")
    lines += [f"   + {_number(term.weight)} * {term.formula}" for term in objective.terms]
    lines.append(f"maximised; nats per datum{remark}")
    return "\n".join(lines)


def _number(weight: Weight) -> str:
    if weight.schedule is None:
        return f"{weight.constant:g}"
    told = getattr(weight.schedule, "description", "scheduled")
    return f"({told}, now {float(weight.current):g})" if int(weight.step) else f"({told})"
