"""Measures every subset: labels by counting columns, images in parallel with Ray Data, merged in block order.

What opening a block's images gave is kept: the next profile opens only those of blocks that are new or have changed. A
task measures a run of blocks and merges them: the features of a subset that has more than d + 1 images in it are summed
up there. The driver adds up sums, and sums up what subsets with fewer images in each run have in all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from orchestrator import storage
from orchestrator.cluster.column_counts import ROW_COLUMNS, count_attributes, count_columns
from orchestrator.cluster.passes import PassPlan, rehearsed_seconds, run_pass
from orchestrator.cluster.progress import Progress
from orchestrator.cluster.resources import driver_memory
from orchestrator.cluster.workers import Workbench
from orchestrator.config import MOST_EXACT_DIMENSIONS, DataConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.decoding import luminance_histogram
from orchestrator.data.manifests import Manifest
from orchestrator.data.multi_label import NO_LABEL
from orchestrator.data.reader import PixelReader, blocks_of, read_fragments
from orchestrator.data.sampling import lowest_hashes
from orchestrator.data.text_columns import LABEL, SUBSET
from orchestrator.diversity.category_counts import count_rows
from orchestrator.diversity.entropy import histogram_entropy
from orchestrator.diversity.features import held_bytes
from orchestrator.diversity.profiling import ProfileSettings, class_means, finish
from orchestrator.diversity.statistics import ImageMeasures, PartialProfile, merge_partials
from orchestrator.diversity.subset_counts import SubsetCounts
from orchestrator.errors import ResourceError
from orchestrator.finetune.classifier import extract_features
from orchestrator.records import Profile

PROFILE_VERSION = 7
MEASURES_VERSION = 2
_MAX_ROWS = 512
# A partial profile takes as much as the features of its run: 70 MB of 2,048 dimensions.
_MOST_BLOCKS_A_RUN = 16
# Fewer runs would leave large clusters without work.
_LEAST_RUNS = 64
# Of more images the activations leave the cache of a processor: 64 took a fifth longer (MobileNetV2 0.35 at 96 px).
_FEATURE_BATCH = 32
# Blocks of all rows are in the driver at once: they hold what is measured by, and what images are found by.
_BLOCK_COLUMNS = [SUBSET, LABEL, "id", "content", "file", "fragment", "row", "pixel_row"]
_IMAGE_MEASURES = ("pixel_entropy", "feature_diversity")


@dataclass(frozen=True, kw_only=True)
class ProfilePlan:
    """Say what is measured.

    Features of more than `sketch_above` dimensions are summed up in a sketch. `partials_uri` is a directory that is
    this profile's alone, for what it measures of images; None keeps nothing.
    `class_means_uri` receives the mean features of classes, where features are measured; None writes none.
    """

    settings: ProfileSettings
    sample_per_subset: int | None
    stall_timeout_s: float
    sketch_above: int = MOST_EXACT_DIMENSIONS
    partials_uri: str | None = None
    class_means_uri: str | None = None


def make_profile(
    samples: SampleTable,
    reader: PixelReader,
    workbench: Workbench | None,
    plan: ProfilePlan,
    *,
    fingerprint: str,
    say: Callable[[str], None] = lambda line: None,
) -> Profile:
    """Measure the diversity of every subset; images are opened only for measures that need them.

    `workbench` is needed for feature diversity alone; `say` receives lines about the progress. Of what earlier
    profiles kept, only what this one used stays.
    Raises ResourceError before any image is opened when the features of so many subsets would not fit the driver.
    """
    started = time.perf_counter()
    positions = samples.where(split=None if plan.settings.split == "all" else plan.settings.split)
    chosen = pa.array(sampled(samples.table, positions, plan))
    labels = count_rows(samples.occurrences(np.asarray(chosen)))
    plan = _for_labels(plan, samples, labels)
    if workbench is not None and "feature_diversity" in plan.settings.measures:
        counted, dimensions = SubsetCounts.of(labels, [LABEL]), workbench.backbone.feature_dim
        require_room(counted, dimensions, driver_memory(), sketch_above=plan.sketch_above)
    merged = merge_partials(_partials(samples.table, chosen, reader, workbench, plan, say))
    if plan.class_means_uri is not None and "feature_diversity" in plan.settings.measures:
        storage.write_table(plan.class_means_uri, class_means(merged))
    profile = finish(
        labels,
        merged,
        plan.settings,
        attributes=_attributes(samples.table, chosen, reader, plan) if plan.settings.attributes else None,
        num_images=_sizes(samples.table, chosen) if samples.multi_label else None,
    )
    return profile.model_copy(update={"fingerprint": fingerprint, "seconds": time.perf_counter() - started})


def _for_labels(plan: ProfilePlan, samples: SampleTable, labels: pa.Table) -> ProfilePlan:
    """Give the plan for what labels there are: images without any make one more where they have any number."""
    if not samples.multi_label:
        return plan
    has_unlabelled = pc.any(pc.equal(labels.column(LABEL).cast(pa.string()), NO_LABEL)).as_py()
    num_labels = plan.settings.num_labels + int(bool(has_unlabelled))
    settings = replace(plan.settings, num_labels=num_labels, multi_label=True)
    return replace(plan, settings=settings, class_means_uri=None)


def _sizes(table: pa.Table, chosen: pa.Array) -> dict[str, int]:
    """Count the images of every subset."""
    counted = table.column(SUBSET).take(chosen).value_counts()
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def make_label_profile(data: DataConfig, plan: ProfilePlan) -> tuple[Profile, Counter[str]]:
    """Measure labels and attributes straight from the shards, of all splits; give the profile, and bad rows by reason.

    No image is opened, and no catalogue is needed: rows that only opening their image would tell to be bad count. The
    size of the label space is that of the labels that occur. Raises what `count_columns` raises.
    """
    started = time.perf_counter()
    counts = count_columns(data, plan.settings.attributes, stall_timeout_s=plan.stall_timeout_s)
    num_labels = len(pc.unique(counts.labels.column(LABEL)))
    settings = replace(plan.settings, num_labels=num_labels, measures=("label_entropy",), split="all")
    profile = finish(counts.labels, {}, settings, attributes=counts.attributes)
    return profile.model_copy(update={"seconds": time.perf_counter() - started}), counts.bad_rows


def require_room(
    counted: SubsetCounts, dimensions: int, memory: int, *, sketch_above: int = MOST_EXACT_DIMENSIONS
) -> None:
    """Prove that the driver can hold the features of every subset in half of its node's `memory` in bytes.

    Raises ResourceError.
    """
    wanted = float(held_bytes(counted.rows.totals, counted.rows.sizes, dimensions, sketch_above).sum())
    if wanted > memory / 2:
        raise ResourceError(
            f"features of {len(counted.subsets):,} subsets, of {dimensions:,} dimensions each, must fit half of the "
            f"driver's memory: wanted {wanted / 2**30:.1f} GiB",
            value=f"{memory / 2 / 2**30:.1f} GiB",
            remedy="Set or lower diversity.sample_per_subset or diversity.sketch_above, or take fewer subsets or a "
            "backbone of fewer features.",
        )


def _attributes(table: pa.Table, chosen: pa.Array, reader: PixelReader, plan: ProfilePlan) -> pa.Table:
    return count_attributes(
        table.select(ROW_COLUMNS).take(chosen),
        read_fragments(reader.fragments_uri),
        reader.data,
        plan.settings.attributes,
        stall_timeout_s=plan.stall_timeout_s,
    )


def _partials(
    table: pa.Table,
    chosen: pa.Array,
    reader: PixelReader,
    workbench: Workbench | None,
    plan: ProfilePlan,
    say: Callable[[str], None],
) -> Iterator[PartialProfile]:
    """Measure images block by block; nothing is opened or started where only labels are measured."""
    if not set(_IMAGE_MEASURES) & set(plan.settings.measures):
        return
    blocks = [
        block.append_column("block", pa.array([number] * block.num_rows))
        for number, block in enumerate(blocks_of(table.select(_BLOCK_COLUMNS).take(chosen), _MAX_ROWS))
    ]
    runs = runs_of(blocks)
    measure = _Measure(
        tuple(plan.settings.measures),
        reader,
        workbench,
        plan.partials_uri,
        plan.sketch_above,
        plan.settings.multi_label,
    )
    run = PassPlan(
        what="the diversity pass",
        stall_timeout_s=plan.stall_timeout_s,
        expected_s=lambda: rehearsed_seconds(measure.missing(blocks), measure.measure_images),
    )
    progress = Progress("profile", say=say, total=len(chosen))
    partials = run_pass(runs, measure, run)
    yield from progress.follow(partials, lambda partial: (runs[partial.key].num_rows, 0))
    if plan.partials_uri is not None:
        _forget(plan.partials_uri, keep={measure.name_of(block) for block in blocks})


def runs_of(blocks: Sequence[pa.Table]) -> list[pa.Table]:
    """Put consecutive blocks together, as many as their number alone decides, and number them by the column `key`."""
    length = min(_MOST_BLOCKS_A_RUN, max(1, len(blocks) // _LEAST_RUNS))
    runs = [pa.concat_tables(blocks[start : start + length]) for start in range(0, len(blocks), length)]
    return [run.append_column("key", pa.array([key] * run.num_rows)) for key, run in enumerate(runs)]


def sampled(table: pa.Table, positions: NDArray[np.int64], plan: ProfilePlan) -> NDArray[np.int64]:
    """Keep `sample_per_subset` positions of each subset: those whose identity hashes lowest, a uniform sample."""
    if plan.sample_per_subset is None:
        return positions
    return lowest_hashes(table, positions, plan.sample_per_subset, seed=plan.settings.seed)


@dataclass(frozen=True)
class _Measure:
    """Measure a run of blocks of catalogue rows in a worker, and merge them in their order."""

    measures: tuple[str, ...]
    reader: PixelReader
    workbench: Workbench | None
    partials_uri: str | None
    sketch_above: int
    multi_label: bool

    def __call__(self, run: pa.Table) -> PartialProfile:
        merged = PartialProfile(key=run.column("key")[0].as_py(), sketch_above=self.sketch_above)
        numbers = np.asarray(run.column("block"))
        borders = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), run.num_rows]
        for start, end in pairwise(borders):
            merged.merge(self._measured(run.slice(start, end - start), merged.key))
        return merged

    def _measured(self, block: pa.Table, key: int) -> PartialProfile:
        subsets, labels, ids = (block.column(name).to_pylist() for name in (SUBSET, LABEL, "id"))
        if self.multi_label:
            # Features are summed up by class, and an image has none: all are of one.
            labels = [""] * len(labels)
        return PartialProfile.of_block(
            key=key,
            subsets=subsets,
            labels=labels,
            ids=ids,
            images=self._find_or_measure(block),
            sketch_above=self.sketch_above,
        )

    def missing(self, blocks: Sequence[pa.Table]) -> list[pa.Table]:
        """Give the blocks of which nothing is kept."""
        if self.partials_uri is None:
            return list(blocks)
        kept = set(storage.list_names(self.partials_uri))
        return [block for block in blocks if f"{self.name_of(block)}.json" not in kept]

    def name_of(self, block: pa.Table) -> str | None:
        """Name what is measured of a block's images by all that it depends on; None where no image is opened."""
        contents = block.column("content").to_pylist()
        measures = sorted(set(self.measures) & set(_IMAGE_MEASURES))
        if not measures or not all(contents):
            return None
        features: object = None
        if "feature_diversity" in measures and self.workbench is not None:
            backbone = self.workbench.backbone
            features = [backbone.digest, backbone.spec.model_dump(), self.reader.image_size, self.reader.resize]
        return storage.digest(MEASURES_VERSION, contents, measures, features)

    def _find_or_measure(self, block: pa.Table) -> ImageMeasures:
        name = None if self.partials_uri is None else self.name_of(block)
        if self.partials_uri is None or name is None:
            return self.measure_images(block)
        found = _find(self.partials_uri, name)
        if found is None:
            found = self.measure_images(block)
            _keep(self.partials_uri, name, found)
        return found

    def measure_images(self, block: pa.Table) -> ImageMeasures:
        """Open the images of a block and measure them, whatever is kept."""
        return ImageMeasures(
            pixel_entropies=self._pixel_entropies(block) if "pixel_entropy" in self.measures else None,
            features=self._features(block) if "feature_diversity" in self.measures else None,
        )

    def _pixel_entropies(self, block: pa.Table) -> NDArray[np.float64]:
        contents = self.reader.read_contents(block)
        return histogram_entropy(np.stack([luminance_histogram(content) for content in contents]))

    def _features(self, block: pa.Table) -> NDArray[np.float32]:
        assert self.workbench is not None
        return extract_features(
            self.workbench.feature_extractor(),
            self.workbench.backbone.spec,
            self.reader.read(block),
            device="cpu",
            batch_size=_FEATURE_BATCH,
        )


def _find(uri: str, name: str) -> ImageMeasures | None:
    """Give what was kept under a name; None when it is missing or damaged."""
    described = storage.find_bytes(storage.join(uri, f"{name}.json"))
    manifest = None if described is None else Manifest.parse(described)
    content = None if manifest is None else storage.find_bytes(storage.join(uri, f"{name}.npz"))
    if manifest is None or content is None or not manifest.describes(content):
        return None
    return ImageMeasures.from_bytes(content)


def _keep(uri: str, name: str, images: ImageMeasures) -> None:
    content = images.to_bytes()
    storage.write_bytes(storage.join(uri, f"{name}.npz"), content)
    storage.write_bytes(storage.join(uri, f"{name}.json"), Manifest.of(content).to_json())


def _forget(uri: str, keep: Collection[str | None]) -> None:
    """Remove what was kept under other names."""
    for file in storage.list_names(uri):
        if file.partition(".")[0] not in keep:
            storage.delete(storage.join(uri, file))
