"""scikit-learn estimators: probes and rankings for a matrix and labels, without any language model."""
