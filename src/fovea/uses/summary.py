"""What a run's figures say, in sentences."""

from __future__ import annotations

from typing import Any

from fovea.calibration import Calibration
from fovea.data.splits import how_split
from fovea.metrics import most_confused, unequal
from fovea.run import Run


def summary(run: Run, metrics: dict[str, Any] | None) -> list[str]:
    """The paragraphs at the head of the report: how good, how that was measured, where it fails."""
    if metrics is None:
        return ["No test figures: the run was stopped before its end, or its data has no test split."]
    low, high = metrics["accuracy_interval"]
    lines = [
        f"Of {metrics['num_images']:,} {metrics['split']} images, {100 * metrics['accuracy']:.1f} % were recognized. "
        f"The test images are a sample: with 95 % confidence the share among all such images lies between "
        f"{100 * low:.1f} % and {100 * high:.1f} %. The interval knows nothing of luck in training: this is one run "
        "with one seed.",
        *_balance(metrics),
        *_views(metrics),
        *_classes(metrics),
        *_silence(metrics),
    ]
    pairs = most_confused(metrics, 1)
    if pairs:
        truth, guess, number = pairs[0]
        share = number / max(1, next(row["support"] for row in metrics["per_class"] if row["class"] == truth))
        lines.append(
            f"Most frequent mistake: {truth} taken for {guess}, {number} {'time' if number == 1 else 'times'} ({100 * share:.1f} % of {truth})."
        )
    return lines


def splits(run: Run, calibration: Calibration) -> list[str]:
    """What chose, and what measured."""
    held_out = run.held_out
    lines = how_split(run.config.data, held_out)
    if "test" not in held_out:
        lines.append("Test: the images that the data names as such.")
    lines.append("The test images were looked at once, after all choices.")
    if held_out.get("val") or calibration.accuracy is not None or any(row["val_loss"] for row in run.results[:1]):
        which = "" if held_out.get("val") else ", those that the data names as such,"
        lines.append(
            f"The val images{which} chose the epoch whose weights are kept, the temperature and the thresholds."
        )
    else:
        lines.append(
            "There is no val split, so nothing was chosen by one: the weights are those of the last epoch, and the "
            "probabilities are not calibrated. --val-fraction 0.1 keeps a tenth of the training images apart for that."
        )
    return lines


def probability_lines(metrics: dict[str, Any]) -> list[str]:
    """What the calibration error says; nothing of a run that is older than it."""
    if "calibration" not in metrics:
        return []
    found = metrics["calibration"]
    before = found["before"]
    low, high = found["ece_interval"]
    lines = []
    if found["temperature"] != 1:
        low_t, high_t = found["temperature_interval"]
        sure = (
            "too sure of itself"
            if low_t > 1
            else "not sure enough of itself"
            if high_t < 1
            else "about as sure as right"
        )
        lines.append(
            f"On val the network was {sure} when it left training: the temperature that its logits are best divided by is "
            f"{found['temperature']:.2f} (95 % interval {low_t:.2f} to {high_t:.2f}; above 1 means too sure). On "
            f"{metrics['split']} its probabilities missed the share of right answers by {100 * before['ece']:.1f} points on "
            f"average (the expected calibration error); after the temperature, by {100 * found['ece']:.1f} points (95 % "
            f"interval {100 * low:.1f} to {100 * high:.1f}). No prediction changes. All probabilities of this page, of "
            "predictions.csv and of fovea predict are those after it."
        )
    else:
        lines.append(
            f"The probabilities miss the share of right answers by {100 * found['ece']:.1f} points on average (the expected "
            f"calibration error; 95 % interval {100 * low:.1f} to {100 * high:.1f}). They are as the network gives them"
            f"{': ' if found['note'] else ''}{found['note']}."
        )
    lines.append(
        f"On {metrics['num_images']:,} images even perfect probabilities would show {100 * found['ece_by_chance']:.1f} points, by chance: only "
        f"what is clearly above that is the network's. With equally many images in every bin, the error is "
        f"{100 * found['adaptive_ece']:.1f} points."
    )
    return lines


def _balance(metrics: dict[str, Any]) -> list[str]:
    if not unequal(metrics):
        return []
    sizes = [row["support"] for row in metrics["per_class"] if row["support"]]
    low, high = metrics["balanced_accuracy_interval"]
    return [
        f"The classes differ in size ({min(sizes):,} to {max(sizes):,} images), so accuracy speaks mostly of the large ones. "
        f"Balanced accuracy counts every class alike: {100 * metrics['balanced_accuracy']:.1f} % "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f})."
    ]


def _classes(metrics: dict[str, Any]) -> list[str]:
    """The best and the worst class, and how little may be known of the worst."""
    ranked = sorted((row for row in metrics["per_class"] if row["support"]), key=lambda row: row["accuracy"])
    worst, best = ranked[0], ranked[-1]
    low, high = worst["interval"]
    return [
        f"Best recognized is {best['class']} ({100 * best['accuracy']:.1f} %), worst {worst['class']} "
        f"({100 * worst['accuracy']:.1f} % of its {worst['support']:,} images; 95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f})."
    ]


def _silence(metrics: dict[str, Any]) -> list[str]:
    """What the run's threshold gives; nothing where it has none, or answers everything."""
    rows = [row for row in metrics.get("thresholds", []) if row["target"] == metrics["auto_target"]]
    return [
        f"If it says “I don’t know” below a probability of {row['threshold']:.2f} (chosen on val, so that {100 * row['target']:g} % "
        f"of its answers are right), it answers {100 * row['coverage']:.1f} % of the {metrics['split']} images, and "
        f"{100 * row['accuracy']:.1f} % of these answers are right: fovea predict RUN IMAGE --min-confidence auto."
        for row in rows
        if row["threshold"] and row["accuracy"] is not None
    ]


def _views(metrics: dict[str, Any]) -> list[str]:
    if metrics["views"] == 1:
        return []
    single = metrics["single_view"]["accuracy"]
    return [
        f"The network saw each image in {metrics['views']} views (mirrored, shifted) and its answers were averaged; "
        f"by a single view, as the image is, it recognized {100 * single:.1f} %. Predictions average in the same way."
    ]
