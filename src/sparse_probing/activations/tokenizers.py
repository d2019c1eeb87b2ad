"""The tokenizer of a model: token ids with the characters that each covers, and the special tokens around a text."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sparse_probing.activations.loading import loading
from sparse_probing.activations.model_files import ModelFiles
from sparse_probing.datasets.align import TextTokenizer, special_tokens
from sparse_probing.errors import InputError


def load_tokenizer(files: ModelFiles, config: Any, *, trust_remote_code: bool) -> TextTokenizer:
    """The tokenizer in a model's folder, or on the hub.

    Args:
        files: of the model.
        config: the model's configuration.
        trust_remote_code: run code that comes with the model.

    Raises:
        InputError: none there, or one that cannot be used.
    """
    path, options = files.text_source()
    with loading(files.name, "the tokenizer of"):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, **options)
    return text_tokenizer(tokenizer, files.name, config.model_type)


def text_tokenizer(tokenizer: Any, name: str, model_type: str) -> TextTokenizer:
    """The Rust tokenizer with the special tokens that the model expects around a text.

    Raises:
        InputError: a tokenizer written in Python, which cannot say which characters a token covers.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"the tokenizer of {name!r} ({type(tokenizer).__name__}) reports no character offsets: put a fast one "
            f"(PreTrainedTokenizerFast, file tokenizer.json) for {model_type} models into the model's folder."
        )
    backend = tokenizer.backend_tokenizer
    front, behind = special_tokens(backend, None if tokenizer.bos_token is None else str(tokenizer.bos_token))
    return TextTokenizer(backend=backend, front=front, behind=behind)
