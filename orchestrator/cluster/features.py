"""Computes, in one Ray pass, the features of the same images by a trained model and by what it started from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.cluster.inference import InferencePlan, loaded_model
from orchestrator.cluster.passes import PassPlan, rehearsed_seconds, run_pass
from orchestrator.cluster.workers import Workbench
from orchestrator.data.reader import PixelReader
from orchestrator.finetune.classifier import extract_features

Rows = NDArray[np.float32]


def compare_features(
    blocks: Sequence[pa.Table], reader: PixelReader, plan: InferencePlan, workbench: Workbench
) -> tuple[Rows, Rows]:
    """Give the features [n, d] of numbered catalogue rows, in that order: a model's, and the pretrained backbone's."""
    compute = _Compute(reader, plan, workbench)
    run = PassPlan(
        what="the pass of episodes",
        stall_timeout_s=plan.stall_timeout_s,
        use_gpu=plan.use_gpu,
        expected_s=lambda: rehearsed_seconds(blocks, compute),
    )
    feature_dim = workbench.backbone.feature_dim
    tuned = np.zeros((sum(block.num_rows for block in blocks), feature_dim), dtype=np.float32)
    pretrained = np.zeros_like(tuned)
    for block, (after, before) in zip(blocks, run_pass(blocks, compute, run), strict=True):
        positions = np.asarray(block.column("position"))
        tuned[positions], pretrained[positions] = after, before
    return tuned, pretrained


@dataclass(frozen=True)
class _Compute:
    """Compute the features of one block of catalogue rows in a worker."""

    reader: PixelReader
    plan: InferencePlan
    workbench: Workbench

    def __call__(self, block: pa.Table) -> tuple[Rows, Rows]:
        classifier, card = loaded_model(self.plan.model_uri, self.plan.weights_digest)
        pixels = self.reader.read(block)
        tuned = extract_features(classifier.backbone, card.backbone, pixels, device=self.plan.device)
        before = self.workbench.feature_extractor()
        return tuned, extract_features(before, self.workbench.backbone.spec, pixels, device=self.plan.device)
