"""The second look: the evidence on every neuron that a run names."""
