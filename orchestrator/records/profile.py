"""The records of what was measured of subsets, and of how far they lie from each other."""

from __future__ import annotations

from typing import Literal

from orchestrator.records.base import Record, Value


class ClassPair(Value):
    """Name two classes of a subset and the distance between their mean unit features, from 0 to 2."""

    one: str
    other: str
    distance: float


class SubsetProfile(Value):
    """Measure one subset; entropies in nats, absent measures None.

    `label_entropy` is by the chosen estimator, `effective_classes` is its exponential, `imbalance_ratio` the most
    frequent class over the least frequent one. `attribute_entropies` are those of `diversity.columns` by name, and
    `joint_attribute_entropy` that of their combinations. `attribute_counts` says how many images have which value,
    empty where it is missing, for those of the columns that have at most 50 values in all. `feature_diversity` is the
    Vendi score at equal N (rarefied), `feature_diversity_by_order` that of other orders, `raw_feature_diversity` that
    of all images, which is certain to lie in its bounds where features too long to be summed up exactly were sketched;
    None where it is exact. `h_score`, `log_evidence` (LogME) and `fisher_ratio` say how well the features part the
    classes; an infinite ratio is None, and so is the evidence of one class. Of a sketch they say what its directions
    hold: the H-score is at most that of all. H-score and ratio are 0 where all images have the same features: then both
    variances are below 1e-10. The ratio is `variance_between` classes over `variance_within` them.
    `mean_class_distance` is that of all pairs of classes, `closest_classes` the pair that is easiest to confuse, None
    with one class.
    Intervals are of 95%, for the source that the subset is a sample of; `deviations` are the standard deviations of the
    measures that have one, by name.
    """

    subset: str
    num_images: int
    num_classes: int
    label_counts: dict[str, int]
    label_entropy: float
    normalized_label_entropy: float
    effective_classes: float
    label_entropy_interval: tuple[float, float] | None = None
    imbalance_ratio: float | None = None
    attribute_entropies: dict[str, float] = {}
    attribute_counts: dict[str, dict[str, int]] = {}
    joint_attribute_entropy: float | None = None
    pixel_entropy: float | None = None
    pixel_entropy_interval: tuple[float, float] | None = None
    feature_diversity: float | None = None
    feature_diversity_interval: tuple[float, float] | None = None
    feature_diversity_by_order: dict[str, float] = {}
    raw_feature_diversity: float | None = None
    raw_feature_diversity_bounds: tuple[float, float] | None = None
    h_score: float | None = None
    log_evidence: float | None = None
    fisher_ratio: float | None = None
    variance_between: float | None = None
    variance_within: float | None = None
    mean_class_distance: float | None = None
    closest_classes: ClassPair | None = None
    deviations: dict[str, float] = {}


class Profile(Record):
    """Hold the measures of every subset, ordered by name.

    `rarefied_to` is the number of images at which feature diversity is compared. `class_means` is the path, below the
    run directory, of a table of the mean unit features of every class of every subset; None where features are not
    measured.
    """

    subsets: list[SubsetProfile]
    split: Literal["train", "all"]
    rarefied_to: int | None = None
    class_means: str | None = None
    seconds: float = 0.0

    @property
    def attributes(self) -> list[str]:
        """Name the columns whose entropies were measured, in the order of `diversity.columns`."""
        return list(self.subsets[0].attribute_entropies) if self.subsets else []


Relation = Literal[
    "same domain",
    "another domain",
    "same domain, same task",
    "same domain, another task",
    "another domain, same task",
    "another domain, another task",
]


SourceKind = Literal["pretraining", "joint training"]


class SourceRelation(Value):
    """Say how far samples lie from a source, and how many of their classes it knows."""

    distance: float
    num_classes: int
    shared_classes: int
    relation: Relation


class SourceDistance(SourceRelation):
    """Say how far one subset lies from a source."""

    subset: str


class GroupDistance(SourceRelation):
    """Say how far one group lies from a source."""

    group: str


class SourceDistances(Value):
    """Hold squared Frechet distances of unit features from a source, each between samples of `num_images` images.

    The source is what the weights were pretrained on, or what groups are trained together with; `uri` is its data,
    `classes` are those of its task, none where its labels count for nothing. `own_range` is what 95% of samples of the
    source keep within of the rest of it. `features` is the path, below the run directory, of features of some of its
    training images (`diversity.source_features`).
    """

    kind: SourceKind
    uri: str
    classes: list[str]
    features: str
    num_images: int
    own_range: float
    subsets: list[SourceDistance]


class Distances(Record):
    """Hold squared Frechet distances of unit features, each between samples of `num_images` images.

    `between` has those of `subsets` from each other, row by row; `sources` those from every source that is known.
    `features` is the path, below the run directory, of the features that all were measured on: those of some training
    images (`diversity.source_features`), with subsets in the place of labels; None where there is no source.
    """

    num_images: int
    subsets: list[str]
    between: list[list[float]]
    sources: list[SourceDistances] = []
    features: str | None = None


class GroupDistances(Record):
    """Hold the distances of groups from each source of `Distances`, in their order and at their numbers of images."""

    sources: list[list[GroupDistance]]
