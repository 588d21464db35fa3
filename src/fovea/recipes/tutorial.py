"""The learning note's training, to the letter."""

from fovea.config import DataConfig, OptimConfig, RunConfig
from fovea.registry import recipe


@recipe
def tutorial(data: str) -> RunConfig:
    """PyTorch's CIFAR-10 tutorial: its network, SGD with batch 4, 5 epochs.

    CIFAR-10 test accuracy 59.7, 59.9 and 63.0 % for seeds 0, 1, 2 (the note reports 61 %); 0.98 TFLOP; about 3 minutes
    on one core of an AMD EPYC (benchmarks/tutorial_accuracy.md).
    Rescaled to [-1, 1], not standardized; trained on all of train; no augmentation.
    """
    return RunConfig(
        recipe="tutorial",
        data=DataConfig(name=data),
        model="tutorial",
        standardize=False,
        optim=OptimConfig(name="sgd", lr=0.001, momentum=0.9),
        epochs=5,
        batch_size=4,
        precision="fp32",
        log_interval=2000,
    )
