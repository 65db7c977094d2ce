"""The third part of the evaluation stage: what transfer gives each subset, and what is done where it hurts."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import fingerprints, storage
from orchestrator.config import ExperimentConfig
from orchestrator.errors import RecordError
from orchestrator.evaluation.answered_images import in_order, right_by_subset
from orchestrator.evaluation.answers import pack
from orchestrator.evaluation.transfer import TRANSFER_VERSION, choose_better, gain_over, judge_transfer
from orchestrator.finetune.models import is_saved
from orchestrator.finetune.validation import load_validation_answers
from orchestrator.records import Arm, ArmGain, ArmResult, SubsetTransfer, Transfer
from orchestrator.reporting.wording import points, points_interval
from orchestrator.stages.answers import kin_by_subset
from orchestrator.stages.arms import Arms, arm_key, arms_of
from orchestrator.stages.context import GroupContext
from orchestrator.stages.evaluate import read_answers, read_evaluations
from orchestrator.stages.regroup import REGROUPED, regroup
from orchestrator.stages.settling import why_kept
from orchestrator.stages.subjects import Subject, by_split
from orchestrator.stages.train import headless, read_models

_TRANSFER = "transfer.json"


def judge_subsets(context: GroupContext) -> int:
    """Judge what transfer gives every subset, and do what `evaluate.on_negative_transfer` says; give their number.

    None where that asks for nothing, or all is up to date. Raises RecordError when the models have to be tested first,
    and the error of a group that could not be trained again.
    """
    mode = context.config.evaluate.on_negative_transfer
    if mode is None:
        return 0
    arms = arms_of(context)
    fingerprint = _fingerprint(context, arms)
    found = context.run_directory.find(_TRANSFER, Transfer, fingerprint)
    if found is not None and not _lost_models(context, found):
        return 0
    arms.train()
    results = arms.read()
    subjects = _subjects(context, results)
    judged = [_judge(context.config, subject) for subject in subjects]
    regrouping = None
    if mode == "fallback":
        judged, kept = _fall_back(context, arms, subjects, judged, results)
        results = _with_cost(results, kept)
    if mode == "regroup":
        judged, regrouping = regroup(context, subjects, judged)
    record = Transfer(
        fingerprint=fingerprint,
        mode=mode,
        arms=[Arm.model_validate(result.model_dump(include=set(Arm.model_fields))) for result in results],
        subsets=judged,
        regrouping=regrouping,
    )
    context.run_directory.write(_TRANSFER, record)
    _forget_others(context, arms, record)
    verdicts = [found.verdict for found in judged]
    context.say(
        f"evaluate: transfer helps {verdicts.count('helps')} of {len(judged)} subsets, hurts {verdicts.count('hurts')}"
    )
    return len(judged)


def read_transfer(context: GroupContext) -> Transfer | None:
    """Give the verdicts; None where none were asked for.

    Raises RecordError when they have to be made first, or a model that they name is not there any more.
    """
    mode = context.config.evaluate.on_negative_transfer
    if mode is None:
        return None
    fingerprint = _fingerprint(context, arms_of(context))
    found = context.run_directory.require(_TRANSFER, Transfer, fingerprint, stage="evaluate")
    if lost := _lost_models(context, found):
        raise RecordError(
            f"every model that {_TRANSFER} names must be there, with the weights that were judged",
            value=lost[0],
            remedy="Run `orchestrator evaluate` (or `orchestrator run`) first.",
        )
    return found


def _lost_models(context: GroupContext, found: Transfer) -> list[str]:
    """Name the models of subsets, other than their groups', that are gone or have other weights."""
    shipped = {subset.model: subset.weights_digest for subset in found.subsets if subset.action != "kept"}
    return [model for model, digest in shipped.items() if not is_saved(context.run_directory.path(model), digest)]


def _fingerprint(context: GroupContext, arms: Arms) -> str:
    return fingerprints.of_transfer(
        context.config,
        models=[f"{card.fingerprint} {card.weights_digest}" for card in read_models(context)],
        arms=[job.fingerprint for job in arms.jobs],
        version=TRANSFER_VERSION,
    )


