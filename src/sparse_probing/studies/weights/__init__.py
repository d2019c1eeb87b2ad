"""What the neurons' output weights do to the logits, and statistics of their weights."""
