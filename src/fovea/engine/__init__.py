"""The engine: the training loop, and evaluation."""
