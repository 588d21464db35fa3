"""Half of CIFAR-10's classes, and few images of the other half: for EXPERIMENTS.md's figures of fine-tuning.

fovea train halves:first --plugin benchmarks/halves.py --recipe quick --epochs 6 --out first
fovea train halves:second:50 --plugin benchmarks/halves.py --weights first --freeze backbone
"""

import torch

from fovea.data.types import Place, RawData, RawSplit
from fovea.registry import source


@source
def halves(
    place: Place, half: str = "first", num_images: int = 5000, seed: int = 0, choosing: bool = False
) -> RawData:  # fmt: skip
    """Five classes of CIFAR-10, of each `num_images` to train on; to choose settings, the test images are others of train."""
    from fovea import registry

    whole = registry.source.get("cifar10")(place)
    start = 0 if half == "first" else 5
    splits = {}
    for name, split in whole.splits.items():
        assert isinstance(split.images, torch.Tensor)
        labels = torch.tensor(split.labels)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        of_class = [order[labels[order] == label] for label in range(start, start + 5)]
        if name == "train":
            splits["train"] = _take(split, torch.cat([rows[:num_images] for rows in of_class]), start)
            others = torch.cat([rows[-500:] for rows in of_class])
            if choosing:
                splits["test"] = _take(split, others, start)
        elif not choosing:
            splits["test"] = _take(split, torch.cat(of_class), start)
    return RawData(whole.classes[start : start + 5], splits)


def _take(split: RawSplit, rows: torch.Tensor, start: int) -> RawSplit:
    ids = [split.ids[row] for row in rows.tolist()]
    assert isinstance(split.images, torch.Tensor)
    return RawSplit(split.images[rows], [split.labels[row] - start for row in rows.tolist()], ids)
