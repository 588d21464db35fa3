"""Images made up on the spot, for tests and demonstrations."""

import torch
import torch.nn.functional as F

from fovea.data.types import Place, RawData, RawSplit
from fovea.errors import ConfigError
from fovea.registry import source


@source
def synthetic(
    place: Place, num_images: int = 1000, num_classes: int = 4, image_size: int = 16, channels: int = 3,
    noise: float = 0.2, seed: int = 0,
) -> RawData:  # fmt: skip
    """Seeded made-up images: one smooth pattern a class, plus noise; a fifth of them is the test split."""
    if min(num_classes, image_size) < 2 or num_images < 10 * num_classes or channels not in (1, 3):
        raise ConfigError(
            "synthetic needs num_classes and image_size of at least 2, num_images of at least 10 a class, "
            "and channels 1 or 3"
        )
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_classes, channels, 4, 4, generator=generator)
    patterns = F.interpolate(coarse, size=(image_size, image_size), mode="bicubic", align_corners=False)
    labels = torch.arange(num_images) % num_classes
    images = patterns[labels]
    images += noise * torch.randn(images.shape, generator=generator)
    pixels = images.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    num_train = num_images * 4 // 5
    parts = {"train": slice(0, num_train), "test": slice(num_train, num_images)}
    return RawData(
        tuple(f"class-{label}" for label in range(num_classes)),
        {
            name: RawSplit(pixels[part], labels[part].tolist(), [f"{name}/{row}" for row in range(len(labels[part]))])
            for name, part in parts.items()
        },
    )
