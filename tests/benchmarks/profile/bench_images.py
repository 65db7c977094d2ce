"""Measures the pass over images against a torch DataLoader that computes the same, and against the bare work."""

from __future__ import annotations

from collections.abc import Iterator

from command import note
from figures import Figure
from our_pass import catalogued, shards_of, timed_profile
from peer_dataloader import PeerProfile, best_settings, profile_with_dataloader, read_images
from peer_floor import time_floor
from sizes import Place

from orchestrator.records import Profile

# Ours folds BatchNorm into convolutions, the peer does not: features agree to the rounding of float32.
WITHIN = 1e-4


def measure_images(place: Place) -> Iterator[Figure]:
    """Measure label entropy, pixel entropy and the Vendi score of the four domains of PACS.

    Ours is the stage as users run it, after the catalogue: decoded pixels come from its cache, pixel entropy from the
    encoded images; it also computes what the peer does not: scores at equal N, bootstrap intervals, separability. The
    floor decodes and runs the backbone on every core, and counts nothing.
    """
    data = shards_of(place)
    images = read_images(data)
    settings = best_settings(images, place)
    note(f"the peer is fastest with {settings}")
    ours, peer, floor = [], [], []
    for _ in range(place.sizes.repeats):
        with catalogued(place, data) as pipeline:
            seconds, profile = timed_profile(pipeline)
        ours.append(seconds)
        seconds, found = profile_with_dataloader(images, place.weights, settings)
        peer.append(seconds)
        floor.append(time_floor(images, place, settings))
        note(f"{len(images)} images: ours {ours[-1]:.2f} s, DataLoader {peer[-1]:.2f} s, floor {floor[-1]:.2f} s")
        _require_same(profile, found)
    yield Figure.of_medians("images_per_second_vs_dataloader", ours=ours, peer=peer, aim=1.5, unit="s")
    yield Figure.of_medians("floor_over_time", ours=ours, peer=floor, aim=0.8, unit="s")


def _require_same(profile: Profile, peer: dict[str, PeerProfile]) -> None:
    for subset in profile.subsets:
        found = peer[subset.subset]
        pairs = (
            (subset.label_entropy, found.label_entropy),
            (subset.pixel_entropy, found.pixel_entropy),
            (subset.raw_feature_diversity, found.vendi_score),
        )
        for ours, theirs in pairs:
            if ours is None or abs(ours / theirs - 1) > WITHIN:
                raise RuntimeError(f"both sides must measure the same of {subset.subset}, got {ours} and {theirs}")