def _subjects(context: GroupContext, results: Sequence[ArmResult]) -> list[Subject]:
    """Gather what every model got right, subset by subset."""
    cards = {card.group: card for card in read_models(context)}
    subjects = []
    for evaluation in read_evaluations(context):
        group = context.group(evaluation.group)
        rows = {split: context.rows(group, split, ["id", "subset", "together"]) for split in ("val", "test")}
        model = f"groups/{group.name}/model"
        # Both were predicted for the evaluation.
        answers = {
            "val": load_validation_answers(context.run_directory.path(model), cards[group.name]),
            "test": read_answers(context, evaluation),
        }
        own = {split: right_by_subset(in_order(parts, rows[split]["id"])) for split, parts in answers.items()}
        together = {split: kin_by_subset(found) for split, found in rows.items()}
        subjects += [Subject.of(name, group.name, model, together, own, results) for name in group.subsets]
    return subjects


def _judge(config: ExperimentConfig, subject: Subject) -> SubsetTransfer:
    test = subject.compare(config, "test", subject.arms)
    return SubsetTransfer(
        subset=subject.subset,
        group=subject.group,
        verdict=judge_transfer(test),
        test=test,
        validation=subject.compare(config, "val", subject.arms),
        reason="verdicts are only reported",
        model=subject.model,
    )


def _fall_back(
    context: GroupContext,
    arms: Arms,
    subjects: Sequence[Subject],
    judged: Sequence[SubsetTransfer],
    results: Sequence[ArmResult],
) -> tuple[list[SubsetTransfer], list[ArmResult]]:
    """Give every subset the arm's model that its validation images speak for; gives the arms that were kept, too."""
    # No other model predicts for them.
    without_head = {name for card in read_models(context) for name in headless(card.subsets, card)}
    chosen = [None if found.subset in without_head else choose_better(found.validation) for found in judged]
    wanted = [
        _arm_of(results, subject.subset, choice.name)
        for subject, choice in zip(subjects, chosen, strict=True)
        if choice is not None
    ]
    kept = arms.with_model(wanted)
    settled = []
    for subject, found, choice in zip(subjects, judged, chosen, strict=True):
        if subject.subset in without_head:
            reason = "it has no training images, and so a head of its own in no model"
            settled.append(found.model_copy(update={"reason": reason}))
        elif choice is None:
            settled.append(found.model_copy(update={"reason": why_kept(found, "model")}))
        else:
            settled.append(_give(context, subject, found, choice, kept))
    return settled, kept


def _with_cost(results: Sequence[ArmResult], kept: Sequence[ArmResult]) -> list[ArmResult]:
    """Add to arms what keeping their models took."""
    again = {arm_key(arm): arm.seconds_again for arm in kept}
    return [arm.model_copy(update={"seconds_again": again.get(arm_key(arm), arm.seconds_again)}) for arm in results]


def _give(
    context: GroupContext, subject: Subject, judged: SubsetTransfer, choice: ArmGain, kept: Sequence[ArmResult]
) -> SubsetTransfer:
    low, high = choice.gain_interval
    better = f"{choice.name} is more accurate by {points(-choice.gain)} points {points_interval((-high, -low))}"
    result = next((found for found in kept if found.name == choice.name and subject.subset in found.answers), None)
    if result is None or result.model is None:
        reason = f"on validation images {better}, but could not be trained again to be kept"
        context.say(f"evaluate {subject.group}: {subject.subset}: {reason}")
        return judged.model_copy(update={"reason": reason})
    context.say(f"evaluate {subject.group}: {subject.subset} falls back to {choice.name}, kept in {result.model}")
    gain = gain_over(
        subject.subset,
        by_split(result.answers[subject.subset]),
        subject.own,
        subject.together,
        bootstrap_samples=context.config.evaluate.bootstrap_samples,
        seed=context.config.seed,
    )
    update = {
        "action": "fallback",
        "taken": choice.name,
        "reason": f"on validation images {better}",
        "model": result.model,
        "weights_digest": result.weights_digest,
        "gain": gain,
        "test_answers": pack(by_split(result.answers[subject.subset])["test"]),
    }
    return judged.model_copy(update=update)


def _arm_of(results: Sequence[ArmResult], subset: str, name: str) -> ArmResult:
    return next(found for found in results if found.name == name and subset in found.answers)


def _forget_others(context: GroupContext, arms: Arms, record: Transfer) -> None:
    """Remove models that earlier decisions have shipped and this one does not."""
    shipped = {found.model for found in record.subsets}
    arms.forget_models(shipped=shipped)
    for name in storage.list_names(context.run_directory.path(REGROUPED)):
        if f"{REGROUPED}/{name}/model" not in shipped:
            storage.delete(context.run_directory.path(REGROUPED, name))
