"""What a network answers, batch by batch: on a CPU as many batches at once as there are cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn

from fovea.device import autocast
from fovea.engine.views import View
from fovea.models.winograd import Transformed


def answers(
    model: nn.Module, batches: Iterable[Tensor], view: View, precision: str, device: torch.device, num_threads: int
) -> Iterator[Tensor]:  # fmt: skip
    """Of `(B, C, H, W)` images, seen through `view`, the `(B, K) float32` logits on the CPU, in the order of the batches."""

    def answer(images: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(precision, device):  # of this thread
            logits: Tensor = model(view(images)).float().cpu()
        return logits

    with Transformed().once_for([model]):
        if device.type != "cpu" or num_threads == 1:
            yield from map(answer, batches)
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # as in training (fovea.engine.gradients)
        try:
            with ThreadPoolExecutor(num_threads, "fovea-answer", torch.set_num_threads, (1,)) as pool:
                upcoming: deque[Future[Tensor]] = deque()
                for images in batches:
                    upcoming.append(pool.submit(answer, images))
                    if len(upcoming) > num_threads:
                        yield upcoming.popleft().result()
                while upcoming:
                    yield upcoming.popleft().result()
        finally:
            torch.set_num_threads(before)
