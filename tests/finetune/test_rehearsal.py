from collections.abc import Callable

from finetune_examples import ArraySamples, a_spec, some_hyperparameters, some_samples, some_settings

from orchestrator.finetune.classifier import Classifier
from orchestrator.finetune.rehearsal import epoch_seconds


def rehearse(classifier: Classifier, samples: ArraySamples, **changes: object) -> float:
    hyperparameters = some_hyperparameters(**changes)
    return epoch_seconds(classifier, a_spec(), samples, samples, hyperparameters, some_settings(batch_norm="train"))


def test_two_epochs_are_trained_whatever_the_recipe_says(tiny_classifier: Callable[..., Classifier]) -> None:
    samples = some_samples(12)
    assert rehearse(tiny_classifier(), samples, freeze_depth=0, epochs=9, patience=1, strategy="gradual") > 0
    # Each sample is taken twice in training, and twice to be judged.
    assert len(samples.taken) == 4 * len(samples)


def test_an_epoch_of_more_samples_takes_longer(tiny_classifier: Callable[..., Classifier]) -> None:
    few, many = some_samples(16, image_size=32), some_samples(400, image_size=32)
    seconds = [rehearse(tiny_classifier(), samples, freeze_depth=0) for samples in (few, many)]
    assert seconds[1] > 3 * seconds[0]


def test_a_rehearsal_trains_its_classifier(tiny_classifier: Callable[..., Classifier]) -> None:
    classifier = tiny_classifier()
    before = classifier.head.weight.detach().clone()
    rehearse(classifier, some_samples(12))
    assert not before.equal(classifier.head.weight)


def test_prototypes_take_one_pass(tiny_classifier: Callable[..., Classifier]) -> None:
    samples = some_samples(12)
    assert rehearse(tiny_classifier(), samples, freeze_depth=3, head="prototype") > 0
