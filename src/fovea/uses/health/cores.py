"""Work on all cores, each piece on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`work` of each item, in order. PyTorch is left with one thread until the last was taken.

    Its own threads share out every small operation, and wait for each other after it: several times as slow here.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, "fovea-health", torch.set_num_threads, (1,)) as pool:
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(threads)
