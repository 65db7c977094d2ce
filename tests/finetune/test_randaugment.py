import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import RandAugment

from orchestrator.finetune.randaugment import rand_augment

SIZE = 14
DRAWS = 500


def an_image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(20, 200, (SIZE, SIZE, 3), dtype=np.uint8)


def some_chances(count: int, operations: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, operations, 2), dtype=np.float32)


def different(pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.unique(pictures.reshape(len(pictures), -1), axis=0).astype(np.int64)


def torchvision_pictures(magnitude: int) -> NDArray[np.uint8]:
    """Give what torchvision makes of the image by one operation, in many draws."""
    image = torch.from_numpy(an_image()).permute(2, 0, 1)
    transform = RandAugment(num_ops=1, magnitude=magnitude)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pictures = torch.stack([transform(image) for _ in range(DRAWS)])
    found: NDArray[np.uint8] = pictures.permute(0, 2, 3, 1).numpy()
    return found


@pytest.mark.parametrize("magnitude", [0, 9, 15, 30])
def test_the_operations_are_those_of_torchvision(magnitude: int) -> None:
    images = np.repeat(an_image()[None], DRAWS, axis=0)
    ours = different(rand_augment(images, some_chances(DRAWS, 1), magnitude))
    theirs = different(torchvision_pictures(magnitude))
    # Its magnitudes are rounded to float32, which can move a value by one.
    are_same = np.abs(ours[:, None] - theirs).max(axis=2) <= 1
    assert len(ours) == len(theirs)
    assert are_same.any(axis=0).all() and are_same.any(axis=1).all()


def test_an_image_comes_out_the_same_alone_and_in_a_batch() -> None:
    images = np.random.default_rng(2).integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8)
    chances = some_chances(60, 3)
    whole = rand_augment(images, chances, 12)
    for index in range(60):
        alone = rand_augment(images[index : index + 1], chances[index : index + 1], 12)
        np.testing.assert_array_equal(alone[0], whole[index])


def test_operations_follow_one_another() -> None:
    images, chances = np.repeat(an_image()[None], 60, axis=0), some_chances(60, 2)
    once = rand_augment(images, chances[:, :1], 12)
    np.testing.assert_array_equal(rand_augment(once, chances[:, 1:], 12), rand_augment(images, chances, 12))


def test_the_given_pixels_stay_as_they_are() -> None:
    images = np.repeat(an_image()[None], 30, axis=0)
    rand_augment(images, some_chances(30, 2), 30)
    np.testing.assert_array_equal(images, np.repeat(an_image()[None], 30, axis=0))
