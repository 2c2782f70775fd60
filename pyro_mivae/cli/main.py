"""Entry of the command line. It imports nothing heavy, so that help and version show at once.

Exit codes: 0 success, 2 bad usage or bad input with one line on stderr, 1 anything else.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from pyro_mivae.cli.names import COMMANDS, Stopped
from pyro_mivae.errors import (
    PyroMivaeError,
    PyroMivaeWarning,
    RankError,
    TrainingError,
    WriteError,
    nearest,
)
from pyro_mivae.interrupts import ignore_further

EPILOG = """\b
Begin with:
  pyro-mivae train infocat
Each command has --help, with an example."""


class Commands(click.Group):
    """Commands that are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        if cmd_name not in COMMANDS:
            return None
        from pyro_mivae.cli import commands

        return getattr(commands, cmd_name.replace("list", "list_all"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a line for each command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; the error for an unknown one suggests similar names."""
        if args[0] not in COMMANDS:
            hint, known = nearest(args[0], COMMANDS), ", ".join(COMMANDS)
            raise click.UsageError(f"no command {args[0]!r}{hint}; allowed are {known}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pyro-mivae")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Mutual-information autoencoders: train one and see what it learned."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its code; signals that come later are ignored."""
    code = run_command(args)
    ignore_further()
    sys.exit(code)


def run_command(args: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    _warned.clear()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]
            _refuse_empty(sys.argv[1:] if args is None else args)
            cli.main(args, prog_name="pyro-mivae", standalone_mode=False)
    except click.UsageError as error:
        command = "pyro-mivae" if error.ctx is None else error.ctx.command_path
        return _fail(f"{error.format_message()} (see {command} --help)", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except PyroMivaeError as error:
        from pyro_mivae.cli.options import in_flags

        code = 1 if isinstance(error, TrainingError | WriteError) else 2
        return _fail(in_flags(str(error)), code, everywhere=isinstance(error, RankError))
    except Stopped as error:
        if _is_first():
            click.echo(str(error), err=True)
        return 1
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", 1)
    except click.exceptions.Exit as error:
        return error.exit_code
    return 0


def _refuse_empty(args: Sequence[str]) -> None:
    """Refuses empty words: a shell passes them for unset variables."""
    for before, word in zip(["", *args], args):
        option, given, value = word.partition("=")
        if given and option.startswith("--"):
            before, word = option, value
        if not word.strip() or "\0" in word:
            name = before if before.startswith("--") else "an argument"
            raise click.UsageError(f"{name} is {word!r}; give it a value that is not empty")


_warned: set[str] = set()


def _warn(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Shows our own warnings once, as one line, and others as Python does."""
    if not _is_first():
        return
    if issubclass(category, PyroMivaeWarning):
        told = " ".join(str(message).split())
        if told not in _warned:
            click.echo(f"warning: {told}", err=True)
        _warned.add(told)
    else:
        filename, lineno, file, line = (*place, None, None)[:4]
        text = warnings.formatwarning(message, category, filename, lineno, line)
        click.echo(text, file=file, err=file is None, nl=False)


def _fail(message: str, code: int, *, everywhere: bool = False) -> int:
    if everywhere or _is_first():
        click.echo("error: " + " ".join(message.split()), err=True)
    return code


def _is_first() -> bool:
    """True in the process that prints: the first, if ``torchrun`` started several."""
    return os.environ.get("RANK", "0") == "0"
