"""The recipe library: what finished searches leave for later ones, and what a new search begins with."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from orchestrator import storage
from orchestrator.errors import RecordError, StorageError
from orchestrator.records import Group, Recipe, SearchResult, SubsetProfile
from orchestrator.search.library import GroupProfile, LibraryEntry, nearest
from orchestrator.stages.context import GroupContext

_MEASURES = ("pixel_entropy", "feature_diversity")


def warm_starts(context: GroupContext, group: Group) -> list[LibraryEntry]:
    """Give the entries whose recipes a group's search begins with: of the most alike groups of other experiments.

    An entry that cannot be read is left out, and said.
    """
    search = context.config.search
    if not search.warm_start:
        return []
    entries = [
        entry
        for entry in _read(context)
        # A search that is run again would begin with its own result.
        if entry.experiment != context.config.name and entry.metric == search.metric
    ]
    found = nearest(_profile(context, group), entries)
    for entry in found:
        context.say(f"search {group.name}: begins with the recipe of {entry.experiment}, group {entry.group}")
    return found


def add_entry(context: GroupContext, group: Group, result: SearchResult, recipe: Recipe) -> None:
    """Put a finished search into the library, in place of an earlier one of the same experiment and group.

    A library that cannot be written costs later searches a warm start, and is said.
    """
    # A score of the race is the better one; what another group's trial reached says nothing of this one.
    value = recipe.value if recipe.score is None else recipe.score
    if value is None or not math.isfinite(value):
        return
    entry = LibraryEntry.of_search(
        context.config.name,
        result,
        recipe.hyperparameters,
        value,
        profile=_profile(context, group),
        weights_digest=context.backbone.digest,
        created=time.time(),
    )
    name = f"{storage.digest(context.config.name, group.name)}.json"
    try:
        storage.write_bytes(storage.join(_uri(context), name), entry.to_json().encode())
    except StorageError as error:
        context.say(f"search {group.name}: the recipe library could not be written: {error}")


def _read(context: GroupContext) -> list[LibraryEntry]:
    uri = _uri(context)
    try:
        files = storage.list_files(uri) if storage.exists(uri) else []
    except StorageError as error:
        context.say(f"search: the recipe library could not be read: {error}")
        return []
    entries = []
    for file in files:
        if not file.base_name.endswith(".json"):
            continue
        place = storage.join(uri, file.base_name)
        try:
            entries.append(LibraryEntry.from_json(storage.read_bytes(place), source=place))
        except (RecordError, StorageError) as error:
            context.say(f"search: an entry of the recipe library is left out: {error}")
    return entries


def _uri(context: GroupContext) -> str:
    config = context.config
    return config.search.library or storage.join(config.storage_path, "library")


def _profile(context: GroupContext, group: Group) -> GroupProfile:
    spec = context.backbone.spec
    members = [found for found in context.profile.subsets if found.subset in group.subsets]
    means = {name: _mean(members, name) for name in _MEASURES}
    classes, entropy = context.classes(group), context.training_entropy(group)
    known = {name: value for name, value in means.items() if value is not None}
    normalised = entropy / math.log(len(classes)) if len(classes) > 1 else 0.0
    return GroupProfile(
        measures={"label_entropy": entropy, "normalized_label_entropy": normalised, **known},
        num_classes=len(classes),
        num_images=max(1, context.rows(group, "train").num_rows),
        backbone=spec.name,
        num_stages=context.backbone.num_stages,
        image_size=spec.image_size,
    )


def _mean(members: Sequence[SubsetProfile], measure: str) -> float | None:
    """Average a measure over the images of a group's subsets; None where no subset has it."""
    found = [(getattr(member, measure), member.num_images) for member in members]
    known = [(value, count) for value, count in found if value is not None and count]
    images = sum(count for _, count in known)
    return sum(value * count for value, count in known) / images if images else None
