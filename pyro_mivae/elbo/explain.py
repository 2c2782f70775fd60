"""The objective, written out."""

from pyro_mivae.arguments import checked, instance
from pyro_mivae.elbo.objective import Objective


@checked(objective=instance(Objective, example="vae.objective()"))
def explain(objective: Objective) -> str:
    """Writes an objective out, with its weights and sites.

    Args:
        objective: The objective.

    Returns:
        One line per summand.

    Raises:
        OptionError: If it is no objective of this library's.

    Example:
        >>> from pyro_mivae import MutualInformationELBO
        >>> print(explain(MutualInformationELBO(kl_weights={"z": 4.0, "c": 0.0})))
        J =  E_q[log p(x|code)]
           - 4 * KL(q(z|x) || p(z))
           - 0 * KL(q(c|x) || p(c))   [left out]
           - 1 * KL of every other site
        maximised; nats per datum
    """
    return objective.explanation()
