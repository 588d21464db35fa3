"""Everything that decides how a run goes, as one frozen tree that checks itself and is saved whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fovea.errors import ConfigError, RunError, nearest


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


PartT = TypeVar("PartT", bound=_Part)


Views = Literal["one", "mirror", "mirror-shift"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Resize = Literal["crop", "pad", "squash"]
Balance = Literal["none", "loss", "sample"]


class DataConfig(_Part):
    """Which images, and how they are split."""

    name: str  # a registered name, `name:option=value`, or a folder, archive or manifest
    data_dir: str | None = None  # where named data sets are looked for first
    image_size: int | None = Field(None, ge=4, le=1024)  # side in pixels of decoded pictures; None: chosen from them
    resize: Resize = "crop"  # the shorter side, and cut the middle; pad: the longer, on grey; squash: both
    val_fraction: float = Field(0.0, ge=0, lt=1)  # of train, where the data has no val split of its own
    test_fraction: float = Field(0.2, ge=0, lt=1)  # of a flat folder
    skip_bad: bool = False  # go on without files that cannot be decoded
    split_seed: int = 0
    columns: tuple[str, ...] = ()  # of a manifest: `path=file`, which column is the path, label, split or group
    group: str | None = None  # what belongs together: a column; of a folder `parent`, or a regular expression on names
    split_file: str | None = None  # a run, or its split.json, whose split is taken over
    folds: int = Field(0, ge=0, le=100)  # parts of which each is the test split of one run; 0: no folds
    fold: int | None = Field(None, ge=1)  # which of them is this run's test split; None: of the group of all of them

    @model_validator(mode="after")
    def _check_folds(self) -> DataConfig:
        if self.folds == 1 or (self.fold or 0) > self.folds:
            raise PydanticCustomError("folds", "at least 2 folds, and a fold of these")
        if self.folds and self.split_file is not None:
            raise PydanticCustomError("folds", "folds make splits of their own: leave out either folds or split_file")
        return self


class OptimConfig(_Part):
    """The optimizer. A schedule scales `lr`, which is the highest that it reaches."""

    name: str = "sgd"  # a registered optimizer, with its own options: `muon:steps=3`
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)  # adamw: its first beta
    weight_decay: float = Field(0.0, ge=0)
    nesterov: bool = False


class ScheduleConfig(_Part):
    """How lr changes over the run."""

    name: str = "constant"  # a registered schedule, with its own options: `step:at=0.5/0.75`
    warmup: float = Field(0.0, ge=0, lt=1)  # the fraction of all steps over which lr rises from 0


class EmaConfig(_Part):
    """The running average of the weights, which is what is validated, saved and tested."""

    span: float = Field(0.0, ge=0, le=0.5)  # how far it looks back, as a fraction of the steps so far; 0: no average
    every: int = Field(5, ge=1)  # steps between two updates
    # In place of span: what an update keeps of the average at the end of the run, less before; the network goes on from it.
    lookahead: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _one_kind(self) -> EmaConfig:
        if self.span and self.lookahead:
            raise PydanticCustomError("average", "span and lookahead are two kinds of average: give one of them")
        return self


class SmallFirstConfig(_Part):
    """Smaller images in the first steps: the coarse is learned from them at a fraction of the cost."""

    until: float = Field(0.0, ge=0, le=1)  # the fraction of all steps that see them; 0: none
    scale: float = Field(0.5, gt=0, lt=1)  # of both sides, in the first step
    sizes: int = Field(1, ge=1, le=100)  # on the way from there to the whole, for as many steps each


class FreezeConfig(_Part):
    """What stays as it was learned elsewhere, where a training starts from pretrained weights or another run's."""

    what: str = "none"  # none, backbone (all but the head), or how many stages, counted from the input
    until: float = Field(1.0, gt=0, le=1)  # the fraction of all steps for which it is frozen
    cached: bool = True  # a backbone that stays frozen computes its features once, and only the head is trained on them


