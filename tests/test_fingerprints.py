"""A changed key changes the fingerprints of what depends on it, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_experiments import experiment_dict

from orchestrator import fingerprints
from orchestrator.config import ExperimentConfig
from orchestrator.experiment_file import validate_experiment
from orchestrator.records import BackboneSpec, Hyperparameters, PretrainedBackbone, TaskClasses
from orchestrator.stages.ranking import backbone_fingerprint

BACKBONE = PretrainedBackbone(
    spec=BackboneSpec(name="x", image_size=32, resize="crop", mean=(0, 0, 0), std=(1, 1, 1)),
    source="none",
    weights="backbone/weights.safetensors",
    digest="abc",
    num_stages=6,
    feature_dim=8,
)
RECIPE = Hyperparameters(
    freeze_depth=3, learning_rate=1e-3, epochs=2, batch_size=32, optimizer="adam", weight_decay=0.0
)


def all_of(config: ExperimentConfig) -> dict[str, str]:
    common = {"data": "data", "backbone": BACKBONE, "version": 1}
    evaluation = fingerprints.of_evaluation(config, model="m", baselines=[], data="data", version=1)
    study = fingerprints.of_study(config, group="low", **common)
    arm = fingerprints.of_arm(
        config, name="head_only", hyperparameters=RECIPE, rival=None, classes=["circle"], **common
    )
    return {
        "catalogue": fingerprints.of_catalogue(config, config.data, listing="files", version=1),
        "backbone": fingerprints.of_backbone(config, weights="w", source_listing="", version=1),
        "profile": fingerprints.of_profile(config, data="data", files="files", backbone=None, version=1),
        "groups": fingerprints.of_groups(config, profile="p", version=1),
        "study": study,
        "search": fingerprints.of_search(config, study=study, version=1),
        "model": fingerprints.of_model(config, hyperparameters=RECIPE, **common),
        "baseline": fingerprints.of_baseline(config, name="head_only", hyperparameters=RECIPE, **common),
        "arm": arm,
        "evaluation": evaluation,
        "subsets": fingerprints.of_subset_evaluation(config, model="m", models="s", weights={"a": "w"}, version=1),
        "transfer": fingerprints.of_transfer(config, models=["m"], arms=[arm], version=1),
        "explanations": fingerprints.of_explanations(config, evaluation=evaluation, version=1),
    }


def test_a_profile_depends_on_whether_its_features_are_sketched_and_on_nothing_else_of_the_limit() -> None:
    backbone = BACKBONE.model_copy(update={"feature_dim": 1280})

    def of(limit: int, backbone: PretrainedBackbone | None = backbone) -> str:
        config = validate_experiment(experiment_dict("/data", "/runs", diversity={"sketch_above": limit}))
        return fingerprints.of_profile(config, data="data", files="files", backbone=backbone, version=1)

    assert of(1280) == of(2048) != of(1279) == of(512)
    assert of(512, None) == of(2048, None)


def test_distances_depend_on_what_groups_are_trained_together_with() -> None:
    def of(companion: str = "", **sections: Any) -> str:
        config = validate_experiment(experiment_dict("/data", "/runs", **sections))
        return fingerprints.of_distances(config, profile="p", source="s", companion=companion, version=1)

    source = {"uri": "/source"}
    every = [
        of(),
        of("c", source=source),
        of("d", source=source),
        of("c", source=source | {"classes": ["circle"]}),
        of("c", source=source | {"as_negatives": "reject"}),
        of(seeds={"trial": 5}),
    ]
    assert len(set(every)) == len(every)
    same = [source | {"batch_share": 0.2}, source | {"penalty": "coral"}, {"uri": "/elsewhere"}]
    assert {of("c", source=found) for found in same} == {of("c", source=source)}
    rejecting = [source | {"as_negatives": name} for name in ("reject", "outlier_exposure")]
    assert of("c", source=rejecting[0]) == of("c", source=rejecting[1])
    known = {"distances": "d", "groups": "g", "version": 1}
    others = [known | change for change in ({"distances": "e"}, {"groups": "h"}, {"version": 2})]
    assert len({fingerprints.of_group_distances(**found) for found in [known, *others]}) == 4


EVERYTHING = set(all_of(validate_experiment(experiment_dict("/data", "/runs"))))


@pytest.mark.parametrize(
    ("sections", "changed"),
    [
        ({}, set()),
        ({"storage_path": "/elsewhere"}, set()),
        ({"seed": 5}, EVERYTHING - {"groups"}),
        ({"seeds": {"split": 5}}, {"catalogue", "study", "search"}),
        ({"seeds": {"sampler": 5}}, {"study", "search"}),
        ({"seeds": {"trial": 5}}, {"backbone", "study", "search", "model", "baseline", "arm", "transfer"}),
        ({"seeds": {"loader": 5}}, {"study", "search", "model", "baseline", "arm", "transfer"}),
        ({"data": {"max_bad_fraction": 0.5}}, {"catalogue"}),
        ({"data": {"deduplicate": "exact"}}, {"catalogue"}),
        ({"backbone": {"image_size": 64}}, {"catalogue", "backbone"}),
        ({"diversity": {"split": "all"}}, {"profile"}),
        ({"diversity": {"columns": ["weather"]}}, {"profile"}),
        ({"grouping": {"num_groups": 3}}, {"groups"}),
        ({"search": {"num_samples": 9}}, {"search"}),
        ({"search": {"max_concurrent_trials": 1}}, set()),
        ({"search": {"folds": 3}}, {"study", "search"}),
        ({"search": {"few_shot_threshold": 3}}, set()),
        ({"finetune": {"batch_size": 16}}, {"study", "search"}),
        ({"search": {"metric": "val_loss"}}, {"study", "search", "model", "baseline", "arm", "transfer"}),
        ({"finetune": {"head": "cosine"}}, {"study", "search"}),
        ({"train": {"num_workers": 2}}, {"model"}),
        ({"train": {"scope": "subset"}}, set()),
        ({"train": {"max_failures": 9}}, set()),
        ({"train": {"batch_norm": "frozen"}}, {"study", "search", "model", "baseline", "arm", "transfer"}),
        ({"evaluate": {"bootstrap_samples": 900}}, {"evaluation", "explanations", "subsets", "transfer"}),
        ({"evaluate": {"explanations": 5}}, {"explanations"}),
        ({"evaluate": {"on_negative_transfer": "report"}}, {"transfer"}),
        ({"search": {"budget": {"time_budget_s": 60}}}, {"search"}),
        ({"evaluate": {"episodes": {"ways": 3}}}, {"evaluation", "explanations"}),
        ({"evaluate": {"label_shift": "em"}}, {"evaluation", "explanations"}),
        ({"augment": {"views": 2, "flip": True}}, {"study", "search", "model", "baseline", "arm", "transfer"}),
        ({"cluster": {"stall_timeout_s": 5}}, set()),
        ({"cluster": {"cost_per_hour": {"GPU": 2.5}}}, set()),
    ],
)
def test_a_key_changes_what_depends_on_it(sections: dict[str, Any], changed: set[str]) -> None:
    before = all_of(validate_experiment(experiment_dict("/data", "/runs")))
    raw = {key: value for key, value in sections.items() if key == "storage_path"}
    rest = {key: value for key, value in sections.items() if key != "storage_path"}
    after = all_of(validate_experiment({**experiment_dict("/data", "/runs", **rest), **raw}))
    assert {name for name in before if before[name] != after[name]} == changed


def test_an_augmentation_counts_where_it_is_searched_and_where_it_was_chosen() -> None:
    def config(**space: object) -> ExperimentConfig:
        sections = {"augment": {"views": 0}, "search": {"space": space}}
        return validate_experiment(experiment_dict("/data", "/runs", **sections))

    before, after, wider = (all_of(config(**space)) for space in ({}, {"flip": [True]}, {"flip": [False, True]}))
    assert {name for name in before if before[name] != after[name]} == {"study", "search"}
    assert after["study"] != wider["study"]
    common: dict[str, Any] = {"data": "data", "backbone": BACKBONE, "version": 1}
    flips = (RECIPE.model_copy(update={"flip": flip}) for flip in (None, False, True))
    models = [fingerprints.of_model(config(), hyperparameters=recipe, **common) for recipe in flips]
    assert len(set(models)) == 3 and models[0] == before["model"]


def test_where_nothing_varies_it_is_the_same_how_many_views_there_are() -> None:
    fixed, afresh = (
        all_of(validate_experiment(experiment_dict("/data", "/runs", augment={"views": views}))) for views in (1, 0)
    )
    assert fixed == afresh
    fixed, afresh = (
        all_of(validate_experiment(experiment_dict("/data", "/runs", augment={"views": views, "flip": True})))
        for views in (2, 0)
    )
    assert fixed["model"] != afresh["model"]


@pytest.mark.parametrize(
    ("workers", "changed"),
    [
        ({}, set()),
        ({"train": {"num_workers": 2}}, {"model"}),
        ({"search": {"num_workers_per_trial": 2}}, {"study", "search"}),
    ],
)
def test_shared_batch_norm_changes_what_several_workers_train(
    workers: dict[str, dict[str, Any]], changed: set[str]
) -> None:
    found = []
    for batch_norm in ("train", "sync"):
        sections = {**workers, "train": {**workers.get("train", {}), "batch_norm": batch_norm}}
        found.append(all_of(validate_experiment(experiment_dict("/data", "/runs", **sections))))
    assert {name for name in found[0] if found[0][name] != found[1][name]} == changed


@pytest.mark.parametrize(
    ("section", "samples", "changes"),
    [
        ({"uri": "/elsewhere"}, "source", False),
        ({"uri": "/source", "weight": 2.0}, "source", True),
        ({"uri": "/source", "as_negatives": "reject"}, "source", True),
        ({"uri": "/source"}, "others", True),
    ],
)
def test_trials_and_models_depend_on_how_a_source_counts_and_on_its_samples_not_on_where_they_lie(
    section: dict[str, Any], samples: str, changes: bool
) -> None:
    def found(section: dict[str, Any] | None, samples: str) -> list[str]:
        config = validate_experiment({**experiment_dict("/data", "/runs"), "source": section})
        common: dict[str, Any] = {"data": "data", "backbone": BACKBONE, "version": 1, "source": samples}
        return [
            fingerprints.of_study(config, group="low", **common),
            fingerprints.of_model(config, hyperparameters=RECIPE, **common),
            # It is trained for as long as the group's model, beside which the source is.
            fingerprints.of_arm(
                config, name="from_scratch", hyperparameters=RECIPE, rival=RECIPE, classes=["a"], **common
            ),
        ]

    known = found({"uri": "/source"}, "source")
    assert all((one != other) == changes for one, other in zip(known, found(section, samples), strict=True))
    assert all(one != other for one, other in zip(known, found(None, ""), strict=True))


def test_the_budget_counts_where_subsets_may_move_and_be_trained_again() -> None:
    common = {"models": ["m"], "arms": ["a"], "version": 1}
    found = {}
    for mode in ("report", "regroup"):
        for budget in ({}, {"time_budget_s": 60}):
            sections = {"evaluate": {"on_negative_transfer": mode}, "search": {"budget": budget}}
            config = validate_experiment(experiment_dict("/data", "/runs", **sections))
            found[mode, bool(budget)] = fingerprints.of_transfer(config, **common)
    assert found["report", False] == found["report", True]
    assert found["regroup", False] != found["regroup", True]


def test_an_arm_depends_on_its_classes_and_on_what_it_shall_cost() -> None:
    config = validate_experiment(experiment_dict("/data", "/runs"))
    inputs: dict[str, Any] = {
        "name": "from_scratch",
        "hyperparameters": RECIPE,
        "rival": RECIPE,
        "classes": ["circle", "stripe"],
        "data": "data",
        "backbone": BACKBONE,
        "version": 1,
    }
    cheaper = RECIPE.model_copy(update={"freeze_depth": 6})
    form = TaskClasses(task="form", classes=["round"])
    changes: list[dict[str, Any]] = [
        *({"rival": cheaper}, {"classes": ["circle"]}, {"data": "new"}, {"version": 2}),
        *({"tasks": [form]}, {"tasks": [form.model_copy(update={"classes": ["round", "straight"]})]}),
    ]
    found = {fingerprints.of_arm(config, **inputs | change) for change in [{}, *changes]}
    assert len(found) == 1 + len(changes)


def test_a_candidate_has_the_fingerprint_of_the_same_backbone_alone() -> None:
    section = experiment_dict("/data", "/runs")["backbone"]
    shared = {key: section.pop(key) for key in ("image_size",)}
    alone = validate_experiment({**experiment_dict("/data", "/runs"), "backbone": {**section, **shared}})
    among = validate_experiment({**experiment_dict("/data", "/runs"), "backbone": {**shared, "candidates": [section]}})
    (network,) = among.backbone.by_title.values()
    of = {
        fingerprints.of_backbone(config, weights="w", source_listing="", version=1)
        for config in (alone, among.model_copy(update={"backbone": network}))
    }
    assert len(of) == 1


@pytest.mark.parametrize("changed", [{"data": "new"}, {"candidates": {"a": "1", "b": "3"}}, {"version": 2}])
def test_a_choice_depends_on_the_samples_the_candidates_and_the_version(changed: dict[str, Any]) -> None:
    config = validate_experiment(experiment_dict("/data", "/runs"))
    inputs: dict[str, Any] = {"data": "old", "candidates": {"a": "1", "b": "2"}, "version": 1}
    assert fingerprints.of_ranking(config, **inputs) != fingerprints.of_ranking(config, **inputs | changed)


def test_a_new_version_of_a_stage_makes_its_records_stale() -> None:
    config = validate_experiment(experiment_dict("/data", "/runs"))
    one, two = (fingerprints.of_groups(config, profile="p", version=version) for version in (1, 2))
    assert one != two


@pytest.mark.parametrize(("columns", "is_stale"), [([], False), (["weather"], True)])
def test_changed_files_with_the_same_samples_matter_where_columns_are_read_from_them(
    columns: list[str], is_stale: bool
) -> None:
    config = validate_experiment(experiment_dict("/data", "/runs", diversity={"columns": columns}))
    before, after = (
        fingerprints.of_profile(config, data="data", files=files, backbone=None, version=1) for files in ("a", "b")
    )
    assert (before != after) == is_stale


PRETRAIN = {"data": {"uri": "/source"}}


@pytest.mark.parametrize(
    ("objective", "key", "changes_it"),
    [
        ("supervised", {"simsiam": {"epochs": 3}}, False),
        ("supervised", {"epochs": 3}, True),
        ("simsiam", {"epochs": 3}, False),
        ("simsiam", {"simsiam": {"epochs": 3}}, True),
        ("simsiam_then_supervised", {"epochs": 3}, True),
        ("simsiam_then_supervised", {"simsiam": {"epochs": 3}}, True),
        ("supervised", {"objective": "simsiam"}, True),
        ("simsiam_then_supervised", {"objective": ["simsiam", "supervised"]}, False),
        ("supervised", {"with_target": {"weight": 0.5}}, True),
        ("supervised", {"regularizer_weight": 0.5}, False),
        ("supervised", {"regularizer": "l2"}, True),
        ("supervised", {"weights": "/elsewhere/weights.pt"}, False),
        ("supervised", {"reptile": {"steps": 3}}, False),
        ("simsiam_then_supervised", {"reptile": {"steps": 3}}, False),
        ("reptile", {"reptile": {"steps": 3}}, True),
        ("reptile", {"classes": ["a"]}, True),
        ("reptile", {"epochs": 3}, False),
        ("reptile", {"simsiam": {"epochs": 3}}, False),
        ("reptile", {"data": None}, True),
        ("simsiam_then_reptile", {"simsiam": {"epochs": 3}}, True),
    ],
)
def test_a_pretraining_depends_on_what_its_objectives_read(
    objective: str, key: dict[str, Any], changes_it: bool
) -> None:
    before, after = (
        fingerprints.of_backbone(
            validate_experiment(
                experiment_dict("/data", "/runs", backbone={"weights": "pretrain"}, pretrain={**PRETRAIN, **section})
            ),
            weights="pretrain",
            source_listing="files",
            version=1,
        )
        for section in ({"objective": objective}, {"objective": objective, **key})
    )
    assert (before != after) is changes_it


def test_a_phase_depends_on_its_own_keys_and_on_what_it_starts_with() -> None:
    def of(objective: Any, *, start: str = "a", **keys: Any) -> str:
        config = validate_experiment(experiment_dict("/data", "/runs", pretrain={**PRETRAIN, **keys}))
        assert config.pretrain is not None
        return fingerprints.of_phase(config, config.pretrain, objective, start=start, data="d", version=1)

    assert of("simsiam") == of("simsiam", epochs=3) != of("simsiam", simsiam={"epochs": 3})
    assert of("supervised") == of("supervised", simsiam={"epochs": 3}) != of("supervised", epochs=3)
    assert of("supervised") != of("supervised", start="b")
    assert of("simsiam") == of("simsiam", with_target={"weight": 0.5})
    assert of("supervised") != of("supervised", with_target={"weight": 0.5})
    assert of("supervised") == of("supervised", regularizer_scope="both") != of("supervised", regularizer="l1")
    assert of("reptile") == of("reptile", epochs=3, simsiam={"epochs": 3}) != of("reptile", reptile={"steps": 3})
    assert of("reptile") != of("reptile", classes=["a"])
    config = validate_experiment(experiment_dict("/data", "/runs", pretrain=PRETRAIN))
    frozen = config.model_copy(update={"train": config.train.model_copy(update={"batch_norm": "frozen"})})
    assert config.pretrain is not None
    for objective, is_other in (("reptile", True), ("simsiam", False)):
        one, other = (
            fingerprints.of_phase(which, config.pretrain, objective, start="a", data="d", version=1)
            for which in (config, frozen)
        )
        assert (one != other) is is_other


def test_a_source_task_depends_on_the_content_of_the_weights_that_it_begins_with(tmp_path: Path) -> None:
    def of(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        pretrain = {**PRETRAIN, "weights": str(tmp_path / name)}
        sections: dict[str, Any] = {"backbone": {"weights": "pretrain"}, "pretrain": pretrain}
        return backbone_fingerprint(validate_experiment(experiment_dict("/data", "/runs", **sections)), "files")

    assert of("a.pt", b"1") == of("b.pt", b"1") != of("a.pt", b"2")
    sections: dict[str, Any] = {"backbone": {"weights": "pretrain"}, "pretrain": PRETRAIN}
    from_nothing = validate_experiment(experiment_dict("/data", "/runs", **sections))
    assert backbone_fingerprint(from_nothing, "files") != of("a.pt", b"1")


def test_a_catalogue_whose_samples_need_no_label_is_another() -> None:
    config = validate_experiment(experiment_dict("/data", "/runs"))
    found = [
        fingerprints.of_catalogue(config, config.data, listing="files", version=1, labels=labels)
        for labels in ("every", "some", "none")
    ]
    assert len(set(found)) == 3
    assert found[0] == fingerprints.of_catalogue(config, config.data, listing="files", version=1)


def test_a_source_whose_looks_are_hashed_for_the_runs_sake_is_another_catalogue() -> None:
    config = validate_experiment(experiment_dict("/data", "/runs"))
    near = config.data.model_copy(update={"deduplicate": "near"})
    plain, looks = (
        fingerprints.of_catalogue(config, config.data, listing="files", version=1, with_looks=with_looks)
        for with_looks in (False, True)
    )
    assert plain != looks
    own = [
        fingerprints.of_catalogue(config, near, listing="files", version=1, with_looks=with_looks)
        for with_looks in (False, True)
    ]
    assert own[0] == own[1]
