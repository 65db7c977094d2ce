"""Several tasks on one suffix: their logits stand side by side, and each has a loss on the samples that it labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from orchestrator.config import weights_by_name
from orchestrator.errors import TrainingError
from orchestrator.finetune.contracts import BatchStream, Labels, Samples
from orchestrator.finetune.freezing import Suffix
from orchestrator.finetune.label_counts import NO_LABEL, LabelCounts
from orchestrator.finetune.losses import Objective, create_objective
from orchestrator.records import Hyperparameters


@dataclass(frozen=True, kw_only=True)
class TaskObjective:
    """Weigh the losses of T tasks on the same batch; a sample without a label for a task has no part in its loss.

    Logits [n, K_1 + ... + K_T] hold those of each task side by side, targets [n, T] int64 its class indices or
    NO_LABEL. A labelled sample adds w_t l_t, w_t of `weights` [T] float32, l_t what the task's objective gives.

    With `log_variances` s [T] it adds w_t (exp(-s_t) l_t + s_t / 2) instead, and s is learnt: the uncertainty of a task
    by its own noise (Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
    Geometry and Semantics", 2018). As a sum over samples it adds up over batches and ranks.
    """

    objectives: tuple[Objective, ...]
    class_counts: tuple[int, ...]
    weights: Tensor
    log_variances: Tensor | None = None

    def sum_of_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Give the weighted sum [] float32 of the losses of all tasks."""
        logits = logits.float()
        # The tie to the logits keeps a gradient where no sample has any label.
        total = 0 * logits.sum()
        for task, part in enumerate(torch.split(logits, list(self.class_counts), dim=1)):
            # A task of one class is always right: it teaches nothing, and its uncertainty would shrink without end.
            if self.class_counts[task] < 2:
                continue
            is_known = targets[:, task] != NO_LABEL
            loss = self.objectives[task].sum_of_losses(part[is_known], targets[is_known, task])
            if self.log_variances is not None:
                log_variance = self.log_variances[task]
                loss = torch.exp(-log_variance) * loss + is_known.sum() * log_variance / 2
            total = total + self.weights[task] * loss
        return total


def count_labels(train: Samples | BatchStream) -> LabelCounts:
    """Count the labels of training samples, of a stream those of an epoch."""
    return train.count_labels() if isinstance(train, BatchStream) else LabelCounts.of(train.labels)


def objective_of(
    suffix: Suffix, hyperparameters: Hyperparameters, counts: LabelCounts, device: str
) -> Objective | TaskObjective:
    """Create the loss of a suffix, of one task or of several, by how many training samples have each label."""
    if len(suffix.class_counts) == 1:
        return create_objective(hyperparameters, counts.by_task[0], suffix.num_classes, device)
    labelled = [int(found.sum()) for found in counts.by_task]
    return TaskObjective(
        objectives=tuple(
            create_objective(hyperparameters, found, count, device)
            for found, count in zip(counts.by_task, suffix.class_counts, strict=True)
        ),
        class_counts=suffix.class_counts,
        weights=task_weights(hyperparameters, labelled, num_samples=counts.num_samples).to(device),
        log_variances=suffix.log_variances,
    )


def task_weights(hyperparameters: Hyperparameters, num_labelled: Sequence[int], *, num_samples: int) -> Tensor:
    """Weigh a labelled sample of each task, float32 [T], by the numbers of labelled ones of all training samples.

    The mean loss over a task's labelled samples weighs 1 for `equal`, the given number where weights are fixed, and T
    times the task's share of all labels for `size`: there every label weighs the same. `uncertainty` starts as `equal`.
    Where no sample has several labels, as with heads of subsets, these are divided by their sum: the loss of a batch is
    then as large as that of one task, however many there are.
    """
    counts = torch.tensor(num_labelled, dtype=torch.float64)
    weighting = hyperparameters.task_weighting
    labelled = counts > 0
    if weighting == "size":
        of_means = len(counts) * counts / counts.sum()
    elif isinstance(weighting, tuple):
        of_means = torch.tensor(weighting, dtype=torch.float64)
    else:
        of_means = torch.ones_like(counts)
    if counts.sum() <= num_samples and labelled.sum() > 1:
        of_means = of_means / of_means[labelled].sum()
    # Losses are summed over labelled samples and divided by the number of all in the batch.
    return torch.where(labelled, of_means * num_samples / counts.clamp_min(1), 0.0).float()


def class_indices(labels: Labels) -> NDArray[np.int64]:
    """Give labels [n] or [n, T] of samples that have one class for each task as the indices that they are."""
    return labels.astype(np.int64, copy=False)


def first_task(labels: Labels) -> NDArray[np.int64]:
    """Give the class indices [n] of the first task, which every sample has, of labels [n] or [n, T]."""
    return class_indices(labels if labels.ndim == 1 else labels[:, 0])


def strata(labels: Labels) -> NDArray[np.int64]:
    """Give numbers [n] of what splits and folds hold alike shares of, from labels [n] or [n, T] of a whole group.

    It is the label of the first task where every sample has one. Else each has a label for one of T heads: it is the
    place of that label among those that occur, head by head. Samples without any share the number after the last.
    """
    if labels.ndim == 1 or (labels[:, 0] != NO_LABEL).all():
        return first_task(labels)
    labels = class_indices(labels)
    ends = np.cumsum(labels.max(axis=0) + 1)
    places = np.where(labels != NO_LABEL, labels + np.concatenate([[0], ends[:-1]]), -1).max(axis=1)
    found: NDArray[np.int64] = np.where(places < 0, ends[-1], places)
    return found


def judge_tasks(logits: Tensor, labels: Tensor, class_counts: Sequence[int]) -> Tensor:
    """Give for each task [T, 2] float64 the sum of cross-entropies and the number of right answers.

    `logits` [n, K_1 + ... + K_T] float32, `labels` [n], or [n, T] with NO_LABEL, which counts as neither.
    """
    if labels.dim() == 1:
        return _judge(logits, labels).unsqueeze(0)
    totals = torch.zeros(len(class_counts), 2, dtype=torch.float64, device=logits.device)
    for task, part in enumerate(torch.split(logits, list(class_counts), dim=1)):
        is_known = labels[:, task] != NO_LABEL
        if class_counts[task]:
            totals[task] = _judge(part[is_known], labels[is_known, task])
    return totals


def _judge(logits: Tensor, labels: Tensor) -> Tensor:
    loss = cross_entropy(logits, labels, reduction="sum")
    return torch.stack([loss.double(), (logits.argmax(dim=1) == labels).sum().double()])


def mean_over_tasks(totals: Tensor, labels: Labels) -> tuple[float, float]:
    """Give the mean loss and the mean accuracy of the tasks from totals [T, 2] over all validation labels [n(, T)].

    Each task weighs the same, whatever it has of labels; one without any has no say.
    """
    columns = labels[:, None] if labels.ndim == 1 else labels
    counts = torch.from_numpy((columns != NO_LABEL).sum(axis=0)).to(totals.device)
    has_labels = counts > 0
    if not has_labels.any():
        raise TrainingError(
            "validation must have an image with a label that some head knows",
            value=f"none of {len(labels)}",
            remedy="Check the splits of the subsets: those without training images have no head.",
        )
    loss, accuracy = (totals[has_labels] / counts[has_labels, None]).mean(dim=0).tolist()
    return loss, accuracy


def require_tasks_fit(
    class_counts: Sequence[int], train: Samples | BatchStream, hyperparameters: Hyperparameters
) -> None:
    """Check that several tasks can be trained so. Raises TrainingError."""
    if len(class_counts) == 1:
        return
    if hyperparameters.mixing != "none":
        raise TrainingError(
            "mixing must be none where several tasks are trained",
            value=hyperparameters.mixing,
            remedy="Set finetune.mixing to none.",
        )
    held = None if isinstance(train, BatchStream) else train
    if hyperparameters.balanced and held is not None and (held.labels[:, 0] == NO_LABEL).any():
        raise TrainingError(
            "balanced must be false where each sample has a label for one of several heads",
            value=True,
            remedy="Set finetune.balanced to false.",
        )
    weighting = hyperparameters.task_weighting
    if by_name := weights_by_name(weighting):
        raise TrainingError(
            "fixed task weights must be numbers in the order of the heads",
            value=", ".join(by_name),
            remedy="Put them in the order of the heads that are trained.",
        )
    if isinstance(weighting, tuple) and len(weighting) != len(class_counts):
        raise TrainingError(
            f"fixed task weights must be {len(class_counts)}, one for each task",
            value=len(weighting),
            remedy="Correct finetune.task_weighting.",
        )
