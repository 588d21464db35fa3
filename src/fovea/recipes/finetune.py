"""A training that starts from what another network has learned."""

from fovea.config import DataConfig, OptimConfig, RunConfig, ScheduleConfig
from fovea.registry import recipe


@recipe
def finetune(data: str) -> RunConfig:
    """From pretrained weights or a run of your own: small steps, smaller below.

    What --pretrained and --weights RUN take where no recipe is named. The lr is a tenth of what a network takes that knows
    nothing, and falls by a tenth from each stage to the one below it, so that what is general stays.
    """
    return RunConfig(
        recipe="finetune",
        data=DataConfig(name=data, val_fraction=0.1),
        model="timm:resnet18.a1_in1k",
        pretrained="hub",
        lr_decay=0.9,
        augment=("mirror",),
        optim=OptimConfig(name="adamw", lr=1e-3, weight_decay=0.05),
        schedule=ScheduleConfig(name="cosine", warmup=0.1),
        epochs=10,
        min_steps=200,
        batch_size=64,
    )
