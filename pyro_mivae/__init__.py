"""Mutual-information autoencoders as Pyro programs."""

import lazy_loader

from pyro_mivae import interrupts  # noqa: F401  # before torch, whose import takes seconds

# The public names, of `__init__.pyi`; each is imported at its first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
