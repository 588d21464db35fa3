"""A lower lr below: what the first layers have learned is the most general."""

from __future__ import annotations

from typing import Any

from fovea.models.base import Model


def slower_below(model: Model, groups: list[dict[str, Any]], decay: float) -> list[dict[str, Any]]:
    """The groups cut by the model's stages, each with `decay` times the lr of the stage above; the head has all of it.

    Layer-wise lr decay (Clark et al. 2020, ELECTRA; for images Bao et al. 2021, BEiT).
    """
    if decay == 1:
        return groups
    stages = model.by_depth()
    depths = {id(tensor): depth for depth, stage in enumerate(stages) for tensor in stage}
    top = len(stages) - 1
    cut = []
    for group in groups:
        for depth in range(len(stages)):
            params = [p for p in group["params"] if depths.get(id(p), top) == depth]
            if params:
                cut.append({**group, "params": params, "lr_scale": group.get("lr_scale", 1.0) * decay ** (top - depth)})
    return cut
