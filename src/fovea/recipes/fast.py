"""The record recipe, on what a laptop has."""

from fovea.config import DataConfig, OptimConfig, RunConfig, ScheduleConfig, SmallFirstConfig
from fovea.registry import recipe


def muon(lr: float, other_lr: float, weight_decay: float = 0.0) -> OptimConfig:
    """Muon for the convolutions, SGD with `other_lr` and `weight_decay` for biases and head."""
    name = f"muon:steps=3:normalize=true:other=sgd:other_lr={other_lr:g}:other_momentum=0.85"
    return OptimConfig(name=name, lr=lr, momentum=0.6, nesterov=True, weight_decay=weight_decay)


@recipe
def fast(data: str) -> RunConfig:
    """The speed records' network and Muon, 21 epochs of the hardest half of the images, smaller ones first.

    CIFAR-10, all 50,000 training images: 94.06 % over 6 views (95 % interval 93.99 to 94.14), 93.25 % over one, over 5 seeds.
    136 s on two AVX-512 cores with bf16 and VNNI, 0.88 of the tutorial's script (benchmarks/record.md); where bf16 is slow, on an
    Intel CPU without AMX, 319 s and 0.99 (94.01 %, 93.84 to 94.18, 5 seeds; benchmarks/record_intel.md); on a Zen 4, 231 s and
    1.11 (94.42 %, one run; benchmarks/record_zen4.md). All are of before images had a scale each on the way back, which takes 3 to
    6 % of a step, and were not measured anew (EXPERIMENTS.md). About 0.35 PFLOP as direct convolutions. Ideas: airbench94_muon and
    the filter of airbench96_faster (Jordan 2024), with smaller images first, ReLU, Winograd's convolutions and their products of
    bytes for the CPU (EXPERIMENTS.md).
    """
    return RunConfig(
        recipe="fast",
        data=DataConfig(name=data),
        model="record:widths=64/320/320",
        augment=("mirror:alternate=true", "shift:2"),
        # airbench's 0.053 and 0.004 a step are for the sum of the losses of 2,000 images, these for the mean of half as many.
        optim=muon(lr=0.2, other_lr=53, weight_decay=3.8e-5),
        schedule=ScheduleConfig(name="linear"),
        small_first=SmallFirstConfig(until=0.5, sizes=2),
        label_smoothing=0.2,
        hardest=0.5,
        epochs=21,
        min_steps=200,
        batch_size=1000,
        part_size=125,
        int8=True,
        views="mirror-shift",
    )
