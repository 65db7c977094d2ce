"""Tables for the terminal, for any width from 100 columns on."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.records import (
    Assignments,
    BackboneRanking,
    Baseline,
    Catalogue,
    Evaluation,
    Groups,
    ModelCard,
    PredictedFrequencies,
    Profile,
    Recipe,
    Report,
    SearchResult,
    StageCost,
    TaskFrequencies,
)
from orchestrator.reporting.findings import grouping_finding, verdict
from orchestrator.reporting.wording import (
    ABSENT,
    BASELINE_TITLES,
    METRIC_TITLES,
    count,
    duration,
    magnitude,
    metric_value,
    number,
    percent,
    percent_interval,
    points,
    points_interval,
    recipe_lines,
    shortened,
)

MOST_SUBSETS = 3
MOST_SUBSET_ROWS = 60
MOST_CLASS_ROWS = 60
MOST_RANKED_SUBSETS = 12
# Only names may be broken over lines: their length is the data's.
_NAMES = ("Subset", "Subsets", "Backbone", "Group", "")
_STYLES = {"better": "green", "worse": "red", "unclear": "dim", "unknown": "dim"}


def catalogue_table(catalogue: Catalogue) -> Table:
    """Show the images of every subset by split, and what was left out; very many subsets are cut short."""
    has_copies = catalogue.num_copies_left_out > 0
    table = _table("Subset", "Train", "Val", "Test", "Quarantined", *["Copies"] * has_copies, numbers_from=1)
    for found in catalogue.subsets[:MOST_SUBSET_ROWS]:
        counts = [found.train, found.val, found.test, found.quarantined, *[found.copies_left_out] * has_copies]
        table.add_row(_name(found.subset), *map(count, counts))
    _say_what_is_hidden(table, len(catalogue.subsets))
    return table


def profile_table(profile: Profile) -> Table:
    """Show the diversity of every subset; measures that no subset has are left out, very many subsets cut short."""
    attributes = profile.attributes
    has_pixels = any(found.pixel_entropy is not None for found in profile.subsets)
    has_features = any(found.feature_diversity is not None for found in profile.subsets)
    named = [*attributes, "Joint"] if len(attributes) > 1 else attributes
    # One measure of separability: the others would leave no room for names.
    optional = ["Pixel\nentropy"] * has_pixels + ["Feature\ndiversity", "LogME"] * has_features
    optional += [f"{escape(name)}\nentropy" for name in named]
    table = _table("Subset", "Images", "Classes", "Label\nentropy", "Effective\nclasses", *optional, numbers_from=1)
    for found in profile.subsets[:MOST_SUBSET_ROWS]:
        measured = [number(found.pixel_entropy)] * has_pixels
        if has_features:
            measured += [number(found.feature_diversity, 1), number(found.log_evidence)]
        measured += [number(found.attribute_entropies.get(name)) for name in attributes]
        measured += [number(found.joint_attribute_entropy)] * (len(attributes) > 1)
        table.add_row(
            _name(found.subset),
            count(found.num_images),
            count(found.num_classes),
            number(found.label_entropy),
            number(found.effective_classes, 1),
            *measured,
        )
    _say_what_is_hidden(table, len(profile.subsets))
    return table


def ranking_table(ranking: BackboneRanking) -> Table:
    """Show how candidate backbones rank on every subset and over all, beside what each costs."""
    titles = ("Subset", "Backbone", "Rank", "First\nin halves", "LogME", "H-score", "Params", "FLOPs", "Images/s")
    table = _table(*titles, numbers_from=2)
    subsets = [found.subset for found in ranking.candidates[0].subsets]
    for place, subset in enumerate(subsets[:MOST_RANKED_SUBSETS]):
        ranked = sorted(ranking.candidates, key=lambda candidate: candidate.subsets[place].rank)
        for position, candidate in enumerate(ranked):
            found = candidate.subsets[place]
            table.add_row(
                _name("" if position else subset),
                _name(candidate.title),
                number(found.rank, 1),
                f"{found.win_share:.0%}",
                number(found.log_evidence, 3),
                number(found.h_score),
            )
        table.add_section()
    _say_what_is_hidden(table, len(subsets), most=MOST_RANKED_SUBSETS)
    table.add_section()
    for position, candidate in enumerate(ranking.candidates):
        table.add_row(
            _name("" if position else "all, mean"),
            _name(candidate.title),
            number(candidate.mean_rank),
            f"{candidate.win_share:.0%}",
            "",
            "",
            magnitude(candidate.parameters),
            magnitude(candidate.forward_flops),
            number(candidate.images_per_second, 0),
        )
    table.caption = Text(f"Best fit for its cost: {ranking.chosen}; {ranking.reason}.")
    return table


def groups_table(groups: Groups, profile: Profile) -> Table:
    """Show each group's size, subsets, and range of the first grouping measure."""
    classes = {found.subset: set(found.label_counts) for found in profile.subsets}
    measure = groups.measures[0].replace("_", " ").capitalize()
    table = _table("Group", "Subsets", "", "Images", "Classes", measure, numbers_from=3)
    for group in groups.groups:
        united = set().union(*(classes.get(name, set()) for name in group.subsets))
        low, high = group.score_range
        table.add_row(
            _name(group.name),
            count(len(group.subsets)),
            _name(shortened(group.subsets, most=MOST_SUBSETS)),
            count(group.num_images),
            count(len(united)),
            f"{low:.2f} to {high:.2f}",
        )
    table.caption = grouping_finding(groups) or None
    return table


