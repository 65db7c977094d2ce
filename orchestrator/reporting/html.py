"""The report as one HTML file that needs no network and no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from orchestrator.records import (
    Advice,
    Baseline,
    ClassNeighbour,
    ClassScores,
    Evaluation,
    Explanations,
    Group,
    GroupInvestment,
    ModelCard,
    Recipe,
    Report,
    SearchResult,
    SubsetEvaluation,
    SubsetProfile,
    Trial,
    of_group,
)
from orchestrator.reporting import wording
from orchestrator.reporting.balance_findings import balance_finding
from orchestrator.reporting.distance_findings import source_sections
from orchestrator.reporting.feature_findings import feature_notes
from orchestrator.reporting.few_shot_findings import episodes_finding
from orchestrator.reporting.figures import Plot, group_color
from orchestrator.reporting.findings import (
    calibration_finding,
    choice_finding,
    copies_finding,
    frequent_mistakes,
    group_finding,
    grouping_finding,
    headline,
    saving_finding,
    separation_finding,
    verdict,
    warm_start_finding,
)
from orchestrator.reporting.group_plots import (
    confusion_plot,
    effects_plot,
    history_plot,
    learning_curve,
    reliability_plot,
)
from orchestrator.reporting.head_findings import heads_finding
from orchestrator.reporting.investment_findings import beside_lines, investment_finding, money, part_lines, price
from orchestrator.reporting.multi_label_findings import multi_label_finding
from orchestrator.reporting.overlays import ShownExample, show_examples
from orchestrator.reporting.plots import diversity_plot, gains_plot
from orchestrator.reporting.pretraining import phase_rows, pretraining_finding
from orchestrator.reporting.shift_findings import ShownShift, shown_shifts
from orchestrator.reporting.source_findings import joint_findings
from orchestrator.reporting.subset_findings import subset_models_finding, subset_source_finding
from orchestrator.reporting.transfer_findings import (
    TRANSFER_MARKS,
    TRANSFER_TITLES,
    arm_titles,
    regrouping_finding,
    transfer_finding,
    transfer_rows,
)

VERDICT_TITLES = {
    "better": "better",
    "worse": "worse",
    "unclear": "no clear difference",
    "unknown": "not compared",
}
_UNUSUAL_BASELINES = {"target_only", "one_head"}


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Hold the test scores of one class, and the class that is nearest in the tuned features, if there is one."""

    label: str
    scores: ClassScores
    neighbour: ClassNeighbour | None


@dataclass(frozen=True, kw_only=True)
class GroupSection:
    """Gather what the report shows of one group; what is missing is None."""

    group: Group
    color: str
    profiles: list[SubsetProfile]
    finding: str
    choice: str
    warm_start: str
    search: SearchResult | None
    recipe: Recipe | None
    model: ModelCard | None
    evaluation: Evaluation | None
    baselines: dict[str, Baseline]
    failed_trials: list[Trial]
    history: Plot | None
    effects: Plot | None
    learning: Plot | None
    confusion: Plot | None
    reliability: Plot | None
    calibration: str
    separation: str
    label_shifts: list[ShownShift]
    episodes: str
    multi_label: str
    class_rows: list[ClassRow]
    mistakes: list[str]
    explanations: Explanations | None
    subset_models: SubsetEvaluation | None
    subset_finding: str
    subset_source: str
    heads_finding: str
    examples: dict[str, list[ShownExample]]
    source: list[str]
    investment: GroupInvestment | None
    advice: list[Advice]

    @property
    def search_seconds(self) -> float:
        """Sum what the group's trials took, in seconds of the trials' own clocks."""
        return sum(trial.seconds for trial in self.search.trials) if self.search else 0.0


def render_html(report: Report, pictures: Mapping[str, bytes] | None = None) -> str:
    """Render the whole report: text, tables, and plots as images inside the file.

    `pictures` are those that the report's explanations name, as PNG.
    """
    sections = [
        _section(report, position, group, pictures or {}) for position, group in enumerate(report.groups.groups)
    ]
    failed = [trial for section in sections for trial in section.failed_trials]
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            headline=headline(report),
            saving=saving_finding(report.search_costs) if report.search_costs else "",
            sections=sections,
            compared=_compared(sections),
            grouping=grouping_finding(report.groups),
            copies=copies_finding(report.catalogue),
            sources=source_sections(report),
            feature_notes=feature_notes(report.profile.subsets),
            diversity=diversity_plot(report.profile, report.groups) if sections else None,
            gains=gains_plot(report.groups, report.evaluations, report.comparisons),
            split_totals=_split_totals(report),
            transfer=report.transfer,
            transfer_finding=transfer_finding(report.transfer) if report.transfer else "",
            transfer_rows=transfer_rows(report.transfer) if report.transfer else [],
            arm_titles=arm_titles(report.transfer) if report.transfer else {},
            regrouping_finding=_regrouping_finding(report),
            num_trials=sum(len(search.trials) for search in report.searches),
            num_failed=len(failed),
            total_seconds=sum(cost.seconds for cost in report.costs),
            attributes=report.profile.attributes,
            has_pixel_entropy=any(found.pixel_entropy is not None for found in report.profile.subsets),
            has_feature_diversity=any(found.feature_diversity is not None for found in report.profile.subsets),
        )
    )


