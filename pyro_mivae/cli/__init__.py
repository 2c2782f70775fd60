"""The command line."""

from pyro_mivae.cli.main import main, run_command

__all__ = ["main", "run_command"]
