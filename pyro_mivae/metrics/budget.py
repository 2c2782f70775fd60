"""Amount of data and draws that each figure takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyro_mivae.arguments import checked, flag, whole
from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.errors import OptionError
from pyro_mivae.metrics.checkers import COUNT

PROBE_ITEMS, SAMPLES, MANY_SAMPLES = 10_000, 1000, 10_000
FULL = {"iwae_samples": 5000, "generative_items": 2000, "generative_samples": 1000}
GIVEN = {"full": flag(), "probe_items": whole(least=1), "samples_per_category": COUNT}


@dataclass(frozen=True)
class Budget:
    """Data and draws of each figure.

    Attributes:
        full: True if all data are taken.
        probes: Data that the probes learn on at most; None for all.
        samples: Images of each category.
        information: Options of `information`.
    """

    full: bool
    probes: int | None
    samples: int
    information: InformationOptions

    @property
    def forests(self) -> int | None:
        """Data that the forests learn on at most; None for all."""
        return None if self.probes is None else max(1, self.probes // 2)

    @classmethod
    @checked(**GIVEN)
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
        for name, value, usual in (
            ("probe_items", probe_items, PROBE_ITEMS),
            ("samples_per_category", samples_per_category, SAMPLES),
        ):
            if full and value != usual:
                raise OptionError(
                    f"{name}={value} and full=True are given, and full takes all there is; leave "
                    "one of them out"
                )
        everything = {**FULL, "iwae_items": items, "subset": items} if full else {}
        information = InformationOptions.of(everything | options)
        if full:
            return cls(full, None, MANY_SAMPLES, information)
        return cls(full, probe_items, samples_per_category, information)
