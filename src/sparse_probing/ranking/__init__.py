"""One score per unit and feature, all features of a category in one pass over the activations of a layer."""
