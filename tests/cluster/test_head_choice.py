"""Which head predicts an image is named once, and mistakes are told with the heads that there are."""

from __future__ import annotations

import pyarrow as pa
import pytest
from finetune_examples import a_spec, some_hyperparameters

from orchestrator.cluster.head_choice import ANY_HEAD, HeadChoice, require_head
from orchestrator.errors import ConfigError, DataError
from orchestrator.records import ModelCard, TaskClasses

CARD = ModelCard(
    group="low",
    backbone=a_spec(),
    classes=["ant", "cat", "owl"],
    hyperparameters=some_hyperparameters(),
    weights_digest="",
    pretrained_digest="",
    data_fingerprint="",
    subsets=["north", "south"],
    best_epoch=1,
    history=[],
    seconds=1.0,
    num_workers=1,
    tasks=[TaskClasses(task="north", classes=["cat", "owl"]), TaskClasses(task="south", classes=["ant", "cat"])],
    heads="subset",
)
PLAIN = CARD.model_copy(update={"heads": "column", "tasks": []})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (ANY_HEAD, r"--path with \{subset\}, got none of them\. There are heads for north, south\."),
        (HeadChoice(subset="north", column="site"), "got subset and column"),
        (HeadChoice(subset="west"), r"must have a head, got west\. There are heads for north, south\."),
        (HeadChoice(path="{name}"), r"--path must name \{subset\}, got \{name\}"),
    ],
)
def test_a_choice_that_tells_no_head_is_refused_with_the_heads(choice: HeadChoice, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        choice.require_fit(CARD)


def test_a_model_without_heads_of_subsets_takes_no_choice() -> None:
    ANY_HEAD.require_fit(PLAIN)
    with pytest.raises(ConfigError, match="only where subsets have heads of their own, got subset north"):
        HeadChoice(subset="north").require_fit(PLAIN)


def test_subsets_are_those_of_the_command_or_of_the_data() -> None:
    rows = pa.table({"subset": [" south ", None, "north"]})
    by_column, by_path = HeadChoice(column="site"), HeadChoice(path="{subset}/{name}")
    for choice in (HeadChoice(subset="south"), by_column, by_path):
        choice.require_fit(CARD)
    assert HeadChoice(subset="south").subsets(rows) == ["south"] * 3
    assert by_column.subsets(rows) == ["south", None, "north"]
    assert by_column.data("/images", "auto", "picture").subset == "site"
    assert by_path.data("/images", "auto", "picture").path == "{subset}/{name}"


def test_an_image_of_no_known_subset_has_no_head() -> None:
    require_head("south", CARD)
    with pytest.raises(DataError, match=r"got none\. There are heads for north, south"):
        require_head(None, CARD)