class RunConfig(_Part):
    """One run: `config.yaml` is exactly this."""

    recipe: str
    data: DataConfig
    model: str
    pretrained: str | None = (
        None  # start from timm's weights: `hub`, or a .pth or .safetensors file of the same network
    )
    weights: str | None = None  # start from another run, or from a .pth or .safetensors file that fits exactly
    freeze: FreezeConfig = FreezeConfig()
    lr_decay: float = Field(
        1.0, gt=0, le=1
    )  # lr of each stage, over that of the next one above; the head has all of it
    standardize: bool = True  # by train mean and std; False: only rescaled to [-1, 1]
    augment: tuple[str, ...] = ()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EmaConfig = EmaConfig()
    small_first: SmallFirstConfig = SmallFirstConfig()
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    epochs: int | None = Field(ge=0)  # passes over the images (the `hardest`); None: as many as `minutes` allow
    minutes: float | None = Field(None, gt=0)  # for all from the first weights to the report; None: as the epochs take
    patience: int = Field(0, ge=0)  # epochs without a better one on val, after which the run ends; 0: never
    min_steps: int = Field(0, ge=0)  # where the data is so small that the epochs hold fewer steps, more epochs are run
    batch_size: int = Field(ge=1)
    hardest: float = Field(1.0, gt=0, le=1)  # the share of the images that an epoch takes: where the loss was largest
    balance: Balance = (
        "none"  # classes of few images count as much as others: by weights of the loss, or drawn more often
    )
    part_size: int = Field(0, ge=0)  # on a CPU, each core takes so many images of the batch through the network; 0: all
    int8: bool = False  # on a CPU that can, and in parts: training multiplies bytes in 3×3 convolutions
    views: Views = "one"  # of each image, whose logits are averaged at test time
    precision: Precision = "auto"  # of the network's arithmetic; the weights stay float32
    log_interval: int = Field(0, ge=0)  # steps between two running losses; 0: about six an epoch, not printed
    seed: int = Field(0, ge=0, lt=2**63)
    device: str = "auto"

    @model_validator(mode="after")
    def _one_length(self) -> RunConfig:
        if self.minutes is None and self.epochs is None:
            raise PydanticCustomError("length", "a run needs epochs, or minutes")
        if self.minutes is not None and self.epochs is not None:
            raise PydanticCustomError("length", "minutes and epochs both say when the run ends: give one of them")
        return self

    def with_values(self, values: Mapping[str, Any]) -> RunConfig:
        """A copy with `{"optim.lr": 0.1, ...}` set; texts are read as YAML. Raises ConfigError naming every bad one."""
        tree = self.model_dump()
        known = _paths(tree)
        wrong = [f"'{path}'{nearest(path, known)}" for path in values if path not in known]
        if wrong:
            raise ConfigError("unknown setting " + "; unknown setting ".join(wrong))
        for path, value in values.items():
            *parents, last = path.split(".")
            branch = tree
            for parent in parents:
                branch = branch[parent]
            branch[last] = _typed(value, branch[last])
        return validated(RunConfig, tree)

    def to_yaml(self) -> str:
        """The text of config.yaml."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @staticmethod
    def from_yaml(text: str, where: str) -> RunConfig:
        """Read config.yaml, which names every setting. Raises RunError."""
        try:
            tree = yaml.safe_load(text)
            tree = _over(_BEFORE, tree) if isinstance(tree, dict) else tree
            config = validated(RunConfig, tree)
            if not text.endswith("\n"):  # `device: cuda` cut short may still be a device
                raise ConfigError("cut short")
        except (yaml.YAMLError, ConfigError):
            raise RunError(f"{where} is damaged: restore it, or train anew") from None
        lacking = [path for path in _paths(config.model_dump()) if path not in _paths(tree)]
        if lacking:  # a default could differ from what was run
            raise RunError(f"{where} is damaged (lacks {lacking[0]}): restore it, or train anew")
        return config


# Settings younger than some run folders, with what Fovea did before it had them. (`seed` and `device` stand below them in
# config.yaml, so that a file cut short does not pass for an old one.)
_BEFORE = {
    "ema": EmaConfig().model_dump(), "small_first": SmallFirstConfig().model_dump(), "part_size": 0, "int8": False, "views": "one",
    "precision": "fp32", "pretrained": None, "freeze": FreezeConfig().model_dump(), "lr_decay": 1.0,
    "minutes": None, "patience": 0, "balance": "none", "hardest": 1.0,
    "data": {"columns": [], "group": None, "split_file": None, "folds": 0, "fold": None, "resize": "crop"},
}  # fmt: skip

# The settings that have an option, and a keyword in Python, of their own.
EVERYDAY = {
    "model": "model", "weights": "weights", "augment": "augment", "epochs": "epochs", "batch_size": "batch_size",
    "optimizer": "optim.name", "lr": "optim.lr", "momentum": "optim.momentum", "weight_decay": "optim.weight_decay",
    "schedule": "schedule.name", "seed": "seed", "device": "device", "data_dir": "data.data_dir",
    "image_size": "data.image_size", "val_fraction": "data.val_fraction", "views": "views", "precision": "precision",
    "skip_bad": "data.skip_bad", "columns": "data.columns", "group": "data.group", "split": "data.split_file",
    "resize": "data.resize", "pretrained": "pretrained", "freeze": "freeze.what",
    "minutes": "minutes", "patience": "patience", "balance": "balance",
}  # fmt: skip


def everyday_settings(**options: Any) -> dict[str, Any]:
    """`lr=0.1` to `{"optim.lr": 0.1}`, without those that are None. Raises ConfigError."""
    given = {name: value for name, value in options.items() if value is not None}
    wrong = [f"'{name}'{nearest(name, EVERYDAY)}" for name in given if name not in EVERYDAY]
    if wrong:
        raise ConfigError("unknown option " + "; unknown option ".join(wrong))
    return {EVERYDAY[name]: value for name, value in given.items()}


def parse_settings(texts: list[str]) -> dict[str, str]:
    """`["optim.lr=0.1"]` to `{"optim.lr": "0.1"}`. Raises ConfigError."""
    settings = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write path.to.field=value, for instance optim.lr=0.1")
        settings[path.strip()] = value.strip()
    return settings


def split_list(text: str) -> tuple[str, ...]:
    """`mirror,shift:2` to its parts; none of `none`."""
    return tuple(part.strip() for part in text.split(",") if part.strip() not in ("", "none"))


def data_dir_candidates(data_dir: str | None) -> list[str]:
    """Where named data sets are looked for, in this order; the last, the user's cache, is where downloads go."""
    places = [data_dir, os.environ.get("FOVEA_DATA"), "data", _user_cache()]
    return [place for place in places if place]


