"""The probe's figures are of the machine it runs on, and it leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from finetune_examples import a_spec, some_samples, some_settings

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.probe import measure, measure_peak
from orchestrator.records import CostFigures


def probe(classifier: Classifier, directory: Path, decode: Callable[[], None] | None = None) -> CostFigures:
    samples = some_samples(20)
    return measure(classifier, a_spec(), some_settings(), samples, batch_size=16, directory=directory, decode=decode)


def test_every_depth_has_its_figures(tiny_classifier: Callable[..., Classifier], tmp_path: Path) -> None:
    figures = probe(tiny_classifier(), tmp_path)
    assert len(figures.forward_s) == 3
    assert len(figures.train_s) == len(figures.validate_s) == len(figures.activation_bytes) == 4
    assert all(seconds > 0 for seconds in (*figures.forward_s, *figures.train_s, *figures.validate_s))
    # 8 channels of 8 x 8, 16 of 4 x 4, 16 features; float32.
    assert figures.activation_bytes == (0, 8 * 64 * 4, 16 * 16 * 4, 16 * 4)
    assert figures.read_bytes_per_s > 0 and figures.write_bytes_per_s > 0


def test_training_all_stages_costs_more_than_the_head(
    tiny_classifier: Callable[..., Classifier], tmp_path: Path
) -> None:
    figures = probe(tiny_classifier(width=64), tmp_path)
    assert figures.train_s[0] > figures.train_s[3]


def test_decoding_is_timed_where_there_is_something_to_decode(
    tiny_classifier: Callable[..., Classifier], tmp_path: Path
) -> None:
    assert probe(tiny_classifier(), tmp_path).decode_s == 0
    assert probe(tiny_classifier(), tmp_path, decode=lambda: time.sleep(0.01)).decode_s >= 0.01


def test_no_file_is_left(tiny_classifier: Callable[..., Classifier], tmp_path: Path) -> None:
    probe(tiny_classifier(), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_cpu_has_no_peak_of_gpu_memory(tiny_classifier: Callable[..., Classifier]) -> None:
    assert measure_peak(tiny_classifier(), a_spec(), some_settings(), some_samples(20), batch_size=16) is None
