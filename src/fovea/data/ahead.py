"""The next batch, made while the network learns from this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, in a thread of their own each one as soon as the one before is taken; errors come with their item."""
    # One core: the others have the network.
    with ThreadPoolExecutor(1, "fovea-batch", torch.set_num_threads, (1,)) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item
