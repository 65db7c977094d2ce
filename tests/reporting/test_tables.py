import pytest
from report_examples import a_label_shift, a_ranking, a_report, a_search
from rich.console import Console
from rich.table import Table

from orchestrator.records import PredictedFrequencies, Report
from orchestrator.reporting import tables


def printed(table: Table, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def all_tables(report: Report) -> dict[str, Table]:
    return {
        "catalogue": tables.catalogue_table(report.catalogue),
        "profile": tables.profile_table(report.profile),
        "groups": tables.groups_table(report.groups, report.profile),
        "search": tables.search_table(report.searches, report.recipes),
        "models": tables.models_table(report.models),
        "evaluation": tables.evaluation_table(report.evaluations),
        "summary": tables.summary_table(report),
        "costs": tables.costs_table(report.costs),
        "ranking": tables.ranking_table(report.rankings[0]),
    }


NAMES = ("catalogue", "profile", "groups", "search", "models", "evaluation", "summary", "costs", "ranking")


@pytest.mark.parametrize("name", NAMES)
def test_every_table_fits_100_columns_without_losing_a_letter(report: Report, name: str) -> None:
    text = printed(all_tables(report)[name])
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_the_summary_shows_recipe_accuracy_and_baselines(report: Report) -> None:
    lines = printed(tables.summary_table(report)).splitlines()
    low = next(line for line in lines if line.lstrip().startswith("low"))
    assert "depth 3" in low and "fixed rule" in low and "+21.3 [+17.0, +25.6]" in low
    assert "and 5 more" in "".join(lines)


def test_the_summary_of_an_unfinished_experiment_has_dashes(report: Report) -> None:
    partial = report.model_copy(update={"recipes": [], "evaluations": []})
    text = printed(tables.summary_table(partial))
    assert text.count("none found") == 3
    assert tables.ABSENT in text


def test_brackets_in_names_are_no_markup(report: Report) -> None:
    text = report.to_json().replace("low-harbour-00", "[red]low[/]")
    changed = Report.from_json(text, source="test")
    for name in ("catalogue", "profile", "groups", "summary"):
        assert "[red]low[/]" in printed(all_tables(changed)[name])


def test_long_names_are_broken_not_cut(report: Report) -> None:
    long = "a" * 70 + "z"
    changed = Report.from_json(report.to_json().replace("low-harbour-00", long), source="test")
    for name in ("catalogue", "profile", "groups", "summary"):
        text = printed(all_tables(changed)[name])
        assert max(map(len, text.splitlines())) <= 100
        assert text.count("a" * 10) >= 1 and "z" in text


def test_measures_that_were_not_taken_get_no_column(report: Report) -> None:
    bare = [p.model_copy(update={"pixel_entropy": None, "feature_diversity": None}) for p in report.profile.subsets]
    text = printed(tables.profile_table(report.profile.model_copy(update={"subsets": bare})))
    assert "Pixel" not in text and "Feature" not in text


def test_very_many_subsets_are_cut_short_in_the_catalogue() -> None:
    report = a_report(subsets_per_group=40)
    assert "and 60 more" in printed(tables.catalogue_table(report.catalogue))


def test_copies_have_a_column_only_where_some_were_left_out(report: Report) -> None:
    assert "Copies" not in printed(tables.catalogue_table(report.catalogue))
    subsets = [found.model_copy(update={"copies_left_out": 777}) for found in report.catalogue.subsets]
    changed = report.catalogue.model_copy(update={"subsets": subsets, "num_copies_left_out": 777 * len(subsets)})
    assert printed(tables.catalogue_table(changed)).count("777") == len(subsets)


def test_very_many_subsets_are_cut_short_in_the_profile() -> None:
    report = a_report(subsets_per_group=40)
    assert "and 60 more" in printed(tables.profile_table(report.profile))


def test_attributes_get_a_column_each_and_one_together(report: Report) -> None:
    measured = {"attribute_entropies": {"[red]weather": 0.81, "camera": 1.25}, "joint_attribute_entropy": 1.93}
    subsets = [found.model_copy(update=measured) for found in report.profile.subsets]
    text = printed(tables.profile_table(report.profile.model_copy(update={"subsets": subsets})), width=140)
    for word in ("[red]weather", "camera", "Joint", "0.81", "1.25", "1.93"):
        assert word in text


def test_failed_trials_are_counted(report: Report) -> None:
    search = a_search("low", num_trials=4, failed=(0, 1, 2, 3))
    text = printed(tables.search_table([search], []))
    assert "none found" in text and " 4 " in text


def test_costs_add_up(report: Report) -> None:
    assert "7 min 26 s" in printed(tables.costs_table(report.costs)).splitlines()[-2]


def test_a_ranking_shows_every_candidate_for_each_subset_and_its_cost_over_all() -> None:
    lines = printed(tables.ranking_table(a_ranking())).splitlines()
    assert sum("mobilenet_v2" in line and "%" in line for line in lines) == 3
    overall = next(line for line in lines if line.strip().startswith("all, mean"))
    for shown in ("resnet18", "1.00", "75%", "11.2 M", "3.63 G", "32"):
        assert shown in overall
    assert "96% fewer FLOPs" in " ".join(" ".join(lines).split())


def test_a_ranking_of_very_many_subsets_is_cut_short() -> None:
    text = printed(tables.ranking_table(a_ranking([f"camera {number}" for number in range(40)])))
    assert "camera 11" in text and "camera 12" not in text and "and 28 more" in text


def test_estimated_frequencies_are_shown_beside_validations_the_most_changed_first() -> None:
    found = PredictedFrequencies(
        method="em",
        weights_digest="abc",
        num_images=300,
        num_validation=212,
        is_converged=True,
        frequencies=a_label_shift([]).whole.frequencies[::-1],
    )
    lines = [" ".join(line.split()) for line in printed(tables.frequencies_table(found)).splitlines()]
    assert [line for line in lines if "%" in line and line[0].islower()] == [
        "dog 30.0% 60.0% [52.0, 67.0]",
        "horse 40.0% 25.0% [18.0, 33.0]",
        "fox 30.0% 15.0% [10.0, 21.0]",
    ]
