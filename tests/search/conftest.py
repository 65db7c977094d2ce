from collections.abc import Callable
from pathlib import Path

import pytest
from search_examples import NUM_STAGES, a_search

from orchestrator.config import SearchConfig
from orchestrator.search.rules import fixed_rule
from orchestrator.search.space import SearchSpace
from orchestrator.search.studies import GroupStudy

Opener = Callable[..., GroupStudy]


@pytest.fixture
def open_study(tmp_path: Path) -> Opener:
    def opener(
        *,
        journal: str = "journal.log",
        group: str = "low",
        search: SearchConfig | None = None,
        seed: int = 7,
        storage: str | None = None,
        num_candidates: int = 8,
    ) -> GroupStudy:
        search = search or a_search()
        return GroupStudy.open(
            tmp_path / journal,
            group=group,
            name=f"run-{group}",
            space=SearchSpace.from_config(search.space, NUM_STAGES),
            search=search,
            seed=seed,
            first=fixed_rule(1.0, num_stages=NUM_STAGES, batch_size=32),
            storage=storage,
            num_candidates=num_candidates,
        )

    return opener
