"""Measure final trainings against plain loops: photographs of PACS with MobileNetV2 0.35 at 96 px.

    python tests/benchmarks/training/bench_train.py DATA WEIGHTS [--only NAME ...] [--repeats N] [--tiny]

Prints one JSON object a line: {"benchmark", "ratio", "aim", "ours", "peer", "unit"}. A ratio is the peer's median over
ours, of the seconds of an epoch over alternated repeats: both see the same images, so it is that of images a second.
Starts are off the clock. What happens meanwhile goes to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

# Tasks and peers are those of the search's benchmarks.
sys.path += [str(Path(__file__).resolve().parents[1] / room) for room in ("common", "search")]

from bench_ddp import measure_ddp
from bench_suffix import measure_suffix
from command import measuring, parser_of
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
    arguments = parser_of(__doc__, list(MEASUREMENTS)).parse_args()
    lengths = Lengths.tiny() if arguments.tiny else Lengths()
    if arguments.repeats is not None:
        lengths = replace(lengths, repeats=arguments.repeats)
    with measuring("train") as (scratch, print_figure):
        place = Workplace(
            data=arguments.data,
            weights=arguments.weights,
            scratch=scratch,
            protocol=Protocol.tiny() if arguments.tiny else Protocol(),
        )
        for name in arguments.only:
            for figure in MEASUREMENTS[name](place, lengths):
                print_figure(figure)


if __name__ == "__main__":
    main()
