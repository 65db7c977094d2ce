"""The arms of a run: models that transfer less, or more, than the groups' models, trained where they are not yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from orchestrator import fingerprints, storage
from orchestrator.cluster.baselines import control_arms
from orchestrator.cluster.group_samples import GroupSamples
from orchestrator.cluster.resources import trial_resources
from orchestrator.cluster.transfer_arms import ARM_VERSION, ArmJob, ArmMaterial, Material, failed_arm, run_arms
from orchestrator.data.reader import blocks_of, number_rows
from orchestrator.data.samples import CachedSamples
from orchestrator.errors import RecordError
from orchestrator.records import ArmName, ArmResult, Group, Hyperparameters, ModelCard
from orchestrator.search.arms import pooled_recipe
from orchestrator.stages.answers import BLOCK_ROWS
from orchestrator.stages.context import GroupContext
from orchestrator.stages.train import read_models

_POOLED: Material = (None, None)


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Hold the jobs of all arms, and the names of their records and models below the run directory."""

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
        """Train the arms that have no result, or whose model is wanted and not there."""
        pending = [job for job in self.jobs if not self._is_done(job)]
        materials = {job.material: _material(self.context, job) for job in pending}
        usable = []
        for job in pending:
            error = _lack(materials[job.material].samples)
            if error is None:
                usable.append(job)
            else:
                self._keep(job, failed_arm(job, error))
        context = self.context
        results = run_arms(
            usable,
            materials,
            context.workbench,
            context.reader,
            trial_resources(context.config.search, use_gpu=context.use_gpu),
            context.shape,
            stall_timeout_s=context.config.cluster.stall_timeout_s,
        )
        for job, result in results:
            self._keep(job, result)

    def forget_models(self) -> None:
        """Remove the arms' models: what is shipped has been copied."""
        for job in self.jobs:
            storage.delete(self.context.run_directory.path(_folder(job), "model"))

    def _find(self, job: ArmJob) -> ArmResult | None:
        return self.context.run_directory.find(_path(job), ArmResult, job.fingerprint)

    def _is_done(self, job: ArmJob) -> bool:
        result = self._find(job)
        if result is None or job.model_path is None or result.error is not None:
            return result is not None
        return storage.exists(self.context.run_directory.path(job.model_path, "model.json"))

    def _keep(self, job: ArmJob, result: ArmResult) -> None:
        self.context.run_directory.write(_path(job), result)
        group, subset = job.material
        whose = f" of {subset}" if subset else ""
        epochs = f"{result.hyperparameters.epochs} epochs in {result.seconds:.1f} s"
        self.context.say(f"evaluate {group or 'all groups'}: arm {job.name}{whose}, {result.error or epochs}")


def arms_of(context: GroupContext, *, keep_models: bool) -> Arms:
    """Plan the arms of every group.

    From scratch, for as many epochs as take what the group's training takes; the head alone, at rate 1e-3 for the
    recipe's epochs; where a group has several subsets, each subset's training images alone, by the group's recipe and
    over its classes; where there are several groups, all groups' training images and classes.
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
        jobs.append(_job(context, of_group, "from_scratch", scratch, classes, keep_models, rival=recipe))
        jobs.append(_job(context, of_group, "head_only", controls["head_only"], classes, keep_models))
        if len(group.subsets) > 1:
            alone = [(group.name, subset) for subset in group.subsets]
            jobs += [_job(context, place, "subset_only", recipe, classes, keep_models) for place in alone]
    if len(cards) > 1:
        classes = context.classes(_part(context, _POOLED))
        jobs.append(_job(context, _POOLED, "pooled", _pooled(context, cards), classes, keep_models))
    return Arms(context=context, jobs=jobs)


def folder_name(subset: str) -> str:
    """Give a name of a folder for a subset, whatever the subset is called."""
    return quote(subset, safe="").replace(".", "%2E")


def _pooled(context: GroupContext, cards: Sequence[ModelCard]) -> Hyperparameters:
    num_train = {card.group: context.rows(context.group(card.group), "train").num_rows for card in cards}
    return pooled_recipe(context.recipes(), num_train)


def _job(
    context: GroupContext,
    material: Material,
    name: ArmName,
    hyperparameters: Hyperparameters,
    classes: tuple[str, ...],
    keep_models: bool,
    *,
    rival: Hyperparameters | None = None,
) -> ArmJob:
    fingerprint = fingerprints.of_arm(
        context.config,
        name=name,
        hyperparameters=hyperparameters,
        rival=rival,
        classes=classes,
        data=context.data_fingerprint(_part(context, material)),
        backbone=context.backbone,
        version=ARM_VERSION,
    )
    job = ArmJob(
        material=material,
        name=name,
        classes=classes,
        hyperparameters=hyperparameters,
        fingerprint=fingerprint,
        run_uri=context.run_directory.uri,
        rival=rival,
    )
    return replace(job, model_path=f"{_folder(job)}/model") if keep_models else job


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
        return Group(name=f"{group}/{subset}", subsets=[subset], num_images=0, score_range=(0.0, 0.0))
    if group is not None:
        return context.group(group)
    subsets = [subset for found in context.groups.groups for subset in found.subsets]
    return Group(name="/", subsets=subsets, num_images=0, score_range=(0.0, 0.0))


def _material(context: GroupContext, job: ArmJob) -> ArmMaterial:
    part = _part(context, job.material)
    train, validation = (
        CachedSamples.of(
            context.table,
            context.table.where(subsets=part.subsets, split=split),
            context.reader.pixels_uri,
            job.classes,
        )
        for split in ("train", "val")
    )
    rows = {split: number_rows(context.rows(part, split)) for split in ("val", "test")}
    return ArmMaterial(
        samples=GroupSamples(group=part.name, classes=job.classes, train=train, validation=validation),
        subsets=tuple(part.subsets),
        data_fingerprint=context.data_fingerprint(part),
        rows={"val": blocks_of(rows["val"], BLOCK_ROWS), "test": blocks_of(rows["test"], BLOCK_ROWS)},
    )


def _lack(samples: GroupSamples) -> str | None:
    counts: Mapping[str, int] = {"training": len(samples.train), "validation": len(samples.validation)}
    lacking = [split for split, count in counts.items() if count == 0]
    return f"there must be {' and '.join(lacking)} images in the pixel cache, got none" if lacking else None
