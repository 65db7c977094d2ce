from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.scheduling import GroupProgress, next_group


def progress(group: str, running: int = 0, finished: int = 0, num_samples: int = 10) -> GroupProgress:
    return GroupProgress(group=group, running=running, finished=finished, num_samples=num_samples)


def test_the_group_with_the_fewest_started_trials_asks_first() -> None:
    assert next_group([progress("low", finished=3), progress("high", running=2)]) == "high"


def test_of_equally_many_started_the_one_with_the_fewest_running_asks_first() -> None:
    assert next_group([progress("low", running=2), progress("high", finished=2)]) == "high"


def test_ties_go_to_the_first_in_order() -> None:
    assert next_group([progress("low"), progress("high")]) == "low"


def test_a_spent_budget_ends_the_asking_even_while_trials_run() -> None:
    assert next_group([progress("low", running=1, finished=1, num_samples=2)]) is None
    assert next_group([]) is None


def test_nothing_is_asked_from_the_deadline_on() -> None:
    assert next_group([progress("low")], now=9.9, deadline=10.0) == "low"
    assert next_group([progress("low")], now=10.0, deadline=10.0) is None


@given(
    budgets=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    finishing=st.lists(st.integers(0, 10_000), max_size=80),
    slots=st.integers(1, 6),
)
def test_no_group_starves_and_no_budget_is_exceeded(budgets: list[int], finishing: list[int], slots: int) -> None:
    groups = {f"g{i}": progress(f"g{i}", num_samples=budget) for i, budget in enumerate(budgets)}
    order = iter(finishing)
    for _ in range(2 * sum(budgets) + 1):
        running = [name for name, group in groups.items() if group.running]
        name = next_group(list(groups.values())) if sum(g.running for g in groups.values()) < slots else None
        if name is not None:
            groups[name] = replace(groups[name], running=groups[name].running + 1)
        elif running:
            done = groups[running[next(order, 0) % len(running)]]
            groups[done.group] = replace(done, running=done.running - 1, finished=done.finished + 1)
        for group in groups.values():
            assert group.asked <= group.num_samples
        # Fair: a group that still has budget is never more than one start behind any other.
        most = max(group.asked for group in groups.values())
        assert all(group.asked >= most - 1 for group in groups.values() if group.has_budget)
    assert [group.finished for group in groups.values()] == budgets
