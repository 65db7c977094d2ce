"""A long pass says how far it is, seldom enough for a log, and once more at its end."""

from __future__ import annotations

from orchestrator.cluster.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_says_rows_rate_bad_rows_and_time_left() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = Progress("catalogue", say=lines.append, total=50_000, clock=clock)
    clock.now += 20
    progress.add(20_000, bad=3)
    assert lines == ["catalogue: 20,000 of 50,000 images, 1,000/s, 3 bad, 30 s left"]


def test_lines_come_no_more_often_than_wanted() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = Progress("profile", say=lines.append, total=1000, every_s=10, clock=clock)
    for _ in range(100):
        clock.now += 1
        progress.add(10)
    assert len(lines) == 10
    assert lines[0] == "profile: 100 of 1,000 images, 10/s, 0 bad, 90 s left"


def test_the_end_is_said_however_short_the_pass() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = Progress("shard", say=lines.append, total=30, clock=clock)

    def results() -> list[int]:
        clock.now += 2
        return [10, 20]

    assert list(progress.follow(results(), lambda rows: (rows, rows // 20))) == [10, 20]
    assert lines == ["shard: 30 images, 15/s, 1 bad, in 2 s"]


def test_without_a_total_no_time_left_is_made_up() -> None:
    lines: list[str] = []
    clock = Clock()
    progress = Progress("index", say=lines.append, unit="files", clock=clock)
    clock.now += 10
    progress.add(120_000)
    assert lines == ["index: 120,000 files, 12,000/s, 0 bad"]


def test_long_waits_are_said_in_minutes_and_hours() -> None:
    for rows, left in ((100, "17 min left"), (1, "27.8 h left")):
        lines: list[str] = []
        clock = Clock()
        progress = Progress("shard", say=lines.append, total=10_000 + rows, clock=clock)
        clock.now += 10
        progress.add(rows)
        assert lines[0].endswith(left)
    for seconds, words in ((0.0, "in 0 s"), (300.0, "in 5 min"), (9000.0, "in 2.5 h")):
        lines, clock = [], Clock()
        progress = Progress("shard", say=lines.append, clock=clock)
        clock.now += seconds
        progress.finish()
        assert lines[0].endswith(words)