def cache_dir() -> str:
    """Where what was computed once is kept: `$FOVEA_CACHE`, else the user's cache."""
    return os.environ.get("FOVEA_CACHE") or _user_cache()


def _user_cache() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "fovea")


def _typed(value: Any, before: Any) -> Any:
    """A text from the command line as the YAML value it spells; a tuple from `a,b`."""
    if not isinstance(value, str):
        return value
    if isinstance(before, tuple) and not value.startswith("["):
        return split_list(value)
    if isinstance(before, str):
        return value
    try:
        loaded = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    # YAML 1.1 reads 1e-3 as text: without a dot it is no number there.
    return value if isinstance(loaded, str) else loaded


def validated(part: type[PartT], tree: Any) -> PartT:
    """Build a part of the config from plain data. Raises ConfigError naming every bad value."""
    try:
        return part.model_validate(tree)
    except ValidationError as error:
        parts = []
        for e in error.errors():  # of a whole branch, its values would fill the screen
            value = "" if isinstance(e["input"], dict) else f" = {e['input']!r}"
            parts.append(f"{'.'.join(map(str, e['loc']))}{value}: {e['msg']}" if e["loc"] else e["msg"])
        raise ConfigError("; ".join(parts)) from None


def _over(below: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree`, with what only `below` names; branches likewise."""
    branches = {
        k: _over(below[k], v) for k, v in tree.items() if isinstance(v, dict) and isinstance(below.get(k), dict)
    }
    return {**below, **tree, **branches}


def _paths(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        found += _paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found
