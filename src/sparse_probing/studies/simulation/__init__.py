"""Recall of every selector on synthetic activations in which the units that carry a feature are known."""
