"""Histograms and text examples of the neurons that a run names."""
