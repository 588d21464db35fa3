"""Left-right mirror images."""

import torch
from torch import Tensor

from fovea.augment.types import Draw, moves_pixels
from fovea.registry import augmentation


@augmentation
@moves_pixels
def mirror(images: Tensor, draw: Draw, probability: float = 0.5, alternate: bool = False) -> Tensor:
    """Mirror each image left to right with the given probability.

    `alternate` draws that once, for the first time an image is shown, and from then on shows it as the time before did
    not (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", by epochs; but some epochs leave images out).
    """
    if alternate:
        # Always the same for a row: Knuth's multiplicative hash of its number and the seed.
        first = ((draw.rows + draw.seed % 2**16 * 65537) * 2654435761 % 2**32) < probability * 2**32
        chosen = first ^ (draw.times % 2 == 0)
    else:
        chosen = torch.rand(len(images), generator=draw.generator, device=images.device) < probability
    if images.device.type == "cpu":  # one at a time, it stays in the core's cache
        source = images.numpy()
        mirrored = source.copy()
        for row in chosen.nonzero().flatten().tolist():
            mirrored[row] = source[row, :, :, ::-1]
        return torch.from_numpy(mirrored)
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)
