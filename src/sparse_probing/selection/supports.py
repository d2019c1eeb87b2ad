"""What a selector returns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

Supports = dict[int, Int[np.ndarray, " _"]]
"""k -> chosen columns, ascending."""
