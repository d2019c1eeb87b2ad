"""Which columns a sparse probe may use."""
