"""The record of all samples."""

from __future__ import annotations

from orchestrator.config import Deduplicate
from orchestrator.records.base import Record, Value


class SubsetCount(Value):
    """Count the usable images of one subset by split, its quarantined rows, and its copies that were left out."""

    subset: str
    train: int
    val: int
    test: int
    quarantined: int
    copies_left_out: int = 0


class CopyCount(Value):
    """Count the pictures that several of the usable images show, as the data stands.

    `copies` are the images beyond the first of each picture, `copies_within_subsets` those beyond the first of it in
    their own subset. Of the pictures, `pictures_across_splits` lie in more than one split, and
    `pictures_of_several_labels` have more than one label.
    """

    copies: int
    copies_within_subsets: int
    pictures_across_splits: int
    pictures_of_several_labels: int


class Catalogue(Record):
    """Describe the table of samples and the cache of their decoded pixels.

    `table` and `quarantine` are paths below the run directory. `pixels` is the cache's directory below the run
    directory, None without one; it holds `num_cached` uint8 images of image_size x image_size x 3.
    `exact_copies` counts by decoded pixels, None where no image was opened; `near_copies` by looks, exact copies among
    them, None where they were not looked for.
    `data_fingerprint` is a digest of every usable sample's identity, subset, label, split and content, and of what it
    is kept together with; it is independent of how the samples are spread over files. `multi_label` says that samples
    have any number of labels; `labels` are then the single ones.
    """

    table: str
    quarantine: str
    pixels: str | None
    image_size: int
    num_images: int
    num_quarantined: int
    num_copies_left_out: int = 0
    num_cached: int
    quarantine_reasons: dict[str, int]
    labels: list[str]
    multi_label: bool = False
    subsets: list[SubsetCount]
    deduplicate: Deduplicate = "none"
    exact_copies: CopyCount | None = None
    near_copies: CopyCount | None = None
    data_fingerprint: str
    seconds: float
