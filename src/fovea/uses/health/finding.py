"""What a check found, in one form for the terminal, the page, JSON and the first lines of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")
_EXAMPLES = 3  # groups of ids that the terminal names


@dataclass(frozen=True)
class Seen:
    """A picture that a finding is about."""

    id: str
    split: str = ""
    label: str = ""  # its class
    note: str = ""  # what a person reads under it
    facts: dict[str, Any] = field(default_factory=dict)  # what a program reads
    row: int | None = None  # in the album; None: it could not be decoded

    def to_json(self) -> dict[str, Any]:
        """Without what is empty."""
        return {
            name: value
            for name, value in {"id": self.id, "split": self.split, "class": self.label, **self.facts}.items()
            if value != ""
        }


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be: a sentence, and the pictures, in groups that belong together."""

    kind: str
    severity: Severity
    text: str  # what it does, and what to do
    groups: Sequence[tuple[Seen, ...]] = ()  # the worst first

    def to_json(self) -> dict[str, Any]:
        """`kind`, `severity`, `text`, `groups`: lists of lists of pictures."""
        groups = [[seen.to_json() for seen in group] for group in self.groups]
        return {"kind": self.kind, "severity": self.severity, "text": self.text, "groups": groups}


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """The serious ones first."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def counted(findings: Sequence[Finding]) -> str:
    """`1 serious, 2 warnings, 1 note`."""
    parts = []
    for severity in SEVERITIES:
        number = sum(finding.severity == severity for finding in findings)
        ending = "s" if number != 1 and severity != "serious" else ""
        parts += [f"{number} {severity}{ending}"] if number else []
    return ", ".join(parts) or "nothing found"


def examples(finding: Finding) -> str:
    """The first groups by the names of their pictures: `a.png = b.png; ... and 3 more`."""
    shown = "; ".join(" = ".join(seen.id for seen in group[:3]) for group in finding.groups[:_EXAMPLES])
    more = len(finding.groups) - _EXAMPLES
    return shown + (f"; and {more:,} more" if more > 0 else "")
