"""The note's accuracy in seconds."""

from fovea.config import DataConfig, OptimConfig, RunConfig, ScheduleConfig, SmallFirstConfig
from fovea.recipes.fast import MUON
from fovea.registry import recipe


@recipe
def quick(data: str) -> RunConfig:
    """The note's accuracy in seconds: a narrow record network, one epoch of half-size images."""
    return RunConfig(
        recipe="quick",
        data=DataConfig(name=data),
        model="record:widths=16/32/64:depths=1/1/1:stem=stride:filters=16",
        augment=("mirror",),
        optim=OptimConfig(name=MUON, lr=0.35, momentum=0.6, nesterov=True),
        schedule=ScheduleConfig(name="linear"),
        small_first=SmallFirstConfig(until=0.7),
        label_smoothing=0.1,
        epochs=1,
        min_steps=90,
        batch_size=250,
        part_size=125,
        views="mirror-shift",
    )
