"""Measure the search against its peers on the photo domain of PACS with MobileNetV2 0.35 at 96 px.

    python tests/benchmarks/search/bench_search.py DATA WEIGHTS [--only NAME ...] [--repeats N] [--reference R] [--tiny]

Prints one JSON object a line: {"benchmark", "ratio", "aim", "ours", "peer", "unit"}. A ratio is the peer's median over
ours, over alternated repeats or seeds. Data is decoded before any clock starts, for both; Ray is started anew for every
measurement, off the clock; building our caches is on it. What happens meanwhile goes to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "common"))

from bench_cache import CACHE_FIGURES, measure_cache
from bench_heads import measure_heads
from bench_overhead import measure_overhead
from bench_trials import TIME_TO_ACCURACY, measure_fixed_list, measure_time_to_accuracy
from bench_warm_start import measure_warm_start
from command import measuring, parser_of
from figures import Figure
from protocol import Protocol
from workplace import Workplace


def measurements(names: set[str]) -> dict[str, Callable[[Workplace], Iterable[Figure]]]:
    """Give what measures the figures of these names; some are measured together."""
    accuracy = {name for name in TIME_TO_ACCURACY if name in names}
    return {
        "fixed_list_vs_tune_over_train": measure_fixed_list,
        **{name: lambda place: measure_time_to_accuracy(place, accuracy) for name in TIME_TO_ACCURACY},
        **dict.fromkeys(CACHE_FIGURES, measure_cache),
        "overhead_per_trial_vs_tune_over_train": measure_overhead,
        "batched_heads": measure_heads,
        "warm_start_cost_saved": measure_warm_start,
    }


def main() -> None:
    """Measure and print."""
    names = list(measurements(set()))
    parser = parser_of(__doc__, names)
    parser.add_argument("--reference", type=float, help="best accuracy of a reference search that has run already")
    arguments = parser.parse_args()
    protocol = Protocol.tiny() if arguments.tiny else Protocol()
    if arguments.repeats is not None:
        protocol = replace(
            protocol,
            repeats=arguments.repeats,
            seeds=protocol.seeds[: arguments.repeats],
            warm_start_seeds=protocol.warm_start_seeds[: arguments.repeats],
            cache_repeats=arguments.repeats,
        )
    with measuring("search") as (scratch, print_figure):
        place = Workplace(
            data=arguments.data,
            weights=arguments.weights,
            scratch=scratch,
            protocol=protocol,
            known_reference=arguments.reference,
        )
        chosen = measurements(set(arguments.only))
        done: set[str] = set()
        for name in arguments.only:
            if name in done:
                continue
            for figure in chosen[name](place):
                done.add(figure.benchmark)
                if figure.benchmark in arguments.only or figure.benchmark not in names:
                    print_figure(figure)


if __name__ == "__main__":
    main()
