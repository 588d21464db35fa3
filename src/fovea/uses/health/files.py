"""What is wrong with the files themselves."""

from __future__ import annotations

from collections import Counter

from fovea.data.types import Dataset
from fovea.errors import some
from fovea.uses.health.finding import Finding, Seen

_COLOUR = {"L": "grey", "LA": "grey", "1": "grey", "I": "grey", "I;16": "grey", "F": "grey"}
_LEANS = 0.5  # how much larger a share of one class is grey than of the rest, for its greyness to be a clue


def check_files(dataset: Dataset) -> list[Finding]:
    """Files that cannot be decoded; grey and colour, or several modes, in one set."""
    found = []
    skipped = dataset.facts.skipped
    if skipped:
        number = len(skipped)
        text = (
            f"{number:,} {'file or row' if number == 1 else 'files or rows'} cannot be used, being broken, cut short, missing or no "
            "picture: mend or remove them, or train without them by --skip-bad"
        )
        groups = [(Seen(name, note=reason.split(f"{name}: ", 1)[-1], facts={"reason": reason}),) for name, reason in skipped.items()]  # fmt: skip
        found.append(Finding("broken", "serious", text, groups))
    return found + _modes(dataset)


def _modes(dataset: Dataset) -> list[Finding]:
    modes = dataset.facts.modes
    if len(modes) < 2:
        return []
    shown = some([f"{mode} ({count:,})" for mode, count in modes.most_common()])
    used = "RGB" if dataset.channels == 3 else "grey"
    grey = _greyest(dataset)
    clue = (
        f"; nearly all of its grey pictures are of class {grey}, which can then be told without looking" if grey else ""
    )
    text = f"the files' modes differ: {shown}; all are used as {used}{clue}; make sure that pictures to be predicted come alike"
    return [Finding("mixed modes", "warning" if grey else "note", text)]


def _greyest(dataset: Dataset) -> str | None:
    """The class whose pictures are grey far more often than the others', if there is one."""
    files = dataset.facts.files
    grey: Counter[int] = Counter()
    total: Counter[int] = Counter()
    for split in dataset.splits.values():
        for name, label in zip(split.ids, split.labels.tolist(), strict=True):
            if name in files:
                total[label] += 1
                grey[label] += files[name].mode in _COLOUR
    for label, count in grey.most_common(1):
        others = sum(total.values()) - total[label]
        rest = (sum(grey.values()) - count) / max(1, others)
        if count / total[label] - rest >= _LEANS:
            return dataset.classes[label]
    return None
