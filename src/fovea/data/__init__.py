"""From files to batches, in the order in which an image passes: sources, prepare, preprocess, loader."""
