"""Probes what a training costs on this machine, in the words of the cost rule."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from protocol import BATCH_SIZE

from orchestrator.cluster.workers import Workbench
from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.contracts import Samples
from orchestrator.finetune.probe import measure
from orchestrator.search.costs import Figures


def probe(classifier: Classifier, workbench: Workbench, samples: Samples, directory: Path) -> Figures:
    """Measure as the search stage does before it decides; the pixels are cached, so nothing is decoded."""
    directory.mkdir(parents=True)
    found = measure(
        classifier,
        workbench.backbone.spec,
        workbench.settings("cpu"),
        samples,
        decode=None,
        directory=directory,
        batch_size=BATCH_SIZE,
    )
    return Figures(**{field.name: getattr(found, field.name) for field in fields(Figures)})
