import re

import pytest

from orchestrator.stages.arms import folder_name


@pytest.mark.parametrize("subset", ["north", "camera_7", "a-b"])
def test_a_plain_subset_has_its_own_name_for_a_folder(subset: str) -> None:
    assert folder_name(subset) == subset


def test_other_subsets_have_names_that_any_file_system_takes_and_none_shares() -> None:
    subsets = ["a/b", "a b", "a.b", "..", ".", "café", "a%2Eb", "x" * 300, "x" * 301]
    names = [folder_name(subset) for subset in subsets]
    assert len(set(names)) == len(subsets)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) for name in names)
