"""The arms of a run: models that transfer less, or more, than the groups' models, trained where they are not yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator import fingerprints, storage
from orchestrator.cluster.baselines import control_arms
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import trial_resources
from orchestrator.cluster.transfer_arms import ARM_VERSION, ArmJob, ArmMaterial, Material, failed_arm, run_arms
from orchestrator.data.reader import BLOCK_ROWS, blocks_of, number_rows
from orchestrator.errors import RecordError
from orchestrator.finetune.models import is_saved, load_card
from orchestrator.records import ArmName, ArmResult, Group, Hyperparameters, ModelCard, TaskClasses
from orchestrator.runs import folder_name
from orchestrator.search.arms import pooled_recipe
from orchestrator.stages.answers import keep_validation
from orchestrator.stages.context import GroupContext
from orchestrator.stages.train import read_models

_POOLED: Material = (None, None)


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Hold the jobs of all arms of a run, and find, train and keep them."""

    context: GroupContext
    jobs: Sequence[ArmJob]

    def read(self) -> list[ArmResult]:
        """Give the results of the arms, in the order of the jobs. Raises RecordError when they are not trained."""
        found = [(job, self._find(job)) for job in self.jobs]
        missing = [_path(job) for job, result in found if result is None]
        if missing:
            raise RecordError("every arm must have a record", value=missing[0], remedy="Run `orchestrator evaluate`.")
        return [result for _, result in found if result is not None]

    def train(self) -> None:
        """Train the arms that have no result yet."""
        for job, result in self._run([job for job in self.jobs if self._find(job) is None]):
            self._keep(job, result)

    def with_model(self, wanted: Sequence[ArmResult]) -> list[ArmResult]:
        """Give results again, each with a model that is kept; one whose training fails this time has its error.

        No arm's model is kept before it is wanted: there is one for each subset. The few that are, are trained again,
        from the same seeds; what they predict on validation images is kept beside them.
        """
        results = {arm_key(result): result for result in wanted}
        jobs = [job for job in self.jobs if (*job.material, job.name) in results]
        again = []
        for job in jobs:
            known = results[*job.material, job.name]
            if known.model is None or not is_saved(self.context.run_directory.path(known.model), known.weights_digest):
                # The epochs from scratch are those that were found: measured again they could be others.
                path = f"{_folder(job)}/model"
                again.append(replace(job, hyperparameters=known.hyperparameters, rival=None, model_path=path))
        for job, found in self._run(again):
            known = results[arm_key(found)]
            update = {
                "epoch_cost": known.epoch_cost,
                "seconds": known.seconds,
                "seconds_again": known.seconds_again + found.seconds,
            }
            results[arm_key(found)] = found.model_copy(update=update)
            self._keep(job, results[arm_key(found)])
        for result in results.values():
            if result.model is not None and result.error is None:
                rows = self.context.rows(_part(self.context, (result.group, result.subset)), "val")
                card = load_card(self.context.run_directory.path(result.model))
                keep_validation(self.context, result.model, card, rows, fingerprint=result.fingerprint)
        return list(results.values())

    def forget_models(self, *, shipped: Collection[str]) -> None:
        """Remove the models of arms that are not shipped."""
        for model in (f"{_folder(job)}/model" for job in self.jobs):
            if model not in shipped:
                storage.delete(self.context.run_directory.path(model))

    def _run(self, jobs: Sequence[ArmJob]) -> Iterator[tuple[ArmJob, ArmResult]]:
        """Train arms, and give each result as it comes; arms without samples fail."""
        context = self.context
        materials = {job.material: _material(context, job) for job in jobs}
        lacks = [(job, _lack(materials[job.material].samples)) for job in jobs]
        yield from [(job, failed_arm(job, lack)) for job, lack in lacks if lack is not None]
        yield from run_arms(
            [job for job, lack in lacks if lack is None],
            materials,
            context.workbench,
            context.reader,
            trial_resources(context.config.search, use_gpu=context.use_gpu),
            context.shape,
            stall_timeout_s=context.config.cluster.stall_timeout_s,
        )

    def _find(self, job: ArmJob) -> ArmResult | None:
        return self.context.run_directory.find(_path(job), ArmResult, job.fingerprint)

    def _keep(self, job: ArmJob, result: ArmResult) -> None:
        # A model that could not be made does not take back what is known of its arm.
        if job.model_path is None or result.error is None:
            self.context.run_directory.write(_path(job), result)
        group, subset = job.material
        whose = f" of {subset}" if subset else ""
        epochs = f"{result.hyperparameters.epochs} epochs in {result.seconds_again or result.seconds:.1f} s"
        self.context.say(f"evaluate {group or 'all groups'}: arm {job.name}{whose}, {result.error or epochs}")


