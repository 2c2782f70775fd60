"""Findings about a model/guide pair, and the report that lists them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

FIXES = "Try one of the following fixes:"  # in the errors of Pyro


@dataclass(frozen=True)
class Finding:
    """A fault of a model/guide pair.

    Attributes:
        kind: The rule, see `check`.
        site: The site, or an empty text.
        found: The fault in words.
        remedy: The way to mend it.
    """

    kind: str
    site: str
    found: str
    remedy: str

    @classmethod
    def of(
        cls, kind: str, error: Exception, site: str = "", *, where: str = "", remedy: str = ""
    ) -> Finding:
        """Makes a finding of an error's text; its remedy follows a semicolon, or Pyro's heading.

        ``where`` is put before the text; ``remedy`` is used if the text has none.
        """
        text = str(error).partition("\nTrace Shapes:")[0].partition(", but found invalid")[0]
        found, heading, told = text.partition(FIXES)
        if heading:
            told = ", or ".join(line.strip(" -") for line in told.strip().splitlines())
        else:
            found, _, told = text.partition("; ")
        return cls(kind, site, where + " ".join(found.split()), " ".join(told.split()) or remedy)

    def __str__(self) -> str:
        site = f", site {self.site!r}" if self.site else ""
        lines = textwrap.wrap(f"{self.kind}{site}: {self.found}", 92, subsequent_indent="  ")
        told = textwrap.wrap(f"remedy: {self.remedy}", 90, subsequent_indent="  ")
        return "\n".join([*lines, *(f"  {line}" for line in told)])


@dataclass(frozen=True, repr=False)
class PairReport:
    """Findings about a pair; the report is empty if none were made.

    Attributes:
        findings: The findings, in the order of the rules.
        shapes: The shapes of every site of guide and model, as Pyro's ``format_shapes`` writes
            them, enumerated dimensions on the left; empty if the pair does not run.
    """

    findings: tuple[Finding, ...]
    shapes: str

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, index: int) -> Finding:
        return self.findings[index]

    def __repr__(self) -> str:
        return "\n".join(map(str, [*(self.findings or ["no faults found"]), self.shapes])).strip()