def assignments_table(found: Assignments) -> Table:
    """Show the group that each later subset falls into, how surely, and what the group has for it."""
    measures = list(found.assignments[0].values) if found.assignments else []
    titles = [measure.replace("_", "\n").capitalize() for measure in measures]
    table = _table("Subset", "Images", *titles, "Group", "Certainty", "Recipe", "Model", numbers_from=1)
    for column in table.columns[-2:]:
        column.justify = "left"
    for subset in found.assignments:
        table.add_row(
            _name(subset.subset),
            count(subset.num_images),
            *(number(subset.values[measure]) for measure in measures),
            _name(subset.group),
            percent(subset.certainty),
            "\n".join(recipe_lines(subset.recipe)) if subset.recipe else ABSENT,
            subset.model or ABSENT,
        )
    return table


def frequencies_table(found: PredictedFrequencies | TaskFrequencies) -> Table:
    """Show how frequent classes are among predicted images by estimate, beside validation; the most changed first."""
    table = _table(
        "Class" if isinstance(found, PredictedFrequencies) else f"Class of {found.task}",
        "Validation",
        "Estimated [95% interval, of all classes at once]",
        numbers_from=1,
    )
    ordered = sorted(found.frequencies, key=lambda frequency: -abs(frequency.estimated - frequency.source))
    for frequency in ordered[:MOST_CLASS_ROWS]:
        estimated = f"{percent(frequency.estimated)} {percent_interval(frequency.interval)}"
        table.add_row(_name(frequency.label), percent(frequency.source), estimated)
    if len(ordered) > MOST_CLASS_ROWS:
        table.add_row(f"and {len(ordered) - MOST_CLASS_ROWS:,} more")
    if not found.is_converged:
        table.caption = "The estimate did not converge: it is not the likeliest."
    return table


def search_table(searches: Sequence[SearchResult], recipes: Sequence[Recipe]) -> Table:
    """Show what each group's search tried, found and took."""
    found = {recipe.group: recipe for recipe in recipes}
    metric = METRIC_TITLES[searches[0].metric] if searches else "value"
    table = _table("Group", "Best recipe", f"Best {metric}", "Trials", "Failed", "Trial time", numbers_from=2)
    for search in searches:
        recipe = found.get(search.group)
        table.add_row(
            _name(search.group),
            ", ".join(recipe_lines(recipe.hyperparameters)) if recipe else Text("none found", "red"),
            metric_value(recipe.value if recipe else None, search.metric),
            count(len(search.trials)),
            count(sum(trial.status == "failed" for trial in search.trials)),
            duration(sum(trial.seconds for trial in search.trials)),
        )
    return table


