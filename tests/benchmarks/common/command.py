"""The frame of a command that measures on PACS and prints figures."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from figures import Figure

Print = Callable[[Figure], None]


def parser_of(description: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """Make the parser of what all of these commands take; `names` are the figures that --only chooses from."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=_resolved, help="directory of the PACS shards")
    parser.add_argument("weights", type=_resolved, help="state dict of MobileNetV2 0.35")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--repeats", type=int, help="repeats of every measurement, and at most this many seeds")
    parser.add_argument("--tiny", action="store_true", help="try every line in minutes; the figures mean nothing")
    return parser


@contextmanager
def measuring(name: str) -> Iterator[tuple[Path, Print]]:
    """Give a scratch directory, gone afterwards, and what prints figures: stdout holds them alone.

    Libraries write to stdout as they please; what they write goes to stderr.
    """
    figures = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch), lambda figure: print(figure.line(), file=figures, flush=True)


def note(line: str) -> None:
    """Say something beside the figures."""
    print(line, file=sys.stderr, flush=True)


def _resolved(path: str) -> Path:
    return Path(path).resolve()
