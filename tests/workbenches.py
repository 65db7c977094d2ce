"""Workbenches with backbones that have learnt nothing, for tests of what runs on workers."""

from __future__ import annotations

from orchestrator.cluster.workers import Workbench
from orchestrator.finetune.weights import load_pretrained
from orchestrator.records import BackboneSpec, PretrainedBackbone


def random_workbench(spec: BackboneSpec) -> Workbench:
    """Make a workbench of a backbone with random weights, the same for the same spec."""
    backbone, digest = load_pretrained("none", spec, seed=0)
    record = PretrainedBackbone(
        spec=spec,
        source="none",
        weights="none",
        digest=digest,
        num_stages=backbone.num_stages,
        feature_dim=backbone.feature_dim,
    )
    return Workbench(
        backbone=record, weights_uri="none", seed=0, batch_norm="frozen", precision="fp32", metric="val_accuracy"
    )