def _compared(sections: Sequence[GroupSection]) -> list[str]:
    """Name the baselines that a table has columns for: the usual ones, and what any group has besides."""
    found = {name for section in sections for name in section.baselines}
    return [name for name in wording.BASELINE_TITLES if name not in _UNUSUAL_BASELINES or name in found]


def _section(report: Report, position: int, group: Group, pictures: Mapping[str, bytes]) -> GroupSection:
    search, recipe = of_group(group.name, report.searches), of_group(group.name, report.recipes)
    model, evaluation = of_group(group.name, report.models), of_group(group.name, report.evaluations)
    explanations, subset_models = (
        of_group(group.name, report.explanations),
        of_group(group.name, report.subset_evaluations),
    )
    invested = report.investment.groups if report.investment else []
    color = group_color(position)
    best_id = recipe.trial_id if recipe else None
    return GroupSection(
        group=group,
        color=color,
        profiles=_profiles(report.profile.subsets, group),
        finding=group_finding(search, recipe, evaluation),
        choice=choice_finding(recipe) if recipe else "",
        warm_start=warm_start_finding(search) if search else "",
        search=search,
        recipe=recipe,
        model=model,
        evaluation=evaluation,
        baselines={baseline.name: baseline for baseline in evaluation.baselines} if evaluation else {},
        failed_trials=[trial for trial in search.trials if trial.status == "failed"] if search else [],
        history=history_plot(search, color, best_id) if search else None,
        effects=effects_plot(search, color, best_id) if search else None,
        learning=learning_curve(model, color) if model else None,
        confusion=confusion_plot(evaluation) if evaluation else None,
        reliability=reliability_plot(evaluation, color) if evaluation else None,
        calibration=calibration_finding(evaluation) if evaluation else "",
        separation=separation_finding(evaluation) if evaluation else "",
        label_shifts=shown_shifts(evaluation) if evaluation else [],
        multi_label=multi_label_finding(evaluation) if evaluation else "",
        episodes=episodes_finding(evaluation.episodes) if evaluation and evaluation.episodes else "",
        class_rows=_class_rows(evaluation) if evaluation else [],
        mistakes=frequent_mistakes(evaluation) if evaluation else [],
        explanations=explanations,
        subset_models=subset_models,
        subset_finding=subset_models_finding(subset_models) if subset_models else "",
        subset_source=subset_source_finding(model, evaluation, subset_models) if model and subset_models else "",
        heads_finding=heads_finding(evaluation) if evaluation else "",
        examples=show_examples(explanations, pictures) if explanations else {},
        source=joint_findings(model, evaluation) if model else [],
        investment=of_group(group.name, invested),
        advice=[found for found in report.advice if found.group == group.name],
    )


def _profiles(profiles: Sequence[SubsetProfile], group: Group) -> list[SubsetProfile]:
    members = [profile for profile in profiles if profile.subset in group.subsets]
    return sorted(members, key=lambda profile: group.subsets.index(profile.subset))


def _class_rows(evaluation: Evaluation) -> list[ClassRow]:
    neighbours = {found.label: found for found in evaluation.separation.neighbours} if evaluation.separation else {}
    return [
        ClassRow(label=label, scores=scores, neighbour=neighbours.get(label))
        for label, scores in zip(evaluation.classes, evaluation.by_class, strict=True)
    ]


def _regrouping_finding(report: Report) -> str:
    regrouping = report.transfer.regrouping if report.transfer else None
    return regrouping_finding(regrouping) if regrouping else ""


def _split_totals(report: Report) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for subset in report.catalogue.subsets:
        totals.update(train=subset.train, val=subset.val, test=subset.test, quarantined=subset.quarantined)
    return dict(totals)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator", "reporting"),
        # Names of subsets and classes are data, never markup.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=wording.count,
        counted=wording.counted,
        duration=wording.duration,
        interval=wording.interval,
        magnitude=wording.magnitude,
        metric_value=wording.metric_value,
        number=wording.number,
        percent=wording.percent,
        percent_interval=wording.percent_interval,
        points=wording.points,
        points_interval=wording.points_interval,
        rate=wording.rate,
        shortened=wording.shortened,
        recipe_lines=wording.recipe_lines,
        method_lines=wording.method_lines,
        verdict=verdict,
        money=money,
        part_lines=part_lines,
        beside_lines=beside_lines,
        price=price,
        balance_finding=balance_finding,
        investment_finding=investment_finding,
        verdict_title=lambda interval: VERDICT_TITLES[verdict(interval)],
    )
    environment.globals.update(
        ABSENT=wording.ABSENT,
        baseline_titles=wording.BASELINE_TITLES,
        explanation_titles=wording.EXPLANATION_TITLES,
        measure_titles=wording.MEASURE_TITLES,
        metric_titles=wording.METRIC_TITLES,
        origin_titles=wording.ORIGIN_TITLES,
        input_titles=wording.INPUT_TITLES,
        transfer_titles=TRANSFER_TITLES,
        transfer_marks=TRANSFER_MARKS,
        pretraining_finding=pretraining_finding,
        phase_rows=phase_rows,
    )
    return environment
