"""Measure final trainings against plain loops: photographs of PACS with MobileNetV2 0.35 at 96 px.

    python tests/benchmarks/training/bench_train.py DATA WEIGHTS [--only NAME ...] [--repeats N] [--tiny]

Prints one JSON object a line: {"benchmark", "ratio", "aim", "ours", "peer", "unit"}. A ratio is the peer's median over
ours, of the seconds of an epoch over alternated repeats: both see the same images, so it is that of images a second.
Starts are off the clock. What happens meanwhile goes to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

# The search's benchmarks keep what any benchmark needs.
sys.path.append(str(Path(__file__).resolve().parents[1] / "search"))

from bench_ddp import measure_ddp
from bench_suffix import measure_suffix
from figures import Figure
from lengths import Lengths
from protocol import Protocol
from workplace import Workplace

MEASUREMENTS: dict[str, Callable[[Workplace, Lengths], Iterator[Figure]]] = {
    "ddp_vs_torchrun": measure_ddp,
    "suffix_vs_bare_loop": measure_suffix,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of the PACS shards")
    parser.add_argument("weights", type=Path, help="state dict of MobileNetV2 0.35")
    names = list(MEASUREMENTS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--repeats", type=int, help="repeats of every measurement")
    parser.add_argument("--tiny", action="store_true", help="try every line in minutes; the figures mean nothing")
    arguments = parser.parse_args()
    lengths = Lengths.tiny() if arguments.tiny else Lengths()
    if arguments.repeats is not None:
        lengths = replace(lengths, repeats=arguments.repeats)
    # Libraries write to stdout as they please: from here on only the figures do.
    figures = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with tempfile.TemporaryDirectory(prefix="bench-train-", ignore_cleanup_errors=True) as scratch:
        place = Workplace(
            data=arguments.data.resolve(),
            weights=arguments.weights.resolve(),
            scratch=Path(scratch),
            protocol=Protocol.tiny() if arguments.tiny else Protocol(),
        )
        for name in arguments.only:
            for figure in MEASUREMENTS[name](place, lengths):
                print(figure.line(), file=figures, flush=True)


if __name__ == "__main__":
    main()
