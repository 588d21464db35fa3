"""One file per recipe: a function that returns a RunConfig."""
