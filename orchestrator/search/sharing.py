"""Decides whether a subset is large enough for a model of its own."""

from __future__ import annotations


def reason_to_share(
    *, num_subsets: int, num_train: int, num_validation: int, num_classes: int, min_images: int
) -> str | None:
    """Say why a subset keeps the model of its group of `num_subsets`; None where it can have one of its own.

    Counted are its images for training and validation, and the classes among the former. It needs both, two classes,
    and for training `min_images`, below which its place among the groups is unsure already. A source adds nothing to
    these: its images are drawn in proportion to the subset's own, but for prototypes alone, none of them chooses an
    epoch, and a model that knows one class is right on every image of the subset, whatever it has learnt to reject.
    """
    if num_subsets == 1:
        return "it is its group's only subset"
    if num_train < max(1, min_images):
        return f"it has {num_train} training images, below grouping.min_images = {min_images}"
    if num_validation == 0:
        return "it has no validation images"
    if num_classes < 2:
        return "its training images are of one class"
    return None
