"""The record recipe, on what a laptop has."""

from fovea.config import DataConfig, OptimConfig, RunConfig, ScheduleConfig, SmallFirstConfig
from fovea.registry import recipe

# other_lr: airbench's 0.053 is for the sum over a batch of losses, not for their mean (EXPERIMENTS.md).
MUON = "muon:steps=3:normalize=true:other=sgd:other_lr=6:other_momentum=0.85"


@recipe
def fast(data: str) -> RunConfig:
    """The speed records' network and Muon, 8 epochs, the first fifth on half-size images.

    CIFAR-10, all 50,000 training images: 92.72 % over 6 views, 92.37 % over one; one run (seed 0), no interval yet. 1,027 s on
    two AVX2 cores in float32, 2.3 times the tutorial's script (benchmarks/record.md). About 0.24 PFLOP as direct convolutions.
    It is on the way to 94 % in the script's time, and not there. Ideas: airbench94_muon (Jordan 2024), with smaller images
    first, ReLU and Winograd's convolutions for the CPU (EXPERIMENTS.md).
    """
    return RunConfig(
        recipe="fast",
        data=DataConfig(name=data),
        model="record:widths=64/256/256",
        augment=("mirror:alternate=true", "shift:2"),
        optim=OptimConfig(name=MUON, lr=0.24, momentum=0.6, nesterov=True),
        schedule=ScheduleConfig(name="linear"),
        small_first=SmallFirstConfig(until=0.2),
        label_smoothing=0.2,
        epochs=8,
        min_steps=200,
        batch_size=500,
        part_size=125,
        views="mirror-shift",
    )
