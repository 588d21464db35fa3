"""What `fovea list` shows; only asked for the models does it import torch, to count what they cost."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from fovea import registry
from fovea.errors import ConfigError, UnknownName

# What the figures of `fovea list models` are for: CIFAR-10.
NUM_CLASSES, CHANNELS, IMAGE_SIZE = 10, 3, (32, 32)


def list_parts(kind: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Kinds, or one kind, to its parts: `name`, `summary`; of models asked for alone, also `forms`.

    Each of the forms has `model` (as `--model` takes it), `num_parameters` and `flops` of a forward pass of one image,
    for 10 classes and images of 3×32×32. A model's file names them in `FORMS`, first what the name alone stands for;
    without it, that is the only one. A model that needs an option, such as `timm`, has none. Raises UnknownName.
    """
    if kind is not None and kind not in registry.REGISTRIES:
        raise UnknownName("kind", kind, registry.REGISTRIES)
    chosen = {kind: registry.REGISTRIES[kind]} if kind else registry.REGISTRIES
    listed: dict[str, list[dict[str, Any]]] = {
        name: [{"name": entry.name, "summary": entry.summary} for entry in parts.entries()]
        for name, parts in chosen.items()
    }
    if kind == "models":
        for entry in listed["models"]:
            entry["forms"] = _forms(entry["name"])
    return listed


def print_parts(listed: dict[str, list[dict[str, Any]]]) -> None:
    """A line a part, and below a line a form of a model, with what it costs."""
    for kind, parts in listed.items():
        width = max(len(part["name"]) for part in parts)
        print(f"{kind}:")
        for part in parts:
            print(f"  {part['name']:{width}}  {part['summary']}")
    if any("forms" in part for parts in listed.values() for part in parts):
        _print_costs([form for part in listed["models"] for form in part["forms"]])


def _forms(name: str) -> list[dict[str, Any]]:
    from fovea.models.cost import spec_cost

    module = sys.modules[registry.model.get(name).__module__]
    forms = []
    for spec in getattr(module, "FORMS", (name,)):
        with contextlib.suppress(ConfigError):  # needs an option, or other images
            num_parameters, flops = spec_cost(spec, NUM_CLASSES, CHANNELS, IMAGE_SIZE)
            forms.append({"model": spec, "num_parameters": num_parameters, "flops": flops})
    return forms


def _print_costs(forms: list[dict[str, Any]]) -> None:
    from fovea.models.cost import flops_text

    height, width = IMAGE_SIZE
    rows = [(form["model"], f"{form['num_parameters']:,}", flops_text(form["flops"])) for form in forms]
    print(f"\nfor {NUM_CLASSES} classes and {CHANNELS}×{height}×{width} images, a forward pass of one image:")
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print(f"  {'model':{widths[0]}}  {'parameters':>{max(10, widths[1])}}  {'FLOPs':>{widths[2]}}")
    for model, num_parameters, flops in rows:
        print(f"  {model:{widths[0]}}  {num_parameters:>{max(10, widths[1])}}  {flops:>{widths[2]}}")
