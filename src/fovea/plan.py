"""Settings chosen from the data: what `fovea train DATA` does where no recipe is named, and why.

The rules are those of EXPERIMENTS.md ("the plan"). They depend on the data, the kind of device and the minutes given,
never on a timing: the same data gets the same settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from fovea.config import Balance, DataConfig, RunConfig, SmallFirstConfig
from fovea.data.types import Dataset
from fovea.recipes.fast import fast, muon
from fovea.recipes.quick import quick
from fovea.recipes.simple import simple

AUTO = "auto"  # the name of the recipe

TINY, SMALL, MIDDLE = 16, 48, 80  # sides in pixels up to which images are taken for such
MANY = 20_000  # training images from which on `fast` is right as it is
# Images a second of two AVX2 cores, at 32×32 pixels with half of the steps at 16×16 (EXPERIMENTS.md); only the ratios count.
SPEED = {"narrow": 1200, "wide": 600}
MODELS = {
    "quick": "record:widths=16/32/64:depths=1/1/1", "narrow": "record:widths=32/128/128", "wide": "record:widths=64/256/256",
}  # fmt: skip
GPU_SPEED = 20  # times that
# A network that sees fewer images than this in the minutes given, or each less often, is too large for them; but
# MOST_EPOCHS are always enough.
FEWEST_SEEN = {"wide": (100_000, 2), "narrow": (40_000, 1)}
SEEN, MOST_EPOCHS = 400_000, 40  # images seen in a training: minutes on two cores; more epochs brought little
LEAST_FIRST = 14  # pixels, the side of the smallest images that the first steps see
BALANCE: Balance = "loss"
TOO_FEW = 10  # images of a class that cannot be balanced: it would outweigh the rest by a handful of images
IMBALANCE = 5  # largest class over smallest, from which on the small ones are learned less well


@dataclass(frozen=True)
class Facts:
    """What the plan knows of the data."""

    name: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]  # training images of each class, those that are to become val included
    channels: int
    side: int  # the shorter, in pixels
    has_val: bool

    @staticmethod
    def of(dataset: Dataset) -> Facts:
        """Of a data set that was prepared."""
        counts = tuple(dataset.train.counts(len(dataset.classes)))
        side = min(dataset.image_size)
        return Facts(dataset.name, dataset.classes, counts, dataset.channels, side, "val" in dataset.splits)


@dataclass(frozen=True)
class Reason:
    """Why settings are as they are; of no interest where all of them were given."""

    settings: tuple[str, ...]
    text: str


def before(name: str) -> RunConfig:
    """What stands in for the plan while the data is not known: for checking what was given."""
    config: RunConfig = simple(name)
    return config.model_copy(update={"recipe": AUTO, "data": DataConfig(name=name)})


def plan(
    facts: Facts, device: str, minutes: float | None = None, model: str | None = None
) -> tuple[RunConfig, list[Reason]]:
    """The settings for this data, and at most four reasons.

    Args:
        device: `cpu`, `cuda` or `mps`.
        minutes: the time that there is for all of it; None: as long as it takes.
        model: the network, where it is given: the rest is chosen to suit it.
    """
    val = _val_fraction(facts)
    num_train = round(sum(facts.counts) * (1 - val))
    base, why = _network(facts, num_train, device, minutes, model)
    augment, augment_reason = _augment(facts)
    epochs, length_reason = _length(facts, num_train, base, device, minutes)
    balance, balance_reason = _balance(facts)
    views = base.views if "mirror" in "".join(augment) else "one"
    config = base.model_copy(
        update={
            "recipe": AUTO, "data": DataConfig(name=facts.name, val_fraction=val), "augment": augment, "views": views,
            "epochs": epochs, "minutes": minutes, "min_steps": 0 if minutes else 200, "balance": balance,
        }
    )  # fmt: skip
    reasons = [why, augment_reason, length_reason, balance_reason]
    return config, [reason for reason in reasons if reason is not None]


def _val_fraction(facts: Facts) -> float:
    if facts.has_val:
        return 0.0
    total = sum(facts.counts)
    return 0.2 if total < 1000 else 0.1 if total <= 50_000 else round(5000 / total, 4)


def _network(
    facts: Facts, num_train: int, device: str, minutes: float | None, model: str | None
) -> tuple[RunConfig, Reason]:
    """Network, optimizer, batch size, small images first; the rest is filled in by the others."""
    name, side = facts.name, facts.side
    if model is not None and model.partition(":")[0] != "record":
        config = simple(name).model_copy(update={"label_smoothing": 0.1, "views": "mirror"})
        text = "sgd and batches of 64 (--optimizer, --batch-size): most networks train well with them"
        return config, Reason(("optim.name",), text)
    if side <= TINY:
        text = f"model convnet, a small one (--model): images of {side} pixels hold little for a larger one to find"
        return simple(name), Reason(("model",), text)
    if minutes is None:
        kind, why = "narrow", f"fast enough for a CPU, and {num_train:,} images need no wider one"
        if device != "cpu":
            kind, why = "wide", "a GPU makes its width cheap"
        elif num_train >= MANY and side <= SMALL:
            kind, why = "wide", f"{num_train:,} images make use of its width"
    else:
        kind = next((kind for kind in FEWEST_SEEN if _sees_enough(kind, num_train, side, device, minutes)), "quick")
        why = f"the largest that sees each image often enough in {minutes:g} minutes"
    base = quick(name) if kind == "quick" else fast(name)
    changes: dict[str, object] = {"model": MODELS[kind] + _stem(side, kind), "views": "mirror"}
    as_fast = kind == "wide" and num_train >= MANY and side <= SMALL
    if as_fast and minutes is None:
        changes = {}  # the recipe to the letter
    elif kind != "quick" and not as_fast:  # more steps for fewer images
        batch_size = 500 if kind == "wide" and num_train >= MANY else 128 if num_train >= 2000 else 64
        changes |= {
            "optim": muon(lr=0.24, other_lr=6),
            "hardest": 1.0,
            "epochs": 8,
            "batch_size": batch_size,
            "part_size": min(125, batch_size // 2),
            "int8": False,  # as yet tried in `fast` and `best` only
        }
    if side < 2 * LEAST_FIRST:
        changes["small_first"] = SmallFirstConfig()
    elif as_fast and minutes:  # of the time: as many steps as half of them
        changes["small_first"] = SmallFirstConfig(until=0.3, sizes=2)
    elif changes:  # in which, of the time, three times as many small images are seen
        changes["small_first"] = SmallFirstConfig(until=0.2 if minutes is None else 0.25)
    text = f"model record, {kind} (--model), the speed records' network for small images: {why}"
    return base.model_copy(update=changes), Reason(("model",), text)


def speed(kind: str, side: int, device: str) -> float:
    """Images of `side` pixels a second that one of the networks is trained on; a guess, but the same everywhere."""
    return SPEED[kind] / _cost(side) * (1 if device == "cpu" else GPU_SPEED)


def _sees_enough(kind: str, num_train: int, side: int, device: str, minutes: float) -> bool:
    images, passes = FEWEST_SEEN[kind]
    enough = min(MOST_EPOCHS * num_train, max(images, passes * num_train))
    return 60 * minutes * speed(kind, side, device) >= enough


def _stem(side: int, kind: str) -> str:
    """The first layer, of larger pictures with a larger stride, so that about 32×32 numbers are left."""
    if kind == "quick":
        return ":stem=patch" if side > SMALL else ":stem=stride:filters=16"
    return "" if side <= SMALL else ":stem=stride" if side <= MIDDLE else ":stem=patch"


def _cost(side: int) -> float:
    """Of an image, in images of 32×32 pixels, behind the first layer that `_stem` takes."""
    if side <= SMALL:
        return (side / 32) ** 2
    stride = 2 if side <= MIDDLE else 4
    return 4.5 * (side / 32 / stride) ** 2  # its first stage goes without pooling


def _augment(facts: Facts) -> tuple[tuple[str, ...], Reason | None]:
    if facts.side <= TINY:
        return (), None
    shift = f"shift:{max(2, facts.side // 16)}"
    if facts.channels == 3 and not are_symbols(facts.classes):
        why = "mirrored, and a few pixels aside, it is the same picture, but new to the network"
        return ("mirror:alternate=true", shift), Reason(("augment",), f"augment mirror and {shift} (--augment): {why}")
    kind = "classes are named like letters or digits" if are_symbols(facts.classes) else "grey images are often writing"
    return (shift,), Reason(("augment",), f"augment {shift} (--augment), not mirrored: {kind}")


def are_symbols(classes: tuple[str, ...]) -> bool:
    """Are most classes named by one letter or digit (`7`, `b`, `7 - seven`)?"""
    return 2 * sum(len(name.split()[0]) == 1 for name in classes if name.strip()) > len(classes)


def _length(
    facts: Facts, num_train: int, base: RunConfig, device: str, minutes: float | None
) -> tuple[int | None, Reason | None]:
    if minutes is not None:
        return None, None
    if facts.side <= TINY or (num_train >= MANY and facts.side <= SMALL):
        return base.epochs, None
    most = SEEN * (1 if device == "cpu" else GPU_SPEED) / _cost(facts.side)
    epochs = min(MOST_EPOCHS, max(base.epochs or 0, round(most / num_train)))
    why = "few images gain from being seen often" if epochs == MOST_EPOCHS else "more would take long on this device"
    text = f"{epochs} epochs in batches of {base.batch_size} (--epochs, --batch-size, or --minutes): {why}"
    return epochs, Reason(("epochs",), text)


def _balance(facts: Facts) -> tuple[Balance, Reason | None]:
    counts = list(zip(facts.counts, facts.classes, strict=True))
    (fewest, rare), (most, common) = min(counts), max(counts)
    if most < IMBALANCE * fewest or fewest < TOO_FEW:
        return "none", None
    text = (
        f"balance {BALANCE} (--balance): {common} has {most:,} images and {rare} {fewest:,}, each class counts the same"
    )
    return BALANCE, Reason(("balance",), text)
