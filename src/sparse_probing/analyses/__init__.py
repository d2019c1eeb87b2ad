"""A second look at the neurons that a run names."""
