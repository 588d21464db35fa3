"""What is wrong with a data set: one file a kind of check, each a function from an album to findings."""
