"""Messages of the command line, which names options by their flags."""

from __future__ import annotations

import re

from pyro_mivae.diagnostics import InformationOptions
from pyro_mivae.options import flags_of
from pyro_mivae.runs.config import FLAGS

OTHERS = "device run out category what resume overwrite trust data jobs labels".split()
WRITTEN = {
    **FLAGS,
    **flags_of(InformationOptions),
    **{name: f"--{name}" for name in OTHERS},
    **{"image_size": "--image-size", "root": "--data-root", "num_draws": "--draws"},
}


def in_flags(message: str) -> str:
    """Rewrites Python keywords in a message as flags.

    Example:
        >>> in_flags("lr=-1.0; allowed are finite numbers above 0, or give resume=True")
        '--lr -1.0; allowed are finite numbers above 0, or give --resume'
    """
    names = "|".join(sorted(WRITTEN, key=len, reverse=True))
    told = re.sub(rf"\b({names})=True\b", lambda found: WRITTEN[found[1]], message)
    return re.sub(
        rf"(?<![\w.])({names})=(?=(\S?))", lambda f: WRITTEN[f[1]] + " " * bool(f[2]), told
    )
