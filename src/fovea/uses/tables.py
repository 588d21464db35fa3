"""Results as text for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fovea.metrics import most_confused
from fovea.uses.health.finding import Finding, counted, examples
from fovea.uses.predict import Prediction

_PAIRS = 5


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output; the first column is text, the others are figures."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Piped, a table is as wide as it needs to be; on a terminal it folds.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    print("\n".join(["", *([title] if title else []), *(line for line in lines if line)]))


def print_metrics(metrics: dict[str, Any], first: list[dict[str, str]]) -> None:
    """The note's evaluation: the first images, the accuracy, the classes, and what is confused with what."""
    print("GroundTruth: ", " ".join(f"{row['label']:5s}" for row in first))
    print("Predicted:   ", " ".join(f"{row['prediction']:5s}" for row in first))
    print(accuracy_line(metrics))
    print("\n".join(trust_lines(metrics)))
    names = ("recall", "precision", "f1")
    rows = [
        [row["class"], *(text for n in names for text in (_percent(row[n]), _span(row[f"{n}_interval"]))), str(row["support"])]
        for row in metrics["per_class"]
    ]  # fmt: skip
    averages = ("balanced_accuracy", "macro_precision", "macro_f1")
    means = [text for n in averages for text in (_percent(metrics[n]), _span(metrics[f"{n}_interval"]))]
    columns = [text for name in ("accuracy", "precision", "F1") for text in (name, "95 % interval")]
    rows.append(["mean over classes", *means, str(metrics["num_images"])])
    print_table("per class (%)", ["class", *columns, "images"], rows)
    pairs = [[f"{truth} taken for {guess}", str(count)] for truth, guess, count in most_confused(metrics, _PAIRS)]
    if pairs:
        print_table("most confused", ["pair", "images"], pairs)


def accuracy_line(metrics: dict[str, Any]) -> str:
    """The one line that matters."""
    low, high = metrics["accuracy_interval"]
    return (
        f"accuracy on the {metrics['num_images']} {metrics['split']} images: {100 * metrics['accuracy']:.2f} % "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f})" + _views_part(metrics)
    )


def trust_lines(metrics: dict[str, Any]) -> list[str]:
    """Balanced accuracy, top-k, calibration error, and what the threshold gives; what an older run lacks is left out."""
    low, high = metrics["balanced_accuracy_interval"]
    lines = [
        f"balanced accuracy, the mean over the classes: {100 * metrics['balanced_accuracy']:.2f} % "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f})"
    ]
    if metrics.get("top_k"):
        best = ", ".join(f"{row['k']}: {_percent(row['accuracy'])} %" for row in metrics["top_k"])
        lines.append(f"the right class is among the first {best}")
    if "calibration" not in metrics:
        return lines
    found = metrics["calibration"]
    before = f", {_percent(found['before']['ece'])} % before temperature {found['temperature']:.2f}"
    lines.append(
        f"calibration error of the probabilities: {_percent(found['ece'])} % (95 % interval {_span(found['ece_interval'])}"
        f"{before if found['temperature'] != 1 else ''}){'; ' if found['note'] else ''}{found['note']}"
    )
    lines += [
        f"answering from probability {row['threshold']:.3f} on, chosen on val for {100 * row['target']:g} %: "
        f"{_percent(row['coverage'])} % answered, {_percent(row['accuracy'])} % of them right "
        f"({_span(row['accuracy_interval'])})"
        for row in metrics["thresholds"]
        if row["target"] == metrics["auto_target"] and row["accuracy"] is not None
    ]
    return lines


def cost_line(cost: dict[str, Any]) -> str:
    """What the training and the test took."""
    parts = []
    if "train_seconds" in cost:
        parts.append(f"training took {cost['train_seconds']:.2f} s ({cost['step_seconds']:.2f} s of steps)")
    if "test_seconds" in cost:
        parts.append(f"the test took {cost['test_seconds']:.2f} s")
    if cost.get("peak_memory_mb"):
        parts.append(f"at most {cost['peak_memory_mb']:,.0f} MB of memory")
    return ", ".join(parts)


def _views_part(metrics: dict[str, Any]) -> str:
    if metrics["views"] == 1:
        return ""
    single = metrics["single_view"]
    return f", averaged over {metrics['views']} views of each; by a single view {100 * single['accuracy']:.2f} %"


def print_predictions(answers: list[Prediction]) -> None:
    """A row a picture: the classes in order, each with its probability."""
    top = max((len(answer.top) for answer in answers), default=0)
    columns = ["picture", *(["prediction"] + [f"{rank}." for rank in range(2, top + 1)])]
    rows = [
        [a.path, *(f"{t['class']} {100 * t['probability']:.1f} %" for t in a.top)]
        if a.confident
        else [a.path, f"{a.answer} ({a.prediction} {100 * a.probability:.1f} %?)"]
        for a in answers
    ]
    print_table("", columns, rows)


