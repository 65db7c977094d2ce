"""Measures candidate backbones on the training images, ranks them, and chooses the run's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from orchestrator import fingerprints, storage
from orchestrator.cluster.pretraining import BACKBONE_VERSION, prepare_backbone
from orchestrator.cluster.ranking import features_of, sample_training_images
from orchestrator.cluster.workers import Workbench
from orchestrator.config import BackboneConfig, ExperimentConfig
from orchestrator.data.catalogue import SampleTable
from orchestrator.data.reader import PixelReader
from orchestrator.diversity.ranking import SubsetSample, rank_candidates, score_candidate
from orchestrator.experiment_file import is_weights_path
from orchestrator.finetune.footprint import count_parameters, forward_flops, images_per_second
from orchestrator.records import BackboneRanking, CandidateMeasures, Catalogue, PretrainedBackbone
from orchestrator.runs import RunDirectory

RANKING_VERSION = 2

_FOLDER = "candidates"


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Hold backbones to choose from by their titles; `say` receives lines of plain words."""

    config: ExperimentConfig
    run_directory: RunDirectory
    networks: Mapping[str, BackboneConfig]
    say: Callable[[str], None]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint every candidate: what it is built from and the content of its weights."""
        return {title: backbone_fingerprint(self._alone(title)) for title in self.networks}

    def prepare(self) -> int:
        """Put the weights of every candidate into the run directory, and count those that were not there."""
        missing = [title for title in self.networks if self._found(title) is None]
        for title in missing:
            self._prepared(title)
        return len(missing)

    def backbone(self, title: str) -> PretrainedBackbone:
        """Give a candidate's backbone, prepared when it is not."""
        return self._found(title) or self._prepared(title)

    def ranking_fingerprint(self, data: str) -> str:
        """Fingerprint the ranking of all candidates over samples with this fingerprint."""
        return fingerprints.of_ranking(self.config, data=data, candidates=self.fingerprints, version=RANKING_VERSION)

    def forget_others(self, keep: Iterable[str]) -> None:
        """Remove the weights and measures of what is neither a candidate here nor has one of these fingerprints."""
        kept = {*keep, *self.fingerprints.values()}
        for name in storage.list_names(self.run_directory.path(_FOLDER)):
            if name.partition(".")[0].partition("-")[0] not in kept:
                storage.delete(self.run_directory.path(_FOLDER, name))

    def _alone(self, title: str) -> ExperimentConfig:
        return self.config.model_copy(update={"backbone": self.networks[title]})

    def _found(self, title: str) -> PretrainedBackbone | None:
        fingerprint = self.fingerprints[title]
        return self.run_directory.find(f"{_FOLDER}/{fingerprint}.json", PretrainedBackbone, fingerprint)

    def _prepared(self, title: str) -> PretrainedBackbone:
        fingerprint, run_uri = self.fingerprints[title], self.run_directory.uri
        self.say(f"backbones: {title} with weights {self.networks[title].weights}")
        record = prepare_backbone(self._alone(title), run_uri, None, fingerprint=fingerprint, folder=_FOLDER)
        self.run_directory.write(f"{_FOLDER}/{fingerprint}.json", record)
        return record


def backbone_fingerprint(config: ExperimentConfig, source_listing: str = "") -> str:
    """Fingerprint the backbone that a config names, by the content of its weights."""
    weights = _content_of(config.backbone.weights)
    if config.pretrain is not None and weights == "pretrain" and config.pretrain.weights != "none":
        weights = f"pretrain from {_content_of(config.pretrain.weights)}"
    return fingerprints.of_backbone(config, weights=weights, source_listing=source_listing, version=BACKBONE_VERSION)


def _content_of(weights: str) -> str:
    """Give the digest of a file of weights; what is no file stands for itself."""
    return storage.digest_bytes([storage.read_bytes(weights)]) if is_weights_path(weights) else weights


def rank_backbones(
    candidates: Candidates, catalogue: Catalogue, samples: SampleTable, reader: PixelReader, *, name: str
) -> BackboneRanking:
    """Measure what is not measured yet, rank all candidates, and keep the ranking as `rankings/<name>.json`.

    Raises DataError where no subset has training images of two classes.
    """
    run_directory = candidates.run_directory
    fingerprint = candidates.ranking_fingerprint(catalogue.data_fingerprint)
    path = f"rankings/{name}.json"
    found = run_directory.find(path, BackboneRanking, fingerprint)
    if found is not None:
        return found
    rows = sample_training_images(samples, seed=candidates.config.seed)
    subsets = _subset_samples(rows, {count.subset: count.train for count in catalogue.subsets})
    candidates.say(
        f"backbones: measuring {len(candidates.networks)} candidates on {rows.num_rows:,} images of "
        f"{len(subsets)} subsets"
    )
    measured = [
        _measured(candidates, title, catalogue.data_fingerprint, rows, subsets, reader) for title in candidates.networks
    ]
    ranking = rank_candidates(measured).model_copy(update={"fingerprint": fingerprint})
    run_directory.write(path, ranking)
    candidates.say(f"backbones: {ranking.reason}")
    return ranking


def _subset_samples(rows: pa.Table, num_images: Mapping[str, int]) -> list[SubsetSample]:
    subsets, labels = (np.asarray(rows.column(name).to_pylist(), dtype=str) for name in ("subset", "label"))
    found = []
    for name in np.unique(subsets).tolist():
        members = np.flatnonzero(subsets == name)
        sample = SubsetSample(subset=name, rows=members, labels=labels[members].tolist(), num_images=num_images[name])
        found.append(sample)
    return found


def _measured(
    candidates: Candidates,
    title: str,
    data: str,
    rows: pa.Table,
    subsets: list[SubsetSample],
    reader: PixelReader,
) -> CandidateMeasures:
    """Give what is known of one candidate on these samples; measured once, under whatever title."""
    config, run_directory = candidates.config, candidates.run_directory
    backbone = candidates.backbone(title)
    fingerprint = fingerprints.of_candidate_measures(config, data=data, backbone=backbone, version=RANKING_VERSION)
    path = f"{_FOLDER}/{candidates.fingerprints[title]}-measures.json"
    found = run_directory.find(path, CandidateMeasures, fingerprint)
    if found is not None:
        return found.model_copy(update={"title": title})
    started = time.perf_counter()
    workbench = Workbench.of(config, backbone, run_directory.uri)
    features = features_of(rows, reader, workbench, stall_timeout_s=config.cluster.stall_timeout_s)
    network = workbench.pretrained()
    measured = CandidateMeasures(
        fingerprint=fingerprint,
        title=title,
        parameters=count_parameters(network),
        forward_flops=forward_flops(network, backbone.spec.image_size),
        images_per_second=images_per_second(network, backbone.spec.image_size),
        feature_dim=backbone.feature_dim,
        subsets=score_candidate(features, subsets, seed=config.seed),
        seconds=time.perf_counter() - started,
    )
    run_directory.write(path, measured)
    candidates.say(f"backbones: {title} measured in {measured.seconds:.1f} s")
    return measured
