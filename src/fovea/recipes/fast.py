"""The record recipe, on what a laptop has."""

from fovea.config import DataConfig, OptimConfig, RunConfig, ScheduleConfig, SmallFirstConfig
from fovea.registry import recipe


def muon(lr: float, other_lr: float, weight_decay: float = 0.0) -> OptimConfig:
    """Muon for the convolutions, SGD with `other_lr` and `weight_decay` for biases and head."""
    name = f"muon:steps=3:normalize=true:other=sgd:other_lr={other_lr:g}:other_momentum=0.85"
    return OptimConfig(name=name, lr=lr, momentum=0.6, nesterov=True, weight_decay=weight_decay)


@recipe
def fast(data: str) -> RunConfig:
    """The speed records' network and Muon, 17 epochs of the hardest half of the images, smaller ones first.

    CIFAR-10, all 50,000 training images: 94.29 % over 6 views (95 % interval 94.12 to 94.46), 93.29 % over one, over 5 seeds.
    265 s on two cores with AMX, 0.82 of the tutorial's script (benchmarks/record.md), without bytes, which such a CPU does not need.
    With bytes, four seeds, 94.15 % (93.18 over one view; EXPERIMENTS.md), in about 0.85 of the time of 21 epochs with ReLU, which
    were as good on val. Those had 94.06 % in 0.88 of the script on an EPYC (5 seeds; benchmarks/record_epyc.md), 94.01 % in 0.99 on
    an Intel CPU without AMX (5 seeds; benchmarks/record_intel.md), and 94.42 % in 1.11 on a Zen 4 (one run;
    benchmarks/record_zen4.md). About 0.28 PFLOP as direct convolutions. Ideas: airbench94_muon and the filter of airbench96_faster
    (Jordan 2024), with smaller images first, Winograd's convolutions and their products of bytes for the CPU (EXPERIMENTS.md).
    """
    return RunConfig(
        recipe="fast",
        data=DataConfig(name=data),
        model="record:widths=64/320/320:activation=gelu",
        augment=("mirror:alternate=true", "shift:2"),
        # airbench's 0.053 and 0.004 a step are for the sum of the losses of 2,000 images, these for the mean of half as many.
        optim=muon(lr=0.24, other_lr=53, weight_decay=3.8e-5),
        schedule=ScheduleConfig(name="linear"),
        small_first=SmallFirstConfig(until=0.5, sizes=2),
        label_smoothing=0.2,
        hardest=0.5,
        epochs=17,
        min_steps=200,
        batch_size=1000,
        part_size=125,
        int8=True,
        views="mirror-shift",
    )
