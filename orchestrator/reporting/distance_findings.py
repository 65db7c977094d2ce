"""Says in words, by rule from the numbers, how far the data lies from what it is transferred from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.records import GroupDistance, Report, SourceDistances, SourceKind, SourceRelation
from orchestrator.reporting.wording import counted, enumerated

SOURCE_TITLES: dict[SourceKind, str] = {
    "pretraining": "the source task of the weights",
    "joint training": "the source that groups are trained together with",
}


@dataclass(frozen=True, kw_only=True)
class SourceSection:
    """Gather what the report shows of one source; `rows` are of its groups, then of its subsets, by name."""

    title: str
    finding: str
    rows: list[tuple[str, str, SourceRelation]]


def source_sections(report: Report) -> list[SourceSection]:
    """Give a section for each source that the run knows and that anything could be compared with."""
    if report.distances is None:
        return []
    found = []
    for place, source in enumerate(report.distances.sources):
        groups = report.group_distances.sources[place] if report.group_distances else []
        if not source.subsets and not groups:
            continue
        rows: list[tuple[str, str, SourceRelation]] = [("group", group.group, group) for group in groups]
        rows += [("subset", subset.subset, subset) for subset in source.subsets]
        title = SOURCE_TITLES[source.kind]
        found.append(SourceSection(title=title, finding=source_finding(source, groups), rows=rows))
    return found


def source_finding(source: SourceDistances, groups: Sequence[GroupDistance]) -> str:
    """Say what groups and subsets have in common with a source, and by which rule."""
    tally = Counter(found.relation for found in source.subsets)
    relations = enumerated([f"{name} ({counted(count, 'subset')})" for name, count in tally.most_common()])
    of_groups = "; ".join(f"{group.group}: {group.relation}" for group in groups)
    compared = " ".join(f"{said}." for said in (relations, of_groups) if said)
    task = (
        "The task is the same where the source has at least half of the classes."
        if source.classes
        else "Its labels are not learnt: it has no task to compare."
    )
    return (
        f"Compared with {SOURCE_TITLES[source.kind]} ({source.uri}): {compared} Distances are squared Frechet "
        f"distances of unit features, each between {counted(source.num_images, 'image')}. Samples of the source keep "
        f"within {source.own_range:.3f} of the rest of it in 95% of draws: what lies beyond is another domain. {task}"
    )
