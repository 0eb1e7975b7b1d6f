"""How a command is run: its exit code, one line for whatever goes wrong, and help as wide as the terminal.

Exit codes: 0 success; 1 a check failed or the archives do not hold what was asked of them; 2 bad use or unreadable
input; 130 interrupted.
"""

from __future__ import annotations

import functools
import shutil
import warnings
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kerneltrack.errors import AnalysisError, KerneltrackError, OutputError, missing_package

from .output import complain, patient

#: What a wrong option, value or command raises; typer names only this descendant of it.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
#: The exit code that shells give to what SIGINT ended, and typer too.
_INTERRUPTED = 130
#: Help is no wider than this, for reading, and no narrower than what fits its longest word.
_WIDEST, _NARROWEST = 100, 30


class Command(TyperCommand):
    """A command whose help fits into narrow terminals too."""

    def get_help(self, ctx: Any) -> str:
        return _help(self, ctx)


class Group(TyperGroup):
    """The commands together."""

    def get_help(self, ctx: Any) -> str:
        return _help(self, ctx)


@functools.cache
def commands_of(app: typer.Typer) -> Any:
    """The commands as one that can be called. Made once: every making reads all signatures again, for 20 ms."""
    return typer.main.get_command(app)


def run(app: typer.Typer, argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
        app: the commands.
        argv: the words after ``kerneltrack``; None: the process's own.
    """
    with patient():  # for what is said of an error; the inner one makes a full disk an error while it can be told
        try:
            code = _run(app, argv)
        except (KeyboardInterrupt, typer.Abort):  # typer before 0.20 makes the second of the first
            code = _INTERRUPTED
        if code == _INTERRUPTED:
            complain("interrupted; what was not finished is removed")
        return code


def _run(app: typer.Typer, argv: Sequence[str] | None) -> int:
    try:
        with patient(), warnings.catch_warnings():
            # What an archive holds may overflow or be NaN throughout, and is shown as it is. Appended: the filters of
            # whoever develops or tests, for whom such a warning is a defect, come first.
            warnings.simplefilter("ignore", RuntimeWarning, append=True)
            width = max(min(shutil.get_terminal_size().columns, _WIDEST), _NARROWEST)
            # The command itself, not the Typer object: calling that one replaces sys.excepthook for the whole process.
            ended = commands_of(app).main(
                args=None if argv is None else list(argv),
                prog_name="kerneltrack",
                standalone_mode=False,
                terminal_width=width,
            )
            return ended if isinstance(ended, int) else 0
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except _UsageError as error:
        return _explain(error)
    except KerneltrackError as error:
        complain(str(error))
        return 1 if isinstance(error, AnalysisError) and not isinstance(error, OutputError) else 2
    except ModuleNotFoundError as error:  # an environment for reading, or one without what a command draws with
        complain(str(missing_package(error)))
        return 2
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        return 2


def _explain(error: Any) -> int:
    """One line of what is wrong with the words that were given; without any words, the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    said = " ".join(str(error.format_message()).split()).removesuffix(".")
    where = error.ctx.command_path if error.ctx is not None else "kerneltrack"
    complain(f"{said}. See `{where} --help`.")
    return 2


def _help(command: Any, ctx: Any) -> str:
    formatter = ctx.make_formatter()
    write_dl = formatter.write_dl
    # Names on the left take at most a third, and longer ones a line of their own: what they mean must have room.
    formatter.write_dl = lambda rows, col_max=30, col_spacing=2: write_dl(
        rows, min(col_max, formatter.width // 3), col_spacing
    )
    command.format_help(ctx, formatter)
    return str(formatter.getvalue()).rstrip("\n")
