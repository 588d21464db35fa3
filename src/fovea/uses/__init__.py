"""Uses of a run: predict, export, inspect, plots, report."""
