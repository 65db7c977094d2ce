"""Refuses what cannot be trained, and checkpoints that are of another training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from orchestrator.config import Section
from orchestrator.errors import TrainingError
from orchestrator.finetune.checkpoints import TrainingState
from orchestrator.finetune.contracts import BatchStream, Samples, TrainingSettings
from orchestrator.finetune.distributed import world_size
from orchestrator.finetune.freezing import Suffix, batch_norm_layers
from orchestrator.finetune.multi_label import require_label_sets
from orchestrator.finetune.phases import depends_on_length
from orchestrator.finetune.schedules import is_constant
from orchestrator.finetune.tasks import require_tasks_fit
from orchestrator.records import Hyperparameters


def require_trainable(
    suffix: Suffix,
    train: Samples | BatchStream,
    validation: Samples,
    hyperparameters: Hyperparameters,
    settings: TrainingSettings,
) -> None:
    """Refuse samples and hyperparameters that do not go together. Raises TrainingError."""
    require_tasks_fit(suffix.class_counts, train, hyperparameters)
    require_label_sets(train, validation, hyperparameters, num_labels=suffix.num_classes)
    if hyperparameters.balanced and isinstance(train, BatchStream):
        raise TrainingError(
            "balanced must be false where training data is streamed",
            value=True,
            remedy="Raise data.max_cache_bytes, or leave it out.",
        )
    if len(validation) == 0:
        raise TrainingError("there must be validation samples", value=0, remedy="Enlarge the validation split.")
    # Shared statistics are of all ranks' samples.
    least = 2 if settings.batch_norm == "sync" else 2 * world_size()
    learns_statistics = settings.batch_norm != "frozen" and batch_norm_layers(suffix)
    if learns_statistics and hyperparameters.batch_size < least:
        raise TrainingError(
            f"batch_size must be at least {least} to train BatchNorm on {world_size()} workers",
            value=hyperparameters.batch_size,
            remedy="Raise batch_size, lower train.num_workers, or set train.batch_norm to frozen or sync.",
        )


def require_same_training(state: TrainingState, hyperparameters: Hyperparameters, suffix: Suffix) -> None:
    """Refuse a state that another training has left. Raises TrainingError."""
    known = state.hyperparameters
    # Where nothing depends on how long a training is, it may be made longer.
    if is_constant(known) and not depends_on_length(known):
        known = known.model_copy(update={"epochs": hyperparameters.epochs})
    if known != hyperparameters:
        raise TrainingError(
            "a checkpoint must come from the same hyperparameters, epochs aside where the rate is constant",
            value=state.hyperparameters,
            remedy="Remove the checkpoint to train from the start.",
        )
    if not _has_shapes(suffix, state.suffix):
        raise TrainingError(
            "a checkpoint must come from the same backbone and classes",
            remedy="Remove the checkpoint to train from the start.",
        )


def require_same_pretraining(
    module: nn.Module, kept: Mapping[str, Tensor], config: Section, kept_config: Section, *, section: str
) -> None:
    """Refuse the tensors and the settings that another pretraining has left. Raises TrainingError."""
    if kept_config != config or not _has_shapes(module, kept):
        raise TrainingError(
            f"a checkpoint must come from the same backbone and the same {section}",
            value=kept_config,
            remedy="Remove the checkpoint to train from the start.",
        )


def _has_shapes(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors have the names and shapes of a module's."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return {name: tensor.shape for name, tensor in tensors.items()} == shapes
