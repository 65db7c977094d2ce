"""Probes what a training costs on this machine, in the words of the cost rule."""

from __future__ import annotations

from pathlib import Path

from protocol import BATCH_SIZE

from orchestrator.cluster.workers import Workbench
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.contracts import Samples
from orchestrator.finetune.probe import measure
from orchestrator.records import CostFigures


def probe(classifier: Classifier, workbench: Workbench, samples: Samples, directory: Path) -> CostFigures:
    """Measure as the search stage does before it decides; the pixels are cached, so nothing is decoded."""
    directory.mkdir(parents=True)
    return measure(
        classifier,
        workbench.backbone.spec,
        workbench.settings("cpu"),
        samples,
        decode=None,
        directory=directory,
        batch_size=BATCH_SIZE,
    )
