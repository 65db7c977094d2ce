"""The training stage: the winner of each group as a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import fingerprints
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.training import TRAIN_VERSION, TrainingJob, TrainingPlan, train_groups
from orchestrator.data.reader import streamed_blocks
from orchestrator.data.streamed_source import StreamedSource
from orchestrator.errors import OrchestratorError
from orchestrator.finetune.balancing import balance_of
from orchestrator.finetune.freezing import batch_norm_layers
from orchestrator.records import Group, Hyperparameters, ModelCard, Recipe, SourceUse
from orchestrator.reporting.balance_findings import balance_finding
from orchestrator.reporting.wording import shortened
from orchestrator.stages.context import GroupContext
from orchestrator.stages.sources import source_use

MODEL_CARD = "model/model.json"


def train(context: GroupContext) -> int:
    """Train the winner of every group whose model is not up to date; give the number of models.

    Every group's training has ended, and the finished models are kept, before one's error is raised.
    """
    pending = [
        recipe
        for recipe in context.recipes()
        if context.find(recipe.group, MODEL_CARD, ModelCard, model_fingerprint(context, recipe)) is None
    ]
    if not pending:
        return 0
    of_groups = {recipe.group: context.samples(context.group(recipe.group)) for recipe in pending}
    jobs = [training_job(context, recipe, of_groups[recipe.group]) for recipe in pending]
    samples = {job.run_name: of_groups[job.group] for job in jobs}
    for job in jobs:
        _say_source(context, job)
        without = headless(job.subsets, samples[job.run_name])
        if without:
            context.say(f"train {job.group}: no training images, and so no head, for {shortened(without, most=10)}")
        _say_balance(context, job, samples[job.run_name])
        if not _can_share(context, job.hyperparameters):
            context.say(f"train {job.group}: train.batch_norm sync changes nothing, no BatchNorm layer is trained")
    errors: list[OrchestratorError] = []
    plan = TrainingPlan.of(context.config, jobs, context.shape)
    for job, card in train_groups(jobs, samples, context.workbench, plan, context.shape):
        if isinstance(card, OrchestratorError):
            context.say(f"train {job.group}: {card}")
            errors.append(card)
            continue
        best = card.history[card.best_epoch - 1]
        context.say(
            f"train {card.group}: epoch {card.best_epoch} of {len(card.history)} kept, validation accuracy "
            f"{best.val_accuracy:.3f}, {card.num_workers} worker(s), {card.seconds:.1f} s"
        )
    if errors:
        raise errors[0]
    return len(jobs)


def read_models(context: GroupContext) -> list[ModelCard]:
    """Give the cards of the trained models. Raises RecordError when they have to be trained first."""
    return [
        context.require(recipe.group, MODEL_CARD, ModelCard, model_fingerprint(context, recipe), stage="train")
        for recipe in context.recipes()
    ]


def model_fingerprint(context: GroupContext, recipe: Recipe, alone: Group | None = None) -> str:
    """Fingerprint a group's model, or that of one of its subsets `alone`."""
    return fingerprints.of_model(
        context.config,
        hyperparameters=recipe.hyperparameters,
        data=context.data_fingerprint(alone or context.group(recipe.group)),
        backbone=context.backbone,
        version=TRAIN_VERSION,
        source=context.final_source_fingerprint(recipe.hyperparameters),
    )


def training_job(
    context: GroupContext, recipe: Recipe, samples: GroupSamples, *, folder: str = "groups"
) -> TrainingJob:
    """Say how a group's model is trained by a recipe; it goes to `<folder>/<group>/model` in the run directory."""
    group = context.group(recipe.group)
    fingerprint = model_fingerprint(context, recipe)
    source = joint_source(context, recipe, samples, group)
    return TrainingJob(
        group=group.name,
        subsets=tuple(group.subsets),
        hyperparameters=recipe.hyperparameters,
        fingerprint=fingerprint,
        data_fingerprint=context.data_fingerprint(group),
        run_name=f"{group.name}-{fingerprint}",
        model_uri=context.run_directory.path(folder, group.name, "model"),
        storage_uri=context.run_directory.path("ray_train"),
        stream=streamed_blocks(context.rows(group, "train")),
        reader=context.reader,
        source=source.use,
        source_stream=source.stream,
    )


@dataclass(frozen=True, kw_only=True)
class JointSource:
    """Hold what a final training streams of the source, and what the card of its model says of it; None for nothing."""

    stream: StreamedSource | None = None
    use: SourceUse | None = None


def joint_source(context: GroupContext, recipe: Recipe, samples: GroupSamples, group: Group) -> JointSource:
    """Say what the model of a group, or of one of its subsets alone, is trained together with by a recipe."""
    config, companion = context.config, samples.companion
    if config.source is None or config.source_data is None or companion is None:
        return JointSource()
    is_one_pass = recipe.hyperparameters.has_one_pass(context.backbone.num_stages)
    if is_one_pass and companion.is_idle(has_one_pass=True):
        return JointSource()
    is_streamed = context.is_source_streamed(recipe.hyperparameters)
    stream = context.streamed_source(samples.classes) if is_streamed else None
    if stream is not None and len(stream.labels) == len(companion.samples):
        # What is not cached are copies of the run's own images.
        stream = None
    if is_one_pass:
        companion = companion.shown(context.rows(group, "train").num_rows, context.workbench.order_seed)
    use = source_use(config.source_data.uri, config.source, companion, samples.classes, stream)
    if is_one_pass:
        # Prototypes alone know neither batches nor features that could be pulled together.
        use = use.model_copy(update={"batch_share": None, "penalty": "none"})
    return JointSource(stream=stream, use=use)


def _can_share(context: GroupContext, hyperparameters: Hyperparameters) -> bool:
    """Tell whether what is trained has BatchNorm, where its statistics are to be shared by several workers."""
    train = context.config.train
    if train.batch_norm != "sync" or train.num_workers == 1:
        return True
    stages = context.workbench.pretrained().stages[hyperparameters.freeze_depth :]
    return any(batch_norm_layers(stage) for stage in stages)


def headless(subsets: Sequence[str], trained: GroupSamples | ModelCard) -> list[str]:
    """Name the subsets that have no head where each has one of its own: those without training images."""
    known = {head.task for head in trained.tasks}
    return [name for name in subsets if name not in known] if trained.heads == "subset" else []


def _say_source(context: GroupContext, job: TrainingJob) -> None:
    if job.source is not None and job.source.num_searched is not None:
        context.say(
            f"train {job.group}: the {job.source.num_images:,} images of the source are streamed, of which the search "
            f"had the {job.source.num_searched:,} that are cached"
        )


def _say_balance(context: GroupContext, job: TrainingJob, samples: GroupSamples) -> None:
    balance = balance_of(
        samples.train.labels,
        samples.classes,
        job.hyperparameters,
        seed=context.workbench.order_seed,
        num_stages=context.backbone.num_stages,
    )
    if balance is not None:
        context.say(f"train {job.group}: {balance_finding(balance)}")
