"""The whole health check of a data set, and its short form before a training."""

from __future__ import annotations

from fovea.data.types import Dataset
from fovea.engine.progress import Display
from fovea.uses.health.album import Album
from fovea.uses.health.classes import check_classes
from fovea.uses.health.duplicates import check_duplicates, exact_duplicates
from fovea.uses.health.files import check_files
from fovea.uses.health.finding import Finding, by_severity
from fovea.uses.health.near import near_duplicates
from fovea.uses.health.outliers import ONE_COLOUR, check_outliers
from fovea.uses.health.suspects import Judged, check_labels

_LINES = 5
_SMALL = 5000  # images of files up to which near duplicates are looked for before a training, too: about a second


def check_health(album: Album, display: Display | None = None, judged: Judged | None = None) -> list[Finding]:
    """All findings, the serious ones first; two passes over the images, with little memory.

    Args:
        judged: what trained networks say of the images, for doubts about labels.
    """
    dataset = album.dataset
    display = display or Display(quiet=True)
    with display:
        display.start(2 * len(album))
        measures = album.measure(display.advance)
        exact = exact_duplicates(measures.digests, measures.contrast < ONE_COLOUR)
        near = near_duplicates(
            measures.descriptors, album.labels, album.pick,
            lambda done: display.advance(len(album) + done, "comparing"),
        )  # fmt: skip
    found = check_files(dataset) + check_duplicates(album, exact, near)
    doubts = check_labels(album, judged) if judged is not None else []
    return by_severity(doubts + found + check_classes(dataset) + check_outliers(album, measures))


def short_check(dataset: Dataset) -> list[str]:
    """At most five lines about what is serious or a warning, for the start of a training; none where all is well.

    Near duplicates take long: they are looked for among the pictures of files only, and not in large sets.
    """
    nearly = bool(dataset.facts.files) and sum(map(len, dataset.splits.values())) <= _SMALL
    album = Album(dataset)
    if nearly:
        found = check_health(album)
    else:
        exact = exact_duplicates(album.digests())
        none = exact_duplicates([])
        found = check_files(dataset) + check_duplicates(album, exact, none) + check_classes(dataset)
    worth = [finding for finding in by_severity(found) if finding.severity != "note"]
    if not worth:
        return []
    lines = [f"{finding.severity}: {finding.text}" for finding in worth[: _LINES - 1]]
    more = f"{len(worth) - len(lines)} more, and " if len(worth) > len(lines) else ""
    unsought = "" if nearly else "; near duplicates were not looked for"
    return [*lines, f"{more}pictures of these: fovea inspect {dataset.name}{unsought}"]
