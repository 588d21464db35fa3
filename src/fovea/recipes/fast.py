"""The record recipe, on what a laptop has."""

from fovea.config import DataConfig, OptimConfig, RunConfig, ScheduleConfig, SmallFirstConfig
from fovea.registry import recipe

MUON = "muon:steps=3:normalize=true:other=sgd:other_lr=0.23:other_momentum=0.85"


@recipe
def fast(data: str) -> RunConfig:
    """The speed records' network and Muon, smaller images first."""
    return RunConfig(
        recipe="fast",
        data=DataConfig(name=data),
        model="record:widths=64/256/256",
        augment=("mirror:alternate=true", "shift:2"),
        optim=OptimConfig(name=MUON, lr=0.2, momentum=0.6, nesterov=True),
        schedule=ScheduleConfig(name="linear"),
        small_first=SmallFirstConfig(until=0.5),
        label_smoothing=0.2,
        epochs=8,
        min_steps=200,
        batch_size=500,
        part_size=125,
        views="mirror-shift",
    )
