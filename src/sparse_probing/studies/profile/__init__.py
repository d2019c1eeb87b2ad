"""A neuron at every token of a feature's texts: is it the context or the token that it answers to?"""

USES = ("effects", "examples")
"""Studies that it imports."""
