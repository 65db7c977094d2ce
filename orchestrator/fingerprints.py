"""Says what each stage's record depends on: a change there, and nowhere else, makes the stage run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from orchestrator.config import (
    AUGMENTATIONS,
    AugmentConfig,
    BatchNormMode,
    DataConfig,
    ExperimentConfig,
    LabelNeed,
    Objective,
    PretrainConfig,
    SearchConfig,
)
from orchestrator.records import Hyperparameters, PretrainedBackbone, TaskClasses
from orchestrator.storage import digest

# What these settings change is where and how fast a stage runs, not what it finds.
_SEARCH_OPERATION = {"max_concurrent_trials", "resources_per_trial", "storage", "study_name", "heads"}
# What it decides for a group is in the sections that are given here for that group.
_SEARCH_DECISIONS = {"few_shot_threshold"}
_SEARCH_LENGTH = {"num_samples", "budget", "target"}
# Which models there are besides changes none of them; what heads learn is in the digest of a group's samples.
_TRAIN_OPERATION = {"scope", "heads", "use_gpu", "resources_per_worker", "max_failures", "num_to_keep"}
_REGULARIZER = {"regularizer", "regularizer_weight", "regularizer_scope"}
_SUPERVISED_RECIPE = {"epochs", "learning_rate", "batch_size", "optimizer", "weight_decay"}
_SUPERVISED = {"classes", "with_target", *_SUPERVISED_RECIPE, *_REGULARIZER}


def of_catalogue(
    config: ExperimentConfig,
    data: DataConfig,
    *,
    listing: str,
    version: int,
    labels: LabelNeed = "every",
    with_looks: bool = False,
) -> str:
    """Fingerprint a catalogue: its data section, the files behind it, the size of the pixels, the seed.

    And, where not every sample must have a label, which must; and whether looks are hashed for others' sake.
    """
    needs: list[str] = [] if labels == "every" else [labels]
    needs += ["looks"] if with_looks and data.deduplicate != "near" else []
    return digest(
        "catalogue",
        version,
        _plain(data, without=None if data.is_multi_label else {"label_separator"}),
        listing,
        config.backbone.image_size,
        config.backbone.resize,
        config.seed_of("split"),
        *needs,
    )


def of_backbone(config: ExperimentConfig, *, weights: str, source_listing: str, version: int) -> str:
    """Fingerprint the pretrained backbone: its section, the content of its weights, the source task."""
    source, pretrain = None, config.own_pretraining
    if pretrain is not None:
        seeds = [config.seed_of("split"), config.seed_of("loader")]
        augment = _augment(config.augment) if pretrain.is_supervised else None
        modes = _modes_of_batch_norm(config, pretrain.objective)
        source = [_of_objectives(pretrain), source_listing, config.train.precision, augment, seeds, *modes]
    network = _plain(config.backbone, without={"candidates"})
    return digest("backbone", version, network, weights, source, config.seed_of("trial"))


def of_phase(
    config: ExperimentConfig, pretrain: PretrainConfig, objective: Objective, *, start: str, data: str, version: int
) -> str:
    """Fingerprint one of several objectives of a pretraining: its keys, the weights that it starts with, the images."""
    keys: object
    match objective:
        case "supervised":
            keys = pretrain.model_dump(mode="json", include=_SUPERVISED - _idle(pretrain))
        case "simsiam":
            keys = _plain(pretrain.simsiam)
        case "reptile":
            keys = [_plain(pretrain.reptile), pretrain.classes]
    augment = _augment(config.augment) if objective == "supervised" else None
    seeds = [config.seed_of("trial"), config.seed_of("loader")]
    modes = _modes_of_batch_norm(config, [objective])
    return digest("phase", version, objective, keys, augment, start, data, config.train.precision, seeds, *modes)


def _modes_of_batch_norm(config: ExperimentConfig, objectives: Sequence[Objective]) -> list[str]:
    """Say what these objectives heed of `train.batch_norm`: Reptile whether it is frozen, labels whether shared."""
    modes = []
    if "reptile" in objectives:
        modes.append("frozen" if config.train.batch_norm == "frozen" else "train")
    if "supervised" in objectives and _batch_norm(config, config.train.num_workers) == "sync":
        modes.append("sync")
    return modes


def _of_objectives(pretrain: PretrainConfig) -> object:
    """Give what counts of the section: what no objective reads does not, nor that there is but the plain one.

    The weights that it begins with count by their content.
    """
    unread = {"weights", *({"simsiam", "reptile"} - set(pretrain.objective)), *_idle(pretrain)}
    if pretrain.objective == ["supervised"]:
        unread.add("objective")
    if not pretrain.is_supervised:
        unread |= _SUPERVISED - {"classes"} if pretrain.needs_labels else _SUPERVISED
    # Images of a source task have one label each: what would part several says nothing.
    return pretrain.model_dump(mode="json", exclude={**dict.fromkeys(unread, True), "data": {"label_separator"}})


def _idle(pretrain: PretrainConfig) -> set[str]:
    """Name the keys that change nothing: those of a regulariser or of a target that is not there."""
    regularizer = _REGULARIZER if pretrain.regularizer == "none" else set()
    return {*regularizer, *({"with_target"} if pretrain.with_target is None else ())}


def of_candidate_measures(config: ExperimentConfig, *, data: str, backbone: PretrainedBackbone, version: int) -> str:
    """Fingerprint what was measured of one candidate backbone: its weights and the samples."""
    return digest("candidate measures", version, data, backbone.digest, _plain(backbone.spec), config.seed)


def of_ranking(config: ExperimentConfig, *, data: str, candidates: Mapping[str, str], version: int) -> str:
    """Fingerprint a ranking, and the choice that stands on it: the samples, and the candidates by title."""
    return digest("ranking", version, data, list(candidates.items()), config.seed)


def of_profile(
    config: ExperimentConfig, *, data: str, files: str, backbone: PretrainedBackbone | None, version: int
) -> str:
    """Fingerprint the profile: the samples, the measures, and the backbone where features are measured.

    `files` stands for the input's files, which count where columns that are no part of the samples are read from them.
    """
    features = None
    if backbone is not None:
        is_sketched = backbone.feature_dim > config.diversity.sketch_above
        features = [backbone.digest, _plain(backbone.spec), is_sketched]
    min_images = config.grouping.min_images
    columns = files if config.diversity.columns else None
    diversity = _plain(config.diversity, without={"sketch_above"})
    return digest("profile", version, data, columns, diversity, min_images, features, config.seed)


def of_distances(config: ExperimentConfig, *, profile: str, source: str, companion: str, version: int) -> str:
    """Fingerprint the distances of subsets: the profile, and the images of the sources.

    `source` stands for those of the pretraining, `companion` for those that groups are trained together with.
    """
    joint = [companion] if config.source is None else [companion, config.source.classes, config.source.has_task]
    return digest("distances", version, profile, source, joint, config.seed_of("trial"))


def of_group_distances(*, distances: str, groups: str, version: int) -> str:
    """Fingerprint the distances of groups: those of subsets, and the groups."""
    return digest("group distances", version, distances, groups)


def of_groups(config: ExperimentConfig, *, profile: str, version: int) -> str:
    """Fingerprint the groups: the profile and the section that groups it."""
    return digest("groups", version, profile, _plain(config.grouping), config.grouping_measures)


def of_later_profile(
    config: ExperimentConfig, *, data: str, files: str, backbone: PretrainedBackbone | None, groups: str, version: int
) -> str:
    """Fingerprint the profile of later subsets: the inputs of any profile, and the groups that it is compared with."""
    return digest("later", of_profile(config, data=data, files=files, backbone=backbone, version=version), groups)


def of_study(
    config: ExperimentConfig, *, group: str, data: str, backbone: PretrainedBackbone, version: int, source: str = ""
) -> str:
    """Fingerprint a study: what makes its trials comparable. How many there are to be is no part of it.

    The sections `finetune` and `search` are those of its group. `source` stands for the samples of the source that
    trials are trained together with, where there is one.
    """
    search = _search(config.search)
    # Folds, and the re-splits of races, are drawn anew also where the data says which split a sample is in.
    drawn = [_plain(config.finetune), config.seed_of("sampler"), config.seed_of("split")]
    inputs = _training_inputs(config, data, backbone, num_workers=config.search.num_workers_per_trial)
    return digest("study", version, group, search, drawn, inputs, *_source_inputs(config, source))


def of_search(config: ExperimentConfig, *, study: str, version: int) -> str:
    """Fingerprint a group's search: its study and how long it may last."""
    search = config.search
    return digest("search", version, study, search.num_samples, _plain(search.budget), search.target)