def print_inspection(facts: dict[str, Any]) -> None:
    """What `fovea inspect` found."""
    height, width = facts["image_size"]
    counts = ", ".join(f"{count:,} {name}" for name, count in facts["num_images"].items())
    print(f"{facts['name']}: {len(facts['classes'])} classes, {counts}")
    if facts["split_by_fovea"]:
        print(f"split off train by Fovea, stratified and seeded: {', '.join(facts['split_by_fovea'])}")
    sizes = facts["sizes"]
    shown = ", ".join(f"{s['width']}×{s['height']} ({s['num_images']:,})" for s in sizes[:4])
    print(
        f"sizes in pixels: {shown}{f' and {len(sizes) - 4} more' if len(sizes) > 4 else ''}; used at {width}×{height}"
    )
    print(f"modes: {', '.join(f'{mode} ({count:,})' for mode, count in facts['modes'].items())}")
    for line in facts["skipped"]:
        print(f"skipped {line}")
    ranges = facts["range"]
    print_table(
        "value range of the training images",
        ["as", "lowest", "highest"],
        [
            ["stored (uint8)", *map(str, ranges["stored"])],
            ["ToTensor: / 255", *(f"{value:.3f}" for value in ranges["unit"])],
            ["rescaled: (x - 0.5) / 0.5, the note's transform", *(f"{value:.3f}" for value in ranges["rescaled"])],
            ["standardized: (x - mean) / std", *(f"{value:.3f}" for value in ranges["standardized"])],
        ],
    )
    names = ["red", "green", "blue"] if facts["channels"] == 3 else ["grey"]
    rows = [[n, f"{m:.4f}", f"{s:.4f}"] for n, m, s in zip(names, facts["mean"], facts["std"], strict=True)]
    print_table("train statistics per channel, of [0, 1]", ["channel", "mean", "std"], rows)
    splits = list(facts["per_class"])
    per_class = [
        [name, *(f"{facts['per_class'][split][row]:,}" for split in splits)]
        for row, name in enumerate(facts["classes"])
    ]
    print_table("images per class", ["class", *splits], per_class)


def print_findings(findings: Sequence[Finding]) -> None:
    """What is wrong with the data: a sentence each, and the first pictures by name."""
    print(f"\nhealth: {counted(findings)}")
    for finding in findings:
        print(f"  {finding.severity}: {finding.kind}: {finding.text}")
        if finding.groups:
            print(f"      {examples(finding)}")


def print_comparison(result: dict[str, Any]) -> None:
    """Groups, differences and classes of `fovea compare`."""
    groups = result["groups"]
    averaged = any(group["views"] > 1 for group in groups)
    unequal = any(group["unequal_classes"] for group in groups)
    rows = [
        [
            group["name"],
            str(len(group["runs"])),
            *([str(group["views"]), f"{100 * group['single_view_mean']:.2f}"] if averaged else []),
            f"{100 * group['mean']:.2f}",
            "" if group["std"] is None else f"{100 * group['std']:.2f}",
            f"{100 * group['interval'][0]:.2f} to {100 * group['interval'][1]:.2f}",
            group["interval_of"],
            *([f"{100 * group['balanced_accuracy']:.2f}"] if unequal else []),
            f"{group['train_seconds']:.1f}",
            f"{group['num_parameters']:,}",
        ]
        for group in groups
    ]
    columns = ["group", "runs", *(["views", "one view %"] if averaged else []), "accuracy %", "std"]
    columns += ["95 % interval", "over", *(["balanced %"] if unequal else []), "training s", "parameters"]
    print_table("test accuracy", columns, rows)
    if all(len(group["runs"]) == 1 for group in groups):
        print("one run each: the intervals know of the test images, not of luck in training; repeat with other --seed")
    for group in groups:
        if "pooled" in group:
            pooled = group["pooled"]
            print(
                f"{group['name']}, the tests of all {len(group['folds'])} folds together: {100 * pooled['accuracy']:.2f} % of "
                f"{pooled['num_images']:,} images ({_span(pooled['interval'])})"
            )
    if any("pooled" in group for group in groups):
        print("folds share training images, so an interval over them is somewhat too narrow (Bengio & Grandvalet 2004)")
    differences = [
        [
            f"{row['group']} against {row['against']}",
            str(len(row["seeds"])),
            f"{100 * row['mean']:+.2f}",
            "" if row["interval"] is None else f"{100 * row['interval'][0]:+.2f} to {100 * row['interval'][1]:+.2f}",
            "" if row["p_value"] is None else f"{row['p_value']:.3f}",
        ]
        for row in result["differences"]
    ]
    if differences:
        columns = ["points of accuracy", "common seeds", "difference", "95 % interval", "p (paired t-test)"]
        print_table("differences", columns, differences)
    first, *others = groups
    if not others:
        classes = [
            [
                row["class"],
                _percent(row["accuracy"]),
                "" if row["std"] is None else _percent(row["std"]),
                _span(row["interval"]),
            ]
            for row in first["per_class"]
        ]
        print_table("per class (%)", ["class", "accuracy", "std", "95 % interval"], classes)
        return
    classes = [
        [
            row["class"],
            _percent(row["accuracy"]),
            *(f"{100 * (group['per_class'][k]['accuracy'] - row['accuracy']):+.1f}" for group in others),
        ]
        for k, row in enumerate(first["per_class"])
    ]
    print_table("accuracy per class (%), and points of difference", ["class", *(g["name"] for g in groups)], classes)


def _span(interval: list[float]) -> str:
    return f"{_percent(interval[0])} to {_percent(interval[1])}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
