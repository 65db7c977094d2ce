"""Says in words what was done for groups with few images a class, and what episodes say of features."""

from __future__ import annotations

from orchestrator.records import EpisodeScores, FewShot
from orchestrator.reporting.wording import counted, enumerated, percent, points, points_interval

_KEYS = {
    "folds": "folds",
    "freeze_depth": "freeze depth",
    "head": "the head",
    "learning_rate": "the rate",
    "weight_decay": "weight decay",
}


def few_shot_finding(few_shot: FewShot) -> str:
    """Say, as a part of a sentence, why a group has the defaults for few images, and for which keys."""
    images = f"{few_shot.images_per_class:g} training images in the median class"
    said = f"{images}, below search.few_shot_threshold = {few_shot.threshold}"
    if not few_shot.changed:
        return f"{said}, and the experiment file names every key that would have another default"
    return f"{said}: few-shot defaults for {enumerated([_KEYS[key] for key in few_shot.changed])}"


def episodes_finding(episodes: EpisodeScores) -> str:
    """Say what the tuned network's features are worth with few images a class, beside the pretrained ones."""
    if episodes.tuned is None or episodes.pretrained is None or episodes.gain is None:
        return (
            f"Episodes of {episodes.ways} classes could not be drawn: there "
            f"{'is' if episodes.num_classes == 1 else 'are'} {counted(episodes.num_classes, 'class')} with "
            f"{counted(episodes.shots + episodes.queries, 'test image')}, which each takes."
        )
    return (
        f"Told {counted(episodes.shots, 'image')} of each of {episodes.ways} classes, the nearest prototype is right "
        f"for {percent(episodes.tuned)} of others by the tuned features and for {percent(episodes.pretrained)} by the "
        f"pretrained ones: {points(episodes.gain)} points {points_interval(episodes.gain_interval)}."
    )
