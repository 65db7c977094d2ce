import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from finetune_examples import TINY, a_spec
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from orchestrator.errors import BackboneError, StorageError, WeightsError
from orchestrator.finetune.backbones import create_backbone
from orchestrator.finetune.families import build_model
from orchestrator.finetune.models import save_backbone
from orchestrator.finetune.randomness import seeded
from orchestrator.finetune.weights import load_pretrained, weights_digest

MOBILENET = a_spec("mobilenet_v3_small", image_size=32)
REAL_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"


def a_model(name: str = "mobilenet_v3_small", image_size: int = 32, **kwargs: object) -> nn.Module:
    with seeded(1):
        return build_model(name, kwargs, image_size).eval()


def saved(state: object, path: Path) -> str:
    torch.save(state, path)
    return str(path)


@pytest.fixture
def state() -> dict[str, Tensor]:
    return dict(a_model().state_dict())


def test_torchvisions_names_load_and_the_head_is_ignored(tmp_path: Path) -> None:
    model = a_model(num_classes=7)
    backbone, _ = load_pretrained(saved(model.state_dict(), tmp_path / "w.pt"), MOBILENET, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.classifier[3](backbone(images)), model(images))


def test_a_state_dict_without_a_head_loads(tmp_path: Path, state: dict[str, Tensor]) -> None:
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.3.")}
    assert (
        load_pretrained(saved(headless, tmp_path / "w.pt"), MOBILENET, seed=0)[1]
        == (load_pretrained(saved(state, tmp_path / "v.pt"), MOBILENET, seed=0)[1])
    )


def test_safetensors_and_torch_files_give_the_same_weights(tmp_path: Path, state: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    _, one = load_pretrained(str(tmp_path / "w.safetensors"), MOBILENET, seed=0)
    _, other = load_pretrained(saved(state, tmp_path / "w.pt"), MOBILENET, seed=0)
    assert one == other


@pytest.mark.parametrize("spec", [MOBILENET, a_spec(TINY, image_size=32)])
def test_a_saved_backbone_loads_to_the_same_bits(tmp_path: Path, spec: object) -> None:
    backbone, digest = load_pretrained("none", spec, seed=4)
    uri = str(tmp_path / "deep" / "backbone.safetensors")
    save_backbone(uri, backbone)
    loaded, loaded_digest = load_pretrained(uri, spec, seed=0)
    assert loaded_digest == digest
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), backbone.parameters(), strict=True))


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    _, one = load_pretrained("none", MOBILENET, seed=4)
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    _, other = load_pretrained("none", MOBILENET, seed=4)
    assert one == other
    assert torch.rand(1) == drawn
    assert load_pretrained("none", MOBILENET, seed=5)[1] != one


def test_the_digest_sees_one_changed_buffer() -> None:
    backbone, digest = load_pretrained("none", MOBILENET, seed=4)
    assert weights_digest(backbone) == digest
    next(buffer for name, buffer in backbone.named_buffers() if "running_mean" in name)[0] += 1e-7
    assert weights_digest(backbone) != digest


def test_weights_of_before_batches_were_counted_load(tmp_path: Path, state: dict[str, Tensor]) -> None:
    old = {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    backbone, _ = load_pretrained(saved(old, tmp_path / "w.pt"), MOBILENET, seed=0)
    assert all(int(buffer) == 0 for name, buffer in backbone.named_buffers() if "num_batches_tracked" in name)


def test_a_vit_at_another_size_gets_interpolated_positions(tmp_path: Path) -> None:
    model = a_model("vit_b_32", 96)
    state = dict(model.state_dict())
    old_names = {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): state[name] for name in state}
    expected = interpolate_embeddings(64, 32, model.state_dict())["encoder.pos_embedding"]
    spec = a_spec("vit_b_32", image_size=64)
    one, digest = load_pretrained(saved(old_names, tmp_path / "w.pt"), spec, seed=0)
    assert torch.equal(one.get_parameter("stages.0.embedding.pos_embedding"), expected)
    large, _ = load_pretrained(saved(state, tmp_path / "v.pt"), a_spec("vit_b_32", image_size=96), seed=0)
    save_backbone(str(tmp_path / "large.safetensors"), large)
    assert load_pretrained(str(tmp_path / "large.safetensors"), spec, seed=0)[1] == digest


def without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("features.3.")}


def with_more(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"features.99.weight": torch.zeros(1)}


def reshaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"features.0.0.weight": torch.zeros(1, 3, 3, 3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, r"missing are, got features\.3\.\S+, \S+, \S+ and \d+ more in .*w\.pt\. Check backbone\.name"),
        (with_more, r"unexpected are, got features\.99\.weight in"),
        (reshaped, r"features\.0\.0\.weight \[1, 3, 3, 3\] for \[16, 3, 3, 3\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, state: dict[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str
) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        load_pretrained(saved(change(state), tmp_path / "w.pt"), MOBILENET, seed=0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class MakesDirectory:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    path = saved({"weight": MakesDirectory(tmp_path / "made")}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="tensors alone, no code"):
        load_pretrained(path, MOBILENET, seed=0)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    path = tmp_path / name
    content = safetensors.torch.save(state) if name.endswith("safetensors") else Path(saved(state, path)).read_bytes()
    for damaged in (content[: len(content) // 2], b"garbage", b""):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="whole"):
            load_pretrained(str(path), MOBILENET, seed=0)


def test_what_is_no_state_dict_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="got epoch, model in"):
        load_pretrained(saved({"epoch": 3, "model": state}, tmp_path / "w.pt"), MOBILENET, seed=0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing\.pt"):
        load_pretrained(str(tmp_path / "nothing.pt"), MOBILENET, seed=0)


def test_an_unknown_weights_name_lists_those_of_torchvision() -> None:
    with pytest.raises(WeightsError, match=r"got IMAGENET\. torchvision has IMAGENET1K_V1, DEFAULT"):
        load_pretrained("IMAGENET", MOBILENET, seed=0)
    with pytest.raises(WeightsError, match="torchvision has none"):
        load_pretrained("DEFAULT", a_spec(TINY), seed=0)
    with pytest.raises(BackboneError, match="Did you mean resnet18"):
        load_pretrained("DEFAULT", a_spec("resnet19"), seed=0)


def test_downloaded_torchvision_weights_load_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = saved(state, tmp_path / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth")
    assert load_pretrained("DEFAULT", MOBILENET, seed=0)[1] == load_pretrained(path, MOBILENET, seed=0)[1]


@pytest.mark.parametrize(("file", "width"), [("mobilenet_v2_w0.35.pt", 0.35), ("mobilenet_v2_w1.0.pt", 1.0)])
def test_real_weights_load(file: str, width: float) -> None:
    path = REAL_WEIGHTS / file
    if not path.exists():
        pytest.skip(f"{path} is not there: real weights are not part of the repository")
    spec = a_spec("mobilenet_v2", image_size=96, width_mult=width)
    backbone, digest = load_pretrained(str(path), spec, seed=0)
    random = create_backbone(spec.name, spec.kwargs, spec.image_size)
    assert digest != weights_digest(random)
    state = torch.load(path, weights_only=True)
    assert torch.equal(backbone.get_parameter("stages.0.features_0.0.weight"), state["features.0.0.weight"])
    with pytest.raises(WeightsError, match="features"):
        load_pretrained(str(path), a_spec("mobilenet_v2", image_size=96, width_mult=0.5), seed=0)
