"""What the model writes while units are set to other values."""

USES = ("effects",)
"""Studies that it imports."""
