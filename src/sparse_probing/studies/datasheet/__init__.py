"""What labelled text is, before any model reads it: balance, histograms, audit, confounds, preview."""
