"""The handwritten digits inside scikit-learn."""

import torch

from fovea.data.types import Place, RawData, RawSplit
from fovea.registry import source


@source
def digits(place: Place) -> RawData:
    """1,797 handwritten digits of 8×8 pixels from scikit-learn; needs no download.

    Source: the test part of UCI's Optical Recognition of Handwritten Digits; 17 grey levels, scaled to 0 to 255.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images * (255 / 16)).round().to(torch.uint8)[:, None]
    labels = found.target.tolist()
    ids = [f"digits/{row}" for row in range(len(labels))]
    return RawData(tuple(map(str, range(10))), {"train": RawSplit(images, labels, ids)})
