"""Where timm's pretrained weights lie: in the hub's cache, or on the hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from fovea import registry
from fovea.errors import ConfigError
from fovea.models.timm import timm_library

# Where no model is named. The first costs a CPU 1.2 GFLOP an image at 128 pixels; the second is the better one by ten points
# of ImageNet's accuracy (timm's results-imagenet.csv: 71.5 and 82.3 %) at twice the arithmetic, in layers that suit a GPU.
_DEFAULTS = {"cpu": "timm:resnet18.a1_in1k", "other": "timm:convnext_nano.in12k_ft_in1k"}
_NAMES = ["model.safetensors", "pytorch_model.bin"]  # of weights on the hub, the better first


def default_model(device: torch.device) -> str:
    """The pretrained network to take where none is named."""
    return _DEFAULTS.get(device.type, _DEFAULTS["other"])


def pretrained_config(spec: str) -> Any:
    """What timm knows of the weights of `timm:NAME`. Raises ConfigError where there are none."""
    family = spec.partition(":")[0]
    if family != "timm":
        raise ConfigError(
            f"--pretrained: model '{family}' has no pretrained weights; take one of timm's, such as --model "
            f"{_DEFAULTS['cpu']}, or start from a run of your own with --weights RUN"
        )
    name = registry.model.bind(spec, num_given=3)[1]["name"]
    found = timm_library().get_pretrained_cfg(name, allow_unregistered=True)
    if found is None or not found.has_weights:
        others = timm_library().list_pretrained(f"{name.partition('.')[0]}*")[:3]
        hint = f"; there are {', '.join(others)}" if others else "; timm.list_pretrained() names those that have"
        raise ConfigError(f"--pretrained: timm has no weights for '{name}'{hint}")
    return found


def pretrained_file(spec: str) -> Path:
    """The file of the weights of `timm:NAME`: of the hub's cache, else downloaded into it. Raises ConfigError."""
    import huggingface_hub as hub

    config = pretrained_config(spec)
    if not config.hf_hub_id or config.custom_load:
        raise ConfigError(
            f"--pretrained: the weights of {spec} are not on the hub in a form that Fovea reads: take another network, or "
            f"fetch {config.url or config.hf_hub_id}, save it as a state_dict, and give --pretrained FILE.pth"
        )
    repository = config.hf_hub_id
    names = [config.hf_hub_filename] if config.hf_hub_filename else _NAMES
    for name in names:
        cached = hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    return _download(hub, repository, names, spec)


def _download(hub: Any, repository: str, names: list[str], spec: str) -> Path:
    if not hub.is_offline_mode():
        print(f"fetching the weights of {repository}", file=sys.stderr)
        hub.utils.logging.set_verbosity_error()  # it warns of each of its attempts
    try:
        for name in names:
            try:
                return Path(hub.hf_hub_download(repository, name))
            except hub.errors.RemoteEntryNotFoundError:
                continue
    except OSError:  # all that a network can do
        pass
    raise ConfigError(
        f"--pretrained: the weights of {spec} are not in {hub.constants.HF_HUB_CACHE}, and the hub cannot be reached: run "
        f"`hf download {repository} {names[0]}` where it can, and give the file as --model {spec} --pretrained "
        f"{names[0]}; or leave --pretrained out to train from scratch"
    )
