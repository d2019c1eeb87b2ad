"""Linear classifiers on chosen columns."""
