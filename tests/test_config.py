import pytest
from pydantic import ValidationError

from orchestrator.config import (
    DataConfig,
    ExperimentConfig,
    Range,
    SearchConfig,
    SourceConfig,
    SpaceConfig,
    weights_by_name,
)
from orchestrator.errors import ConfigError
from orchestrator.experiment_file import validate_experiment


def experiment(**sections: object) -> dict[str, object]:
    return {"name": "test", "data": {"uri": "/data", "image": "image", "label": "label"}, **sections}


def data(**keys: object) -> dict[str, object]:
    return experiment(data={"uri": "/data", **keys})


def space(**keys: object) -> dict[str, object]:
    return experiment(search={"space": keys})


def heads_of_subsets(**sections: object) -> dict[str, object]:
    return experiment(train={"scope": "multitask", "heads": "subset"}, **sections)


def candidates(*entries: dict[str, object]) -> dict[str, object]:
    return experiment(backbone={"candidates": list(entries)})


def mistake(raw: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_experiment(raw)
    return str(caught.value)


# The mistake, the field and value that the error must name, and a part of the remedy.
MISTAKES = {
    "name": (experiment(name="two words"), "name must match", "'two words'", "--set name="),
    "name, a number": (experiment(name=2024), "name must be text", "2024", "quotes"),
    "name, missing": ({"data": {"uri": "/data"}}, "name must be given", "nothing", "--set name="),
    "seed": (experiment(seed=-1), "seed must be at least 0", "-1", "--set seed="),
    "storage_path": (experiment(storage_path=[]), "storage_path must be text", "[]", "--set storage_path="),
    "top level, misspelt": (experiment(serch={}), "serch is not a key", "{}", "Did you mean search?"),
    "top level, unknown": (experiment(zzz=1), "zzz is not a key", "1", "Known keys there: name"),
    "data": (data(format="xlsx"), "data.format must be 'parquet'", "'xlsx'", "--set data.format="),
    "data, missing": ({"name": "test"}, "data must be given", "nothing", "Add it"),
    "data, empty": (experiment(data=None), "data must be a mapping of keys", "nothing", "--set data="),
    "data, misspelt": (data(lable="x"), "data.lable is not a key", "'x'", "Did you mean data.label?"),
    "data, bound": (data(max_bad_fraction=2), "data.max_bad_fraction must be at most 1", "2", "--set data."),
    "data, empty uri": (data(uri=""), "data.uri must not be empty", "''", "--set data.uri="),
    "data.split": (
        data(split={"fractions": {"val": 0.5, "test": 0.6}}),
        "data.split.fractions.val and test must add up to less than 1",
        "0.5 + 0.6",
        "Lower one",
    ),
    "data.split, misspelt": (
        data(split={"colum": "s"}),
        "data.split.colum is not a key",
        "'s'",
        "Did you mean data.split.column?",
    ),
    "data.tasks, named twice": (
        data(label="x", tasks=["x"]),
        "data.tasks must be columns other than label",
        "x",
        "Leave",
    ),
    "data.tasks, no scope": (
        data(label="x", tasks=["y"]),
        "data.tasks must have train.scope multitask",
        "group",
        "leave the tasks out",
    ),
    "train.scope, no tasks": (
        experiment(train={"scope": "multitask"}),
        "train.scope multitask must have data.tasks",
        "none",
        "Name further columns",
    ),
    "finetune.mixing, several tasks": (
        {**data(label="x", tasks=["y"]), "train": {"scope": "multitask"}, "search": {"space": {"mixing": ["mixup"]}}},
        "finetune.mixing must be none where there are data.tasks",
        "mixup",
        "Search or set it to none",
    ),
    "finetune.task_weighting": (
        {**data(label="x", tasks=["y"]), "train": {"scope": "multitask"}, "finetune": {"task_weighting": [1, 2, 3]}},
        "finetune.task_weighting must have a number for each of the 2 tasks",
        "3",
        "Correct it",
    ),
    "finetune.task_weighting, no name": (
        experiment(finetune={"task_weighting": "sise"}),
        "finetune.task_weighting must be 'equal', 'size' or 'uncertainty'",
        "'sise'",
        "size",
    ),
    "finetune.task_weighting, neither": (
        experiment(finetune={"task_weighting": 3}),
        "finetune.task_weighting must be equal, size or uncertainty, or a list",
        "3",
        "--set finetune.task_weighting=",
    ),
    "backbone": (experiment(backbone={"image_size": 4}), "backbone.image_size must be at least 8", "4", "--set"),
    "backbone, too few channels": (
        experiment(backbone={"mean": [0.5]}),
        "backbone.mean must hold more values",
        "[0.5]",
        "--set backbone.mean=",
    ),
    "backbone, zero std": (
        experiment(backbone={"std": [0.5, 0.5, 0]}),
        "backbone.std must be greater than 0",
        "0",
        "--set backbone.std=",
    ),
    "backbone, kwargs": (
        experiment(backbone={"kwargs": {"depths": [1]}}),
        "backbone.kwargs.depths must be a plain value",
        "[1]",
        "Write",
    ),
    "backbone, candidate misspelt": (
        candidates({"name": "resnet18", "wights": "x"}),
        "backbone.candidates.wights is not a key",
        "'x'",
        "Did you mean backbone.candidates.weights?",
    ),
    "backbone, candidate without a name": (
        candidates({"weights": "none"}),
        "backbone.candidates must have name in every entry",
        "{'weights': 'none'}",
        "Add it",
    ),
    "backbone, candidates of two sizes": (
        candidates({"name": "resnet18", "image_size": 64}),
        "backbone.candidates must share image_size 224",
        "64 for resnet18",
        "Set backbone.image_size",
    ),
    "backbone, candidates without titles": (
        candidates({"name": "resnet18"}, {"name": "resnet18", "weights": "none"}),
        "backbone.candidates must have different titles",
        "resnet18 twice",
        "Add title",
    ),
    "backbone, candidate to be pretrained": (
        candidates({"name": "resnet18", "weights": "pretrain"}),
        "backbone.candidates must have weights",
        "pretrain for resnet18",
        "run of its own",
    ),
    "backbone, candidates without images": (
        {**candidates({"name": "resnet18"}), "data": {"uri": "/data", "verify": "none"}},
        "backbone.candidates must open images",
        "data.verify none",
        "decode",
    ),
    "backbone beside candidates": (
        experiment(backbone={"name": "vit_b_16", "candidates": [{"name": "resnet18"}]}),
        "backbone.name must be left out where candidates name networks",
        "vit_b_16",
        "one of the candidates",
    ),
    "backbone without its source task": (
        experiment(backbone={"weights": "pretrain"}),
        "backbone.weights must have a section pretrain",
        "pretrain",
        "Add pretrain.data.uri",
    ),
    "pretrain": (
        experiment(pretrain={"data": {"uri": "/x"}, "epochs": 0}),
        "pretrain.epochs must be at least 1",
        "0",
        "--set pretrain.epochs=",
    ),
    "pretrain, unknown objective": (
        experiment(pretrain={"data": {"uri": "/x"}, "objective": "simsiam_then_supervized"}),
        "pretrain.objective must be 'supervised', 'simsiam' or 'reptile'",
        "'supervized'",
        "Did you mean supervised?",
    ),
    "pretrain, the same objective twice": (
        experiment(pretrain={"data": {"uri": "/x"}, "objective": ["simsiam", "simsiam"]}),
        "pretrain.objective must name each objective once",
        "simsiam, simsiam",
        "Add to its epochs",
    ),
    "pretrain, classes that nothing learns": (
        experiment(pretrain={"data": {"uri": "/x"}, "objective": "simsiam", "classes": ["a"]}),
        "pretrain.classes must be left out where nothing is supervised",
        "['a']",
        "Remove them",
    ),
    "pretrain, simsiam": (
        experiment(pretrain={"data": {"uri": "/x"}, "simsiam": {"smallest_crop": 0}}),
        "pretrain.simsiam.smallest_crop must be greater than 0",
        "0",
        "--set pretrain.simsiam.smallest_crop=",
    ),
    "pretrain, weights of nowhere": (
        experiment(pretrain={"data": {"uri": "/x"}, "weights": "pretrain"}),
        "pretrain.weights must be a file, a name or none",
        "pretrain",
        "by path",
    ),
    "pretrain, a regulariser without a start": (
        experiment(pretrain={"data": {"uri": "/x"}, "regularizer": "l2_sp"}),
        "pretrain.regularizer must have weights to pull to",
        "l2_sp with weights none",
        "Name weights",
    ),
    "pretrain, a regulariser that nothing reads": (
        experiment(pretrain={"data": {"uri": "/x"}, "objective": "simsiam", "regularizer": "l2"}),
        "pretrain.regularizer must be none where nothing is supervised",
        "l2",
        "Leave it out",
    ),
    "pretrain, a target without labels to learn": (
        experiment(pretrain={"data": {"uri": "/x"}, "objective": "simsiam", "with_target": {}}),
        "pretrain.with_target must be left out where nothing is supervised",
        "one",
        "Remove it",
    ),
    "pretrain, a target that counts for nothing": (
        experiment(pretrain={"data": {"uri": "/x"}, "with_target": {"weight": 0}}),
        "pretrain.with_target.weight must be greater than 0",
        "0",
        "--set pretrain.with_target.weight=",
    ),
    "pretrain, a target whose images are not opened": (
        {
            **experiment(backbone={"weights": "pretrain"}, pretrain={"data": {"uri": "/x"}, "with_target": {}}),
            "data": {"uri": "/data", "verify": "none"},
        },
        "data.verify must be decode with pretrain.with_target",
        "none",
        "trained on",
    ),
    "pretrain, a target that folds would judge": (
        experiment(
            backbone={"weights": "pretrain"},
            pretrain={"data": {"uri": "/x"}, "with_target": {}},
            search={"folds": 3},
        ),
        "search.folds must be 1 with pretrain.with_target",
        "3",
        "learnt",
    ),
    "pretrain, missing": (experiment(pretrain={"epochs": 1}), "pretrain.data must be given", "nothing", "Add it"),
    "pretrain, labels of the run's own subsets": (
        experiment(pretrain={"objective": ["reptile", "supervised"]}),
        "pretrain.data must be given where the objective is supervised",
        "nothing",
        "Add its uri",
    ),
    "pretrain, own subsets that are not opened": (
        {
            **experiment(backbone={"weights": "pretrain"}, pretrain={"objective": "reptile"}),
            "data": {"uri": "/data", "verify": "none"},
        },
        "data.verify must be decode where pretrain has no data",
        "none",
        "trained on",
    ),
    "pretrain, one way": (
        experiment(pretrain={"objective": "reptile", "reptile": {"ways": 1}}),
        "pretrain.reptile.ways must be at least 2",
        "1",
        "--set pretrain.reptile.ways=",
    ),
    "pretrain, own subsets that folds would judge": (
        experiment(backbone={"weights": "pretrain"}, pretrain={"objective": "reptile"}, search={"folds": 3}),
        "search.folds must be 1 where pretrain has no data",
        "3",
        "learnt",
    ),
    "pretrain, misspelt": (
        experiment(pretrain={"data": {"uri": "/x"}, "lerning_rate": 1}),
        "pretrain.lerning_rate is not a key",
        "1",
        "Did you mean pretrain.learning_rate?",
    ),
    "diversity": (
        experiment(diversity={"measures": ["pixel_entrpy"]}),
        "diversity.measures must be",
        "'pixel_entrpy'",
        "Did you mean pixel_entropy?",
    ),
    "diversity, none": (
        experiment(diversity={"measures": []}),
        "diversity.measures must hold at least 1",
        "[]",
        "--set diversity.",
    ),
    "diversity, a sketch of all": (
        experiment(diversity={"sketch_above": 511}),
        "diversity.sketch_above must be at least 512",
        "511",
        "--set diversity.sketch_above=",
    ),
    "diversity without images": (
        {**data(verify="none"), "diversity": {"measures": ["pixel_entropy"]}},
        "diversity.measures",
        "data.verify none",
        "Set it to decode",
    ),
    "copies without images": (
        data(verify="none", deduplicate="exact"),
        "data.deduplicate must be none where verify is none",
        "exact",
        "Set verify to decode",
    ),
    "grouping": (
        experiment(grouping={"method": "quantile"}),
        "grouping.method must be",
        "'quantile'",
        "Did you mean quantiles?",
    ),
    "grouping, no border": (
        experiment(grouping={"method": "thresholds"}),
        "grouping.thresholds must hold a border",
        "none",
        "Add one",
    ),
    "grouping, order": (
        experiment(grouping={"thresholds": [2, 1]}),
        "grouping.thresholds must ascend",
        "[2.0, 1.0]",
        "Sort them",
    ),
    "grouping by what is not measured": (
        experiment(grouping={"measures": ["pixel_entropy"]}),
        "grouping.measures must be profiled",
        "pixel_entropy",
        "Add it to diversity.measures",
    ),
    "search": (
        experiment(search={"num_samples": "many"}),
        "search.num_samples must be a whole number",
        "'many'",
        "--set search.num_samples=",
    ),
    "search, half a trial": (
        experiment(search={"num_samples": 3.5}),
        "search.num_samples must be a whole number",
        "3.5",
        "--set search.",
    ),
    "augment, views that do not differ": (
        experiment(augment={"views": 4}),
        "augment.views must be 1 when nothing varies",
        "4",
        "Set flip, crop, colour, randaugment or erasing",
    ),
    "augment, one view that varies": (
        experiment(augment={"flip": True}),
        "augment.views must be 0 or at least 2",
        "1",
        "Raise views",
    ),
    "augment, fixed views and a search": (
        experiment(augment={"views": 3, "flip": True}, search={"space": {"crop": [0.0, 0.1], "erasing": [0.2]}}),
        "augment.views must be 0 where search.space has crop, erasing",
        "3",
        "Set it to 0, which draws afresh every epoch, or leave them out of search.space",
    ),
    "augment, one view and a search": (
        space(flip=[False, True]),
        "augment.views must be 0 where search.space has flip",
        "1",
        "Set it to 0",
    ),
    "augment, the magnitude of nothing": (
        experiment(augment={"views": 0}, search={"space": {"magnitude": [5, 10], "randaugment": [0]}}),
        "search.space.magnitude must be left out without operations of RandAugment",
        "one",
        "Set augment.randaugment, or search it",
    ),
    "cache": (experiment(cache={"max_bytes": 0}), "cache.max_bytes must be at least 1", "0", "--set cache.max_bytes="),
    "search.budget": (
        experiment(search={"budget": {"gpu_hours": 0}}),
        "search.budget.gpu_hours must be greater than 0",
        "0",
        "--set search.budget.gpu_hours=",
    ),
    "search, mode": (experiment(search={"mode": "min"}), "search.mode must be max", "min", "Leave mode out"),
    "search, target": (
        experiment(search={"target": 95}),
        "search.target must be at most 1 for val_accuracy",
        "95",
        "Give it as a share",
    ),
    "search, resources": (
        experiment(search={"resources_per_trial": {"GPU": -1}}),
        "search.resources_per_trial.GPU must be greater than 0",
        "-1",
        "--set search.resources_per_trial.GPU=",
    ),
    "search, shared GPUs": (
        experiment(search={"num_workers_per_trial": 2, "resources_per_trial": {"GPU": 0.5}}),
        "search.resources_per_trial must name whole GPUs",
        "0.5",
        "Workers of one trial cannot share a GPU",
    ),
    "search, folds": (
        experiment(search={"folds": 3, "num_workers_per_trial": 2}),
        "search.folds must be 1 when num_workers_per_trial is above 1",
        "3",
        "leave num_workers_per_trial at 1",
    ),
    "search.space, order": (
        space(learning_rate={"low": 1, "high": 0.1}),
        "search.space.learning_rate.low must be at most high",
        "1 and 0.1",
        "Swap them",
    ),
    "search.space, log of zero": (
        space(learning_rate={"low": 0, "high": 1, "log": True}),
        "search.space.learning_rate.low must be greater than 0",
        "0",
        "drop log",
    ),
    "search.space, a single number": (
        space(learning_rate=0.1),
        "search.space.learning_rate must be a range",
        "0.1",
        "--set search.space.",
    ),
    "search.space, no choice": (space(epochs=[]), "search.space.epochs must hold at least 1", "[]", "--set search."),
    "search.space, text": (
        space(learning_rate=["fast"]),
        "search.space.learning_rate must be a number",
        "'fast'",
        "such as 3 or 1e-4",
    ),
    "search.space, infinite": (
        space(weight_decay={"low": 0, "high": float("inf")}),
        "search.space.weight_decay.high must be a number",
        "inf",
        "such as 3",
    ),
    "search.space, half an epoch": (
        space(epochs={"low": 1.5, "high": 3}),
        "search.space.epochs must be whole numbers",
        "1.5 and 3",
        "without a decimal point",
    ),
    "search.space, no epoch": (space(epochs=[0, 5]), "search.space.epochs must be at least 1", "0", "Raise it"),
    "search.space, misspelt": (
        space(freeze_dept=[1]),
        "search.space.freeze_dept is not a key",
        "[1]",
        "Did you mean search.space.freeze_depth?",
    ),
    "search.space, unknown key of a range": (
        space(epochs={"low": 1, "high": 9, "step": 2}),
        "search.space.epochs.step is not a key",
        "2",
        "Known keys there: low, high, log",
    ),
    "finetune": (experiment(finetune={"layer_decay": 0}), "finetune.layer_decay must be greater than 0", "0", "--set"),
    "finetune, strategy": (
        experiment(finetune={"strategy": "gradul"}),
        "finetune.strategy must be",
        "'gradul'",
        "gradual",
    ),
    "search.space, method": (
        space(label_smoothing=[0.1, 1.0]),
        "search.space.label_smoothing must be less than 1",
        "1.0",
        "finetune.label_smoothing",
    ),
    "source, nowhere": (
        experiment(source={"weight": 2}),
        "source.uri or data must name the source",
        "none",
        "Write one",
    ),
    "source, twice": (
        experiment(source={"uri": "/s", "data": {"uri": "/t"}}),
        "source.uri or data must name the source",
        "both",
        "Write one",
    ),
    "source, heads": (
        experiment(source={"uri": "/s", "as_negatives": "outlier_exposure"}, finetune={"head": "prototype"}),
        "finetune.head must be linear or cosine with source.as_negatives outlier_exposure",
        "prototype",
        "search no other",
    ),
    "source, tasks": (
        experiment(source={"uri": "/s"}, data={"uri": "/d", "tasks": ["weather"]}, train={"scope": "multitask"}),
        "source must be left out where there are data.tasks",
        "one",
        "by itself",
    ),
    "task weighting without tasks": (
        experiment(finetune={"task_weighting": "size"}),
        "finetune.task_weighting must be equal without data.tasks",
        "size",
        "Leave it out",
    ),
    "tasks, transfer": (
        experiment(
            data={"uri": "/d", "tasks": ["weather"]},
            train={"scope": "multitask"},
            evaluate={"on_negative_transfer": "fallback"},
        ),
        "evaluate.on_negative_transfer must be report with data.tasks",
        "fallback",
        "change what the others predict",
    ),
    "heads, no scope": (
        experiment(train={"heads": "subset"}),
        "train.heads subset must have train.scope multitask",
        "group",
        "leave heads out",
    ),
    "heads, tasks": (
        heads_of_subsets(data={"uri": "/d", "tasks": ["weather"]}),
        "data.tasks must be empty with train.heads subset",
        "weather",
        "Leave the tasks out",
    ),
    "heads, source": (
        heads_of_subsets(source={"uri": "/s"}),
        "source must be left out where there are heads of subsets (train.heads)",
        "one",
        "by itself",
    ),
    "heads, transfer": (
        heads_of_subsets(evaluate={"on_negative_transfer": "regroup"}),
        "evaluate.on_negative_transfer must be report or fallback with heads of subsets (train.heads)",
        "regroup",
        "Set it to fallback",
    ),
    "heads, balanced": (
        heads_of_subsets(search={"space": {"balanced": [True, False]}}),
        "finetune.balanced must be false with train.heads subset",
        "true",
        "weigh classes",
    ),
    "heads, mixing": (
        heads_of_subsets(finetune={"mixing": "cutmix"}),
        "finetune.mixing must be none where there are heads of subsets",
        "cutmix",
        "set it to none",
    ),
    "heads, prototypes": (
        heads_of_subsets(finetune={"head": "prototype"}),
        "finetune.head must be linear with heads of subsets",
        "prototype",
        "search no other",
    ),
    "heads, fixed weights": (
        heads_of_subsets(finetune={"task_weighting": [1, 2]}),
        "finetune.task_weighting must be a name or a mapping with train.heads subset",
        "2 numbers",
        "the name of its subset",
    ),
    "heads, a weight of nothing": (
        heads_of_subsets(finetune={"task_weighting": {"north": 0}}),
        "finetune.task_weighting must be greater than 0",
        "0",
        "--set finetune.task_weighting=",
    ),
    "heads, a name that is none": (
        heads_of_subsets(finetune={"task_weighting": {1: 2, "north": 1}}),
        "finetune.task_weighting must be text",
        "1",
        "in quotes",
    ),
    "heads, no weight": (
        heads_of_subsets(finetune={"task_weighting": {}}),
        "finetune.task_weighting must hold at least 1 value",
        "{}",
        "--set",
    ),
    "tasks, weights by name": (
        {**data(label="x", tasks=["y"]), "train": {"scope": "multitask"}, "finetune": {"task_weighting": {"y": 1}}},
        "finetune.task_weighting must be a name or a list with data.tasks",
        "y by name",
        "order of the tasks",
    ),
    "subsets' models, transfer": (
        experiment(train={"scope": "subset"}, evaluate={"on_negative_transfer": "fallback"}),
        "evaluate.on_negative_transfer must be report with train.scope subset",
        "fallback",
        "two models in the end",
    ),
    "source, penalty": (experiment(source={"uri": "/s", "penalty": "mdd"}), "source.penalty must be", "'mdd'", "mmd"),
    "source, for nothing": (
        experiment(source={"uri": "/s", "weight": 0}),
        "source.weight must be above 0 without a penalty",
        "0",
        "leave the source out",
    ),
    "source, negatives for nothing": (
        experiment(source={"uri": "/s", "weight": 0, "penalty": "mmd", "as_negatives": "reject"}),
        "source.weight must be above 0 with as_negatives reject",
        "0",
        "Raise it",
    ),
    "source, not decoded": (
        experiment(source={"data": {"uri": "/s", "verify": "none"}}),
        "source.data.verify must be decode",
        "none",
        "trained on",
    ),
    "seeds": (experiment(seeds={"loader": -1}), "seeds.loader must be at least 0", "-1", "--set seeds."),
    "train": (experiment(train={"num_workers": 0}), "train.num_workers must be at least 1", "0", "--set train."),
    "train, gpu": (experiment(train={"use_gpu": "perhaps"}), "train.use_gpu must be", "'perhaps'", "--set train."),
    "train, precision": (experiment(train={"precision": "bf61"}), "train.precision must be", "'bf61'", "bf16?"),
    "evaluate": (
        experiment(evaluate={"bootstrap_samples": 1}),
        "evaluate.bootstrap_samples must be at least 100",
        "1",
        "--set",
    ),
    "evaluate, explanations": (
        experiment(evaluate={"explanations": -1}),
        "evaluate.explanations must be at least 0",
        "-1",
        "--set",
    ),
    "evaluate, on_negative_transfer": (
        experiment(evaluate={"on_negative_transfer": "regruop"}),
        "evaluate.on_negative_transfer must be",
        "'regruop'",
        "Did you mean regroup?",
    ),
    "evaluate, label shift": (
        experiment(evaluate={"label_shift": "bbse"}),
        "evaluate.label_shift must be",
        "'bbse'",
        "--set",
    ),
    "cluster": (
        experiment(cluster={"stall_timeout_s": 0}),
        "cluster.stall_timeout_s must be greater than 0",
        "0",
        "--set cluster.",
    ),
}


@pytest.mark.parametrize(("raw", "rule", "value", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gives_one_error_with_field_value_and_remedy(
    raw: dict[str, object], rule: str, value: str, remedy: str
) -> None:
    text = mistake(raw)
    assert len(text.splitlines()) == 1
    assert text.startswith(rule)
    assert f"got {value}" in text
    assert remedy in text.partition("got ")[2]


def test_every_section_has_a_mistake_above() -> None:
    covered = {name.partition(",")[0].partition(".")[0].partition(" ")[0] for name in MISTAKES}
    assert set(ExperimentConfig.model_fields) <= covered


def test_several_mistakes_are_told_at_once() -> None:
    text = mistake(experiment(seed=-1, train={"num_workers": 0}))
    assert [line.split(" ")[0] for line in text.splitlines()] == ["seed", "train.num_workers"]


def test_everything_but_the_name_and_the_data_has_a_default() -> None:
    config = validate_experiment({"name": "test", "data": {"uri": "/data"}})
    assert config.search.space.learning_rate == Range(low=1e-5, high=1e-2, log=True)
    assert config.search.space.epochs == [10, 20, 30, 50]
    assert config.search.space.freeze_depth is None
    assert (config.grouping.num_groups, config.data.max_bad_fraction, config.train.use_gpu) == (3, 0.01, "auto")
    assert not config.storage_path.startswith("~")


def test_a_range_holds_integers_only_where_both_ends_are() -> None:
    assert Range(low=1, high=4).is_integer
    assert not Range(low=1, high=4.0).is_integer
    assert not Range(low=0.5, high=4).is_integer


def test_a_range_of_one_value_is_a_range() -> None:
    assert SpaceConfig.model_validate({"freeze_depth": {"low": 3, "high": 3}}).freeze_depth == Range(low=3, high=3)


def test_the_direction_follows_the_metric() -> None:
    assert SearchConfig().direction == "max"
    assert SearchConfig(metric="val_loss").direction == "min"
    assert SearchConfig(metric="val_loss", mode="min").direction == "min"


def test_grouping_stands_on_the_first_profiled_measure() -> None:
    raw = experiment(diversity={"measures": ["pixel_entropy", "label_entropy"]})
    assert validate_experiment(raw).grouping_measures == ["pixel_entropy"]


def test_subsets_with_heads_may_fall_back_to_other_models() -> None:
    config = validate_experiment(heads_of_subsets(evaluate={"on_negative_transfer": "fallback"}))
    assert (config.train.heads, config.evaluate.on_negative_transfer) == ("subset", "fallback")


@pytest.mark.parametrize("negatives", ["none", "reject", "outlier_exposure"])
def test_subsets_may_have_models_of_their_own_beside_a_source(negatives: str) -> None:
    source = {"uri": "/source", "as_negatives": negatives, "penalty": "coral"}
    config = validate_experiment(experiment(source=source, train={"scope": "subset"}))
    assert config.train.scope == "subset" and config.source is not None and config.source.as_negatives == negatives


def test_a_source_is_read_as_the_data_is_unless_it_says_otherwise() -> None:
    raw = {"name": "test", "data": {"uri": "/data", "label": "kind", "subset": "site"}}
    alike = validate_experiment({**raw, "source": {"uri": "/source"}})
    assert alike.source_data == alike.data.model_copy(update={"uri": "/source", "subset": None})
    apart = validate_experiment({**raw, "source": {"data": {"uri": "/source", "label": "species"}}})
    assert apart.source_data is not None and apart.source_data.label == "species"
    assert validate_experiment(raw).source_data is None
    with pytest.raises(ConfigError, match=r"source\.uri must have an image root of its own"):
        validate_experiment({**raw, "data": {**raw["data"], "image_root": "/images"}, "source": {"uri": "/source"}})


def test_the_weight_of_outliers_is_that_of_the_paper() -> None:
    assert SourceConfig(uri="/s").loss_weight == 1.0
    assert SourceConfig(uri="/s", as_negatives="outlier_exposure").loss_weight == 0.5
    assert [SourceConfig(uri="/s", as_negatives=way).labels for way in ("none", "reject")] == ["every", "none"]
    assert SourceConfig(uri="/s", as_negatives="reject", classes=["bird"]).labels == "every"
    assert SourceConfig(uri="/s", as_negatives="outlier_exposure", weight=2.0).loss_weight == 2.0


def test_weights_null_means_none() -> None:
    assert validate_experiment(experiment(backbone={"weights": None})).backbone.weights == "none"


def test_kwargs_keep_their_types() -> None:
    kwargs = {"width_mult": 0.35, "progress": False, "groups": 2, "name": "x"}
    kept = validate_experiment(experiment(backbone={"kwargs": kwargs})).backbone.kwargs
    assert {key: type(value) for key, value in kept.items()} == {key: type(value) for key, value in kwargs.items()}


def test_sections_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DataConfig(uri="/data").uri = "/other"


def test_candidates_are_networks_on_the_pixels_of_the_section_with_titles_by_what_builds_them() -> None:
    entries = [{"name": "resnet18"}, {"name": "mobilenet_v2", "kwargs": {"width_mult": 0.35}, "weights": "none"}]
    config = validate_experiment(experiment(backbone={"image_size": 64, "resize": "squash", "candidates": entries}))
    found = config.backbone.by_title
    assert list(found) == ["resnet18", "mobilenet_v2 width_mult=0.35"]
    assert {(network.image_size, network.resize) for network in found.values()} == {(64, "squash")}
    assert [network.weights for network in found.values()] == ["DEFAULT", "none"]


def test_a_backbone_without_candidates_is_the_only_one_to_choose_from() -> None:
    backbone = validate_experiment(experiment(backbone={"name": "vit_b_16"})).backbone
    assert backbone.by_title == {"vit_b_16": backbone}


def test_weights_may_be_what_a_regulariser_of_pretraining_pulls_to() -> None:
    source = {"data": {"uri": "/x"}}
    for section in ({"weights": "DEFAULT"}, {"objective": "simsiam_then_supervised"}):
        config = validate_experiment(experiment(pretrain={**source, **section, "regularizer": "cosine"}))
        assert config.pretrain is not None and config.pretrain.regularizer == "cosine"


def test_the_run_pretrains_on_its_own_images_only_where_it_pretrains() -> None:
    pretrain = {"data": {"uri": "/x"}, "with_target": {"weight": 0.5}}
    assert validate_experiment(experiment(backbone={"weights": "pretrain"}, pretrain=pretrain)).pretrains_on_target
    assert not validate_experiment(experiment(pretrain=pretrain)).pretrains_on_target


def test_weights_of_subsets_are_a_mapping_in_the_file_and_again_when_it_is_resolved() -> None:
    config = validate_experiment(heads_of_subsets(finetune={"task_weighting": {"south": 0.5, "north": 2}}))
    weights = config.finetune.task_weighting
    assert weights_by_name(weights) == {"north": 2.0, "south": 0.5} and hash(weights)
    resolved = config.model_dump(mode="json")
    assert resolved["finetune"]["task_weighting"] == {"north": 2.0, "south": 0.5}
    assert validate_experiment(resolved) == config
    assert weights_by_name("size") is None and weights_by_name((1.0, 2.0)) is None


@pytest.mark.parametrize(
    ("raw", "heads"),
    [
        (experiment(), ("prototype", "cosine")),
        (experiment(source={"uri": "/s"}), ("prototype", "cosine")),
        (experiment(source={"uri": "/s", "as_negatives": "reject"}), ("prototype", "cosine")),
        (experiment(source={"uri": "/s", "as_negatives": "outlier_exposure"}), ("cosine",)),
        (experiment(data={"uri": "/d", "tasks": ["weather"]}, train={"scope": "multitask"}), ("linear",)),
        (heads_of_subsets(), ("linear",)),
    ],
)
def test_few_images_are_learnt_by_heads_that_the_experiment_allows(
    raw: dict[str, object], heads: tuple[str, ...]
) -> None:
    config = validate_experiment(raw)
    assert config.few_shot_heads == heads
    for head in heads:
        assert validate_experiment({**raw, "finetune": {"head": head}}).finetune.head == head


@pytest.mark.parametrize(("section", "pulls"), [({}, False), ({"penalty": "coral"}, True), ({"penalty": "mmd"}, True)])
def test_features_are_pulled_by_a_penalty_alone(section: dict[str, object], pulls: bool) -> None:
    assert validate_experiment(experiment(source={"uri": "/s", **section})).pulls_features == pulls
    assert not validate_experiment(experiment()).pulls_features
