"""Redundancy of a feature's neurons, and superposition of features in them."""
