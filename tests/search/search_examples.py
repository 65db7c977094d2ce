from orchestrator.config import Range, SearchConfig, SpaceConfig
from orchestrator.records import EpochMetrics, Hyperparameters, Trial
from orchestrator.search.studies import GroupStudy

NUM_STAGES = 5


def a_search(num_samples: int = 6, **space: object) -> SearchConfig:
    chosen = {"learning_rate": Range(low=1e-4, high=1e-1, log=True), "epochs": [2, 4, 8], **space}
    return SearchConfig(num_samples=num_samples, space=SpaceConfig.model_validate(chosen))


def a_trial(hyperparameters: Hyperparameters, value: float | None = 0.5, **changes: object) -> Trial:
    history = [EpochMetrics(epoch=1, train_loss=1.0, val_loss=0.9, val_accuracy=0.5)]
    fields = {
        "trial_id": "any",
        "hyperparameters": hyperparameters,
        "status": "complete",
        "value": value,
        "history": history,
        "seconds": 1.5,
        "started": 100.0,
    }
    return Trial.model_validate({**fields, **changes})


def accuracy_of(hyperparameters: Hyperparameters) -> float:
    return 0.5 + hyperparameters.learning_rate - 0.01 * abs(hyperparameters.freeze_depth - 2)


def ask_next(study: GroupStudy) -> tuple[int, Hyperparameters]:
    asked = study.ask("listed") or study.ask("sampler")
    assert asked is not None
    return asked


def run_to_the_end(study: GroupStudy, num_trials: int = 6) -> list[Hyperparameters]:
    asked = []
    while study.progress() < num_trials:
        number, hyperparameters = ask_next(study)
        asked.append(hyperparameters)
        study.record(number, a_trial(hyperparameters, accuracy_of(hyperparameters)))
    return asked
