"""The same features in several runs: models of one family, checkpoints of one training."""
