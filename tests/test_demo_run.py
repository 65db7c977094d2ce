"""The embedded demo as a whole: transfer from rendered digits beats training from scratch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.experiment_file import load_experiment
from orchestrator.pipeline import Pipeline

DEMO = Path(__file__).parents[1] / "jobs" / "experiments" / "demo.yaml"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("ray_cluster")
def test_transfer_beats_training_from_scratch_over_the_pooled_test_images(tmp_path: Path) -> None:
    # Where `make demo` has just run, its results are taken up: all of its stages are up to date.
    storage_path = os.environ.get("DEMO_STORAGE_PATH", str(tmp_path))
    pipeline = Pipeline(load_experiment(DEMO, [f"storage_path={storage_path}"]), say=print)
    pipeline.run()
    report = pipeline.report()
    gains = {comparison.baseline: comparison for comparison in report.comparisons}
    assert gains["from_scratch"].accuracy_gain_interval[0] > 0
    assert gains["fixed_rule"].accuracy_gain_interval[0] > 0
    assert gains["from_scratch"].num_images == sum(evaluation.num_images for evaluation in report.evaluations)
    assert len(report.catalogue.subsets) == 8