def models_table(models: Sequence[ModelCard]) -> Table:
    """Show each trained model: classes, the epoch that was kept, its validation accuracy, and what it took."""
    table = _table("Group", "Classes", "Workers", "Best epoch", "Validation accuracy", "Time", numbers_from=1)
    for model in models:
        kept = next((entry for entry in model.history if entry.epoch == model.best_epoch), None)
        table.add_row(
            _name(model.group),
            count(len(model.classes)),
            count(model.num_workers),
            f"{model.best_epoch} of {model.hyperparameters.epochs}",
            percent(kept.val_accuracy if kept else None),
            duration(model.seconds),
        )
    return table


def evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    """Show each group's test scores."""
    scores = ("Balanced\naccuracy", "Macro\nF1", "Macro\nAUC", "Cross-\nentropy", "Calibration\nerror")
    table = _table("Group", "Test\nimages", "Accuracy\n[95% interval]", *scores, numbers_from=1)
    for found in evaluations:
        table.add_row(
            _name(found.group),
            count(found.num_images),
            f"{percent(found.accuracy)} {percent_interval(found.accuracy_interval)}".strip(),
            percent(found.balanced_accuracy),
            number(found.macro_f1, 3),
            number(found.macro_auc, 3),
            number(found.cross_entropy, 3),
            percent(found.expected_calibration_error),
        )
    return table


def summary_table(report: Report) -> Table:
    """Show what the experiment found: per group the best recipe, its test accuracy, and gains over baselines."""
    recipes = {recipe.group: recipe for recipe in report.recipes}
    evaluations = {found.group: found for found in report.evaluations}
    table = _table("Group", "Subsets", "Best recipe", "Test accuracy", "Baseline    accuracy, gain [95% interval]")
    for group in report.groups.groups:
        recipe, found = recipes.get(group.name), evaluations.get(group.name)
        table.add_row(
            _name(group.name),
            _name(shortened(group.subsets, most=MOST_SUBSETS, separator="\n")),
            "\n".join(recipe_lines(recipe.hyperparameters)) if recipe else Text("none found", "red"),
            f"{percent(found.accuracy)}\n{percent_interval(found.accuracy_interval)}" if found else ABSENT,
            Text("\n").join(map(_baseline_line, found.baselines)) if found else ABSENT,
        )
    return table


def costs_table(costs: Sequence[StageCost]) -> Table:
    """Show what each stage took, and the whole."""
    table = _table("Stage", "Time", "Trials", numbers_from=1)
    for cost in costs:
        table.add_row(cost.stage, duration(cost.seconds), count(cost.trials) if cost.trials else "")
    trials = sum(cost.trials for cost in costs)
    table.add_section()
    table.add_row("all", duration(sum(cost.seconds for cost in costs)), count(trials) if trials else "")
    return table


def _say_what_is_hidden(table: Table, num_subsets: int, *, most: int = MOST_SUBSET_ROWS) -> None:
    if num_subsets > most:
        table.add_row(f"and {num_subsets - most:,} more")


def _table(*titles: str, numbers_from: int | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 2))
    for position, title in enumerate(titles):
        is_number = numbers_from is not None and position >= numbers_from
        table.add_column(title, justify="right" if is_number else "left", overflow="fold", no_wrap=title not in _NAMES)
    return table


def _name(name: str) -> Text:
    # Names are data: a bracket in one begins no markup.
    return Text(name)


def _baseline_line(baseline: Baseline) -> Text:
    title = f"{BASELINE_TITLES[baseline.name]:<12} "
    if baseline.error:
        return Text.assemble(title, ("failed", "red"))
    gain = f"{points(baseline.accuracy_gain)} {points_interval(baseline.accuracy_gain_interval)}"
    style = _STYLES[verdict(baseline.accuracy_gain_interval)]
    return Text.assemble(title, f"{percent(baseline.accuracy):>6} ", (gain, style))