def of_model(
    config: ExperimentConfig,
    *,
    hyperparameters: Hyperparameters,
    data: str,
    backbone: PretrainedBackbone,
    version: int,
    source: str = "",
) -> str:
    """Fingerprint a trained model: its recipe, its samples and the source's, its backbone and the section `train`."""
    num_workers, metric = config.train.num_workers, config.search.metric
    train = config.train.model_copy(update={"batch_norm": _batch_norm(config, num_workers)})
    trained = _training_inputs(config, data, backbone, num_workers=num_workers)
    inputs = [_plain(hyperparameters), _plain(train, without=_TRAIN_OPERATION), metric, trained]
    return digest("model", version, *inputs, *_source_inputs(config, source))


def of_baseline(
    config: ExperimentConfig,
    *,
    name: str,
    hyperparameters: Hyperparameters,
    data: str,
    backbone: PretrainedBackbone,
    version: int,
) -> str:
    """Fingerprint a control arm."""
    metric = config.search.metric
    inputs = _training_inputs(config, data, backbone)
    return digest("baseline", version, name, _plain(hyperparameters), metric, inputs)


def of_evaluation(config: ExperimentConfig, *, model: str, baselines: list[str], data: str, version: int) -> str:
    """Fingerprint an evaluation: the model, the control arms, the samples and the section `evaluate`."""
    evaluate = _plain(config.evaluate, without={"explanations", "on_negative_transfer"})
    return digest("evaluation", version, model, baselines, data, evaluate, config.seed)


