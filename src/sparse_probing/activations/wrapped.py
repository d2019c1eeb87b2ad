"""Networks in memory: the part of one that is read."""

from __future__ import annotations

from transformers import PreTrainedModel


def reading_part(network: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder model, any other model as it is."""
    return network.get_encoder() if network.config.is_encoder_decoder else network
