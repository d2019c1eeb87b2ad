"""Defaults and limits of selection that the options of a run state, too: apart from the solvers, which take a second to import."""

from __future__ import annotations

SELECTION_RIDGE = 0.1
"""Ridge while a support is chosen: it hardly moves held-out scores up to k = 16 and keeps lower bounds tight."""
SMALLEST_GAP = 1e-5
"""Of an exact search: finer claims would be of the size of what rounding may take away."""
