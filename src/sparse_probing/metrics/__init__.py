"""Scores of a classifier, thresholds, intervals."""
