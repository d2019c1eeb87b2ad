"""Findings in, Vega-Lite specifications out: the same JSON for notebook, report and explorer."""
