"""How much of the data each figure takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pyro_mivae.arguments import flag, whole
from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.errors import OptionError
from pyro_mivae.metrics.checkers import COUNT, SEED
from pyro_mivae.variants import VARIANT

PROBE_ITEMS, SAMPLES, MANY_SAMPLES = 10_000, 1000, 10_000
DEFAULTS = asdict(InformationOptions())
GIVEN = {
    "vae": VARIANT,
    "full": flag(),
    "probe_items": whole(least=1),
    "samples_per_category": COUNT,
    "seed": SEED,
}
"""Checks of what `evaluate` and `forecast` take."""
FULL = {"iwae_samples": 5000, "generative_items": 2000, "generative_samples": 1000}


@dataclass(frozen=True)
class Effort:
    """What `evaluate` takes for each figure.

    Attributes:
        full: Whether all data are taken.
        probes: The probes learn on at most so many data; None for all.
        samples: Images of each category.
        information: Options of `information`.
    """

    full: bool
    probes: int | None
    samples: int
    information: Mapping[str, Any]

    @property
    def forests(self) -> int | None:
        """The forests learn on at most so many data; None for all."""
        return None if self.probes is None else max(1, self.probes // 2)

    @classmethod
    def of(
        cls,
        items: int,
        full: bool,
        probe_items: int,
        samples_per_category: int,
        options: Mapping[str, Any],
    ) -> Effort:
        """Fills in what was not asked for."""
        for name, value, usual in (
            ("probe_items", probe_items, PROBE_ITEMS),
            ("samples_per_category", samples_per_category, SAMPLES),
        ):
            if full and value != usual:
                raise OptionError(
                    f"{name}={value} and full=True are given, and full takes all there is; leave "
                    "one of them out"
                )
        InformationOptions.of(options)
        if not full:
            return cls(full, probe_items, samples_per_category, options)
        everything = {**FULL, "iwae_items": items, "subset": items}
        return cls(full, None, MANY_SAMPLES, everything | dict(options))
