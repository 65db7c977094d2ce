"""What every command shares: a console for terminals and job logs, lines with their time, errors as exit codes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import typer
from rich.console import Console

from orchestrator.errors import OrchestratorError

INTERRUPTED = 130


def open_console() -> Console:
    """Give the console of standard output."""
    # A job's log is no terminal: without a width of its own, tables would be cut at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=120)


def timed_lines(console: Console) -> Callable[[str], None]:
    """Give a function that prints a line of plain words with the seconds since now."""
    started = time.monotonic()

    def say(line: str) -> None:
        elapsed = f"[{time.monotonic() - started:6.1f} s]"
        console.print(f"{elapsed} {line}", markup=False, highlight=False, soft_wrap=True)

    return say


def guarded(work: Callable[[], None]) -> None:
    """Do the work of a command; an error of the project becomes one line and a code. Raises typer.Exit."""
    try:
        work()
    except OrchestratorError as error:
        Console(stderr=True, soft_wrap=True).print(f"Error: {error}", markup=False, highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. What is finished stays; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
