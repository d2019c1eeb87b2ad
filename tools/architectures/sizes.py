"""Tiny configurations of every text architecture: a rule for all of them, and a table for the types that need more."""

from __future__ import annotations

import copy
import inspect
import re
from functools import cache
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import modeling_auto as auto

HEADS = {
    "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
WIDTH, NEURONS, HEADS_PER_LAYER, HEAD, EXPERT, SHARED, CONTEXT = 64, 160, 4, 16, 48, 96, 128

GENERIC: dict[str, int] = (
    dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim"), WIDTH)
    | dict.fromkeys(("d_embed", "embedding_dim", "input_embedding_size", "output_embedding_size"), WIDTH)
    | dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "d_ff", "d_inner", "dff", "dim_ff", "hidden_dim"), NEURONS)
    | dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "dense_intermediate_size"), NEURONS)
    | dict.fromkeys(("intermediate_size_mlp", "feed_forward_size"), NEURONS)
    | dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), HEADS_PER_LAYER)
    | dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS_PER_LAYER)
    | dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), HEADS_PER_LAYER)
    | dict.fromkeys(("swa_num_attention_heads", "index_n_heads"), HEADS_PER_LAYER)
    | dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads", "swa_num_key_value_heads"), 2)
    | dict.fromkeys(("head_dim", "d_head", "d_kv", "dim_head", "attention_head_size", "swa_head_dim"), HEAD)
    | dict.fromkeys(("global_head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim", "kv_channels"), HEAD)
    | dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), HEAD)
    | dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), HEADS_PER_LAYER)
    | {"qk_rope_head_dim": 8, "q_lora_rank": 32, "kv_lora_rank": 32, "rotary_dim": 8, "qk_head_dim": HEAD + 8}
    | dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4)
    | dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2)
    | dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), EXPERT)
    | dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size"), SHARED)
    | dict.fromkeys(("shared_experts_intermediate_size", "moe_shared_expert_intermediate_size"), SHARED)
    | dict.fromkeys(("n_group", "topk_group", "num_expert_group"), 1)
    | dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length"), CONTEXT)
    | dict.fromkeys(("max_encoder_position_embeddings", "max_decoder_position_embeddings"), CONTEXT)
    | dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size"), 8)
    | dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), HEADS_PER_LAYER)
    | dict.fromkeys(("image_size",), 28)
)  # fmt: skip
"""Name of a setting -> its tiny value, wherever a configuration has a whole number under that name."""
LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers",
    "num_encoder_layers", "num_blocks",
)  # fmt: skip

SOUND = re.compile(r"audio_(config|encoder|token)|acoustic|speech_encoder|mel_bins")
LINEAR_THEN_FULL = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
CORRECTIONS: dict[str, dict[str, Any]] = {
    "bailing_hybrid": LINEAR_THEN_FULL,
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [1, 3], "mamba_d_head": 32},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "dots1": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "dots3_note_text": {"num_key_value_heads": 4},
    "cohere_compass_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_routed_experts": 4},
    "emu3": {"vocabulary_map": {"<image>": 5}},
    "esm": {"pad_token_id": 1, "mask_token_id": 2},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_d_head": 32},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
        "num_hidden_layers": 4,
        "hidden_size_per_layer_input": 16,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "gemma4_text": {
        "hidden_size_per_layer_input": 16,
        "use_double_wide_mlp": True,
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"num_hidden_layers": 4, "attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {
        "num_hidden_layers": 4,
        "layer_types": ["mamba", "attention", "mamba", "attention"],
        "mamba_d_head": 32,
    },
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "kimi_linear": LINEAR_THEN_FULL,
    "led": {"attention_window": 16},
    "lfm2": {"block_auto_adjust_ff_dim": False, "num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "longcat_flash": {"zero_expert_num": 2},
    "mamba2": {"head_dim": 32, "n_groups": 1},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {
        "n_groups": 1,
        "mamba_head_dim": 32,
        "layer_types": ["linear_attention", "mlp", "full_attention", "moe"],
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
        "hc_lowrank": 8,
    },
    "qwen3_5_moe_text": LINEAR_THEN_FULL,
    "qwen3_5_text": LINEAR_THEN_FULL,
    "qwen3_next": LINEAR_THEN_FULL,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 48],
        "is_decoder": False,
        "attn_layers": ["local", "lsh"] * 2,
        "num_buckets": 4,
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 6,
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
        "mamba_dt_rank": 4,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "num_key_value_heads": 4,
        "adapter_rank": 8,
    },
    "xlstm": {"embedding_dim": 128, "hidden_size": 128, "num_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}
"""Type -> what else it needs, on top of the rule."""


@cache
def text_types() -> dict[str, tuple[str, ...]]:
    """Every architecture with a language-model head -> the kinds of its heads; those of sound left out, see `of_sound`."""
    found: dict[str, tuple[str, ...]] = {}
    for head, names in HEADS.items():
        for name in names:
            found[name] = (*found.get(name, ()), head)
    return {name: found[name] for name in sorted(found) if not of_sound(name)}


def of_sound(kind: str) -> bool:
    """Whether a type's configuration has a part for sound.

    Such models take sound, or wrap a text model that has a type of its own and is surveyed as that.
    """
    fields = inspect.signature(CONFIG_MAPPING[kind]).parameters
    return any(SOUND.search(name) for name in fields)


def tiny_config(kind: str, vocabulary: int, layers: int) -> PreTrainedConfig:
    """The configuration of a type with every known size made small.

    Args:
        kind: `model_type`.
        vocabulary: tokens of the tokenizer.
        layers: blocks, where the type needs no certain number.
    """
    return _tiny(CONFIG_MAPPING[kind], kind, vocabulary, layers)


def _tiny(cls: Any, kind: str, vocabulary: int, layers: int) -> Any:
    settings: dict[str, Any] = {}
    try:
        default = cls().to_dict()
    except Exception:
        default = {name: field.default for name, field in inspect.signature(cls).parameters.items()}
    for key, value in default.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if key in GENERIC and (whole or (key in ("n_inner", "head_dim") and value is None)):
            settings[key] = GENERIC[key]
        elif key in LAYERS and whole:
            settings[key] = layers
        elif key == "vocab_size" or (key.endswith("vocab_size") and whole):
            settings[key] = vocabulary
        elif key.endswith("_token_id") and whole:
            settings[key] = min(value, vocabulary - 1)
    if default.get("pad_token_id", 0) is None:
        settings["pad_token_id"] = 0
    if "qk_rope_head_dim" in default and "head_dim" in settings:
        settings["head_dim"] = GENERIC["qk_rope_head_dim"]  # rotary embeddings take their size from there
    if "qk_rope_head_dim" in default:
        settings["num_key_value_heads"] = HEADS_PER_LAYER  # latent attention gives every head keys of its own
    for name, sub in getattr(cls, "sub_configs", {}).items():
        inner = default.get(name)
        named = inner.get("model_type") if isinstance(inner, dict) else None
        part = CONFIG_MAPPING[named] if named in set(CONFIG_MAPPING) else sub
        if issubclass(part, PreTrainedConfig):
            settings[name] = _tiny(part, named or part.model_type, vocabulary, layers)
    settings |= copy.deepcopy(CORRECTIONS.get(kind, {}))
    return cls(**settings)
