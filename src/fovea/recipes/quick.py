"""The tutorial's accuracy in seconds."""

from fovea.config import DataConfig, RunConfig, ScheduleConfig
from fovea.recipes.fast import muon
from fovea.registry import recipe


@recipe
def quick(data: str) -> RunConfig:
    """The tutorial's accuracy in seconds: one epoch of a narrow record network over whitened 8×8 patches.

    CIFAR-10, all 50,000 training images: 63.94 % over 6 views (95 % interval 63.41 to 64.48), 62.04 % over one, over 5
    seeds. 3.3 s on two cores with AMX, 1/97 of the tutorial's script (benchmarks/record.md); 1.9 s, 1/82, on an EPYC with bf16
    (63.82 %, 5 seeds; benchmarks/record_epyc.md); 4.3 s, 1/79, with float32 on an Intel CPU without AMX (63.79 %, 5 seeds;
    benchmarks/record_intel.md). About 0.35 TFLOP. Its settings were chosen on val (EXPERIMENTS.md). Ideas:
    airbench (Jordan 2024), and patches as vision transformers cut them.
    """
    return RunConfig(
        recipe="quick",
        data=DataConfig(name=data),
        model="record:widths=16/24:depths=1/2:stem=patch:filters=20",
        augment=("mirror",),
        optim=muon(lr=0.35, other_lr=6),
        schedule=ScheduleConfig(name="linear"),
        label_smoothing=0.2,
        epochs=1,
        min_steps=90,
        batch_size=400,
        part_size=200,
        views="mirror-shift",
    )
