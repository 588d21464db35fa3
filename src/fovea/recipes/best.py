"""What more time buys on small images."""

from fovea.config import DataConfig, RunConfig, ScheduleConfig, SmallFirstConfig
from fovea.recipes.fast import muon
from fovea.registry import recipe


@recipe
def best(data: str) -> RunConfig:
    """The speed records' wider, residual network, 78 epochs of the half of the images that is hardest.

    CIFAR-10, all 50,000 training images, one run (seed 0): 95.52 % over 6 views, 94.52 % over one. 2,400 s on two AVX-512
    cores with bf16, 10 to 11 times the tutorial's script (benchmarks/record.md). That was in bfloat16 and in parts of 125 images,
    2.57 GB; with bytes and parts of 100 it was not run whole. About 2.2 PFLOP as direct convolutions.
    Ideas: airbench96_faster (Jordan 2024), with Muon, smaller images first and losses that are remembered in place of a small
    network's (EXPERIMENTS.md).
    """
    return RunConfig(
        recipe="best",
        data=DataConfig(name=data),
        model="record:widths=128/384/512:depths=3/3/3",
        augment=("mirror:alternate=true", "shift:4", "cutout:12"),
        optim=muon(lr=0.2, other_lr=53, weight_decay=3.8e-5),
        schedule=ScheduleConfig(name="linear"),
        small_first=SmallFirstConfig(until=0.5, sizes=2),
        label_smoothing=0.2,
        hardest=0.5,
        epochs=78,
        min_steps=500,
        batch_size=1000,
        part_size=100,
        int8=True,
        views="mirror-shift",
    )
