"""Measure the diversity pass against its peers: PACS with MobileNetV2 0.35 at 96 px, and labels of large tables.

    python tests/benchmarks/profile/bench_profile.py DATA WEIGHTS [--only NAME ...] [--repeats N] [--tiny]

Prints one JSON object a line: {"benchmark", "ratio", "aim", "ours", "peer", "unit"}. A ratio is the peer's median over
ours, over alternated repeats, of times or bytes. Ray is started anew for every measurement, off the clock, and both
sides have imported what they need. What happens meanwhile goes to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "common"))

from bench_images import measure_images
from bench_labels import measure_labels
from bench_memory import measure_memory
from bench_vendi import measure_vendi
from command import measuring, parser_of
from figures import Figure
from sizes import Place, Sizes

MEASUREMENTS: dict[str, Callable[[Place], Iterator[Figure]]] = {
    "images_per_second_vs_dataloader": measure_images,
    "floor_over_time": measure_images,
    "label_entropy_10m_rows": measure_labels,
    "memory_flatness": measure_memory,
    "vendi_vs_score_x": measure_vendi,
    "vendi_vs_score_dual": measure_vendi,
}


def main() -> None:
    """Measure and print."""
    arguments = parser_of(__doc__, list(MEASUREMENTS)).parse_args()
    sizes = Sizes.tiny() if arguments.tiny else Sizes()
    if arguments.repeats is not None:
        sizes = replace(sizes, repeats=arguments.repeats)
    with measuring("profile") as (scratch, print_figure):
        place = Place(data=arguments.data, weights=arguments.weights, scratch=scratch, sizes=sizes)
        for measure in dict.fromkeys(MEASUREMENTS[name] for name in arguments.only):
            for figure in measure(place):
                if figure.benchmark in arguments.only:
                    print_figure(figure)


if __name__ == "__main__":
    main()