def of_subset_models(*, decisions: Mapping[str, str], version: int) -> str:
    """Fingerprint a group's models by subset: for each its model's fingerprint, or why it has none."""
    return digest("subset models", version, sorted(decisions.items()))


def of_subset_evaluation(
    config: ExperimentConfig, *, model: str, models: str, weights: Mapping[str, str], version: int
) -> str:
    """Fingerprint the test of a group's models by subset: the group's own model, the others and their weights.

    What else the group's model is judged by changes nothing here.
    """
    settings = [config.evaluate.bootstrap_samples, config.seed]
    return digest("subset evaluation", version, model, models, sorted(weights.items()), settings)


def of_explanations(config: ExperimentConfig, *, evaluation: str, version: int) -> str:
    """Fingerprint the explanations of a model: its evaluation, and how many there are to be."""
    return digest("explanations", version, evaluation, config.evaluate.explanations)


def of_arm(
    config: ExperimentConfig,
    *,
    name: str,
    hyperparameters: Hyperparameters,
    rival: Hyperparameters | None,
    classes: Sequence[str],
    data: str,
    backbone: PretrainedBackbone,
    version: int,
    source: str = "",
    tasks: Sequence[TaskClasses] = (),
) -> str:
    """Fingerprint an arm: its recipe, the one it shall cost as much as, its classes, its tasks if any, and its samples.

    The source's count where the cost is that of a training together with it.
    """
    recipes = [_plain(hyperparameters), _plain(rival)]
    inputs = _training_inputs(config, data, backbone)
    beside = [] if rival is None else _source_inputs(config, source)
    further = [_plain(task) for task in tasks]
    return digest("arm", version, name, recipes, list(classes), config.search.metric, inputs, *beside, *further)


def of_transfer(config: ExperimentConfig, *, models: Sequence[str], arms: Sequence[str], version: int) -> str:
    """Fingerprint the verdicts on transfer: models, arms, and what is done; the budget where that may train."""
    evaluate = config.evaluate
    mode = evaluate.on_negative_transfer
    budget = _plain(config.search.budget) if mode == "regroup" else None
    settings = [mode, evaluate.bootstrap_samples, budget, config.seed]
    return digest("transfer", version, list(models), list(arms), settings)


def _training_inputs(
    config: ExperimentConfig, data: str, backbone: PretrainedBackbone, *, num_workers: int = 1
) -> list[object]:
    return [
        data,
        backbone.digest,
        _plain(backbone.spec),
        _batch_norm(config, num_workers),
        _augment(config.augment),
        config.train.precision,
        [config.seed_of("trial"), config.seed_of("loader")],
    ]


def _batch_norm(config: ExperimentConfig, num_workers: int) -> BatchNormMode:
    """Give how workers train BatchNorm: one alone has nobody to share statistics with."""
    batch_norm = config.train.batch_norm
    return "train" if batch_norm == "sync" and num_workers == 1 else batch_norm


def _source_inputs(config: ExperimentConfig, source: str) -> list[object]:
    """Give what a source changes, which is nothing without one; where its data lies is in what `source` stands for."""
    return [] if config.source is None else [_plain(config.source, without={"uri", "data"}), source]


def _search(search: SearchConfig) -> object:
    """Give what makes trials comparable; an augmentation that is not searched is as good as none that could be."""
    unread = _SEARCH_OPERATION | _SEARCH_DECISIONS | _SEARCH_LENGTH
    unsearched = set(AUGMENTATIONS) - set(search.space.augmentations)
    return search.model_dump(mode="json", exclude={**dict.fromkeys(unread, True), "space": unsearched})


def _augment(augment: AugmentConfig) -> object:
    """Give how samples are varied; where nothing varies, all views of a sample are the sample."""
    return _plain(augment if augment.varies else augment.model_copy(update={"views": 1}))


def _plain(section: BaseModel | None, *, without: set[str] | None = None) -> object:
    return None if section is None else section.model_dump(mode="json", exclude=without)