def arms_of(context: GroupContext) -> Arms:
    """Plan the arms of every group.

    From scratch, for as many epochs as take what the group's training took; the head alone, at rate 1e-3 for the
    recipe's epochs; where the group was trained together with a source, its recipe without that, as all arms are
    trained; where a group has several subsets, each subset's training images alone, by the group's recipe and
    over its classes; where there are several groups, all groups' training images and classes. Each has the heads that a
    group's model has: for all tasks, or for each of its subsets.
    """
    cards = read_models(context)
    jobs = []
    for card in cards:
        group = context.group(card.group)
        recipe, classes = card.hyperparameters, context.classes(group)
        controls = control_arms(recipe, recipe, context.backbone.num_stages)
        # Patience may have ended the group's training before its last epoch.
        scratch = controls["from_scratch"].model_copy(update={"epochs": len(card.history)})
        of_group: Material = (group.name, None)
        jobs.append(_job(context, of_group, "from_scratch", scratch, classes, rival=recipe))
        jobs.append(_job(context, of_group, "head_only", controls["head_only"], classes))
        if card.source is not None:
            jobs.append(_job(context, of_group, "target_only", recipe, classes))
        if len(group.subsets) > 1:
            alone = [(group.name, subset) for subset in group.subsets]
            jobs += [_job(context, place, "subset_only", recipe, classes) for place in alone]
    if len(cards) > 1:
        classes = context.classes(_part(context, _POOLED))
        jobs.append(_job(context, _POOLED, "pooled", _pooled(context, cards), classes))
    return Arms(context=context, jobs=jobs)


def _pooled(context: GroupContext, cards: Sequence[ModelCard]) -> Hyperparameters:
    num_train = {card.group: context.rows(context.group(card.group), "train").num_rows for card in cards}
    return pooled_recipe(context.recipes(), num_train)


def _job(
    context: GroupContext,
    material: Material,
    name: ArmName,
    hyperparameters: Hyperparameters,
    classes: tuple[str, ...],
    *,
    rival: Hyperparameters | None = None,
) -> ArmJob:
    tasks = _tasks(context, material)
    fingerprint = fingerprints.of_arm(
        context.config,
        name=name,
        hyperparameters=hyperparameters,
        rival=rival,
        classes=classes,
        data=context.data_fingerprint(_part(context, material)),
        backbone=context.backbone,
        version=ARM_VERSION,
        source="" if rival is None else context.final_source_fingerprint(rival),
        tasks=tasks,
    )
    return ArmJob(
        material=material,
        name=name,
        classes=classes,
        hyperparameters=hyperparameters,
        fingerprint=fingerprint,
        run_uri=context.run_directory.uri,
        rival=rival,
        tasks=tasks,
    )


def _tasks(context: GroupContext, material: Material) -> tuple[TaskClasses, ...]:
    """Give all tasks over the classes of a material's group, or the heads of its subsets; nothing for one head."""
    group, _ = material
    by_subset = context.config.train.heads == "subset"
    return context.tasks(_part(context, material if by_subset else (group, None)))


def arm_key(result: ArmResult) -> tuple[str | None, str | None, ArmName]:
    """Give what tells an arm from the others: its group, its subset and its name."""
    return result.group, result.subset, result.name


def _folder(job: ArmJob) -> str:
    group, subset = job.material
    parts = [f"groups/{group}/arms" if group else "arms", job.name, *([folder_name(subset)] if subset else [])]
    return "/".join(parts)


def _path(job: ArmJob) -> str:
    return f"{_folder(job)}/arm.json"


def _part(context: GroupContext, material: Material) -> Group:
    """Give the subsets of a material as a group of a name of their own."""
    group, subset = material
    if subset is not None:
        return Group.put_together(f"{group}/{subset}", [subset])
    if group is not None:
        return context.group(group)
    subsets = [subset for found in context.groups.groups for subset in found.subsets]
    return Group.put_together("/", subsets)


def _material(context: GroupContext, job: ArmJob) -> ArmMaterial:
    part = _part(context, job.material)
    train, validation = (
        context.cached_samples(part, split, context.targets(job.classes, job.tasks)) for split in ("train", "val")
    )
    rows = {split: number_rows(context.rows(part, split)) for split in ("val", "test")}
    return ArmMaterial(
        samples=GroupSamples(
            group=part.name,
            classes=job.classes,
            train=train,
            validation=validation,
            tasks=job.tasks,
            heads=context.config.train.heads,
        ),
        subsets=tuple(part.subsets),
        data_fingerprint=context.data_fingerprint(part),
        rival_images=context.rows(part, "train").num_rows,
        rival_companion=context.companion(job.classes) if job.material == (part.name, None) else None,
        rival_streams_source=context.streams_source,
        rows={"val": blocks_of(rows["val"], BLOCK_ROWS), "test": blocks_of(rows["test"], BLOCK_ROWS)},
    )


def _lack(samples: GroupSamples) -> str | None:
    counts: Mapping[str, int] = {"training": len(samples.train), "validation": len(samples.validation)}
    lacking = [split for split, count in counts.items() if count == 0]
    return f"there must be {' and '.join(lacking)} images in the pixel cache, got none" if lacking else None
