from __future__ import annotations

import pytest

from orchestrator.data.templates import PathTemplate
from orchestrator.errors import ConfigError


def test_every_placeholder_takes_one_part_of_the_path() -> None:
    template = PathTemplate("{split}/{subset}/{label}/{name}")
    assert template.match("train/site 1/cat/a.jpg") == {
        "split": "train", "subset": "site 1", "label": "cat", "name": "a.jpg",
    }  # fmt: skip


def test_the_name_reaches_into_nested_folders() -> None:
    found = PathTemplate("{subset}/{label}/{name}").match("s/cat/2024/05/a.jpg")
    assert found == {"subset": "s", "label": "cat", "name": "2024/05/a.jpg"}


def test_a_path_with_too_few_parts_does_not_match() -> None:
    assert PathTemplate("{subset}/{label}/{name}").match("cat/a.jpg") is None


def test_literal_text_is_matched_as_it_stands() -> None:
    template = PathTemplate("site.{subset}/{label}_{name}")
    assert template.match("site.a/cat_1_2.png") == {"subset": "a", "label": "cat", "name": "1_2.png"}
    assert template.match("siteXa/cat_1.png") is None


def test_a_repeated_placeholder_must_match_the_same_text() -> None:
    template = PathTemplate("{label}/{label}-{name}")
    assert template.match("cat/cat-1.png") == {"label": "cat", "name": "1.png"}
    assert template.match("cat/dog-1.png") is None


@pytest.mark.parametrize("text", ["images/photo.jpg", "{subset/{name}", "{}/{name}", "{label!r}", "{a b}/{name}"])
def test_a_malformed_template_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PathTemplate(text)
    assert caught.value.value == text
