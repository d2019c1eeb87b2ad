"""Train the bundled demo model: a byte-level BPE tokenizer and a small GPT-NeoX language model, on a folder of JSONL text.

    python tools/demo_model/train.py --data CORPUS_FOLDER --out BUILD_FOLDER [--recipe recipe.toml] [--threads 2]

The corpus folder holds `train.jsonl.zst` and `valid.jsonl.zst` (plain `.jsonl` works too); each line has `text` and may have
`code_language`. The run resumes from its last checkpoint; a longer or shorter `tokens` in the recipe is honoured on resume.
The result in `BUILD_FOLDER/model` loads with `AutoModelForCausalLM.from_pretrained`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from sparse_probing.datasets.readers import Row, read_rows

END_OF_TEXT = "<|endoftext|>"


def read_documents(folder: Path, split: str) -> list[Row]:
    """Rows of one split, in file order."""
    packed = folder / f"{split}.jsonl.zst"
    return read_rows(packed if packed.exists() else folder / f"{split}.jsonl")


def train_tokenizer(folder: Path, settings: dict) -> Tokenizer:
    """Byte-level BPE; digits are single tokens, so that numbers do not fill the small vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=settings["vocab_size"],
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = (str(row["text"]) for row in read_documents(folder, "train")[:: settings["sample_every"]])
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def encode_split(folder: Path, split: str, tokenizer: Tokenizer, weight_code: float, seed: int) -> np.ndarray:
    """All documents of a split in random order, each closed by the end-of-text token, as one flat uint16 array."""
    rng = np.random.default_rng(seed)
    rows = read_documents(folder, split)
    repeats = [weight_code if row.get("code_language") else 1.0 for row in rows]
    copies = [int(r) + int(rng.random() < r - int(r)) for r in repeats]
    order = rng.permutation(np.repeat(np.arange(len(rows)), copies))
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = [
        np.array([*encoding.ids, end], dtype=np.uint16)
        for encoding in tokenizer.encode_batch([str(r["text"]) for r in rows])
    ]
    return np.concatenate([ids[i] for i in order])


def prepare(folder: Path, out: Path, recipe: dict) -> dict[str, np.ndarray]:
    """Tokenizer and token files, made once."""
    if not (out / "tokenizer.json").exists():
        print("training the tokenizer ...", flush=True)
        train_tokenizer(folder, recipe["tokenizer"]).save(str(out / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    for split, weight in (("train", recipe["data"]["weight_code"]), ("valid", 1.0)):
        if not (out / f"{split}.npy").exists():
            print(f"encoding {split} ...", flush=True)
            tokens = encode_split(folder, split, tokenizer, weight, recipe["training"]["seed"])
            np.save(out / f"{split}.partial.npy", tokens)
            (out / f"{split}.partial.npy").replace(out / f"{split}.npy")
    return {split: np.load(out / f"{split}.npy", mmap_mode="r") for split in ("train", "valid")}


def new_model(recipe: dict, vocabulary: int) -> GPTNeoXForCausalLM:
    torch.manual_seed(recipe["training"]["seed"])
    config = GPTNeoXConfig(
        **recipe["model"],
        vocab_size=vocabulary,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
        use_parallel_residual=True,
        hidden_act="gelu",
    )
    return GPTNeoXForCausalLM(config)


def optimisers(model: GPTNeoXForCausalLM, settings: dict) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else."""
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in n)]
    return [
        torch.optim.Muon(hidden, lr=settings["muon_rate"], weight_decay=settings["weight_decay"], momentum=0.95),
        torch.optim.AdamW(rest, lr=settings["adam_rate"], betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int, settings: dict) -> float:
    """Warm-up, constant, linear cool-down."""
    cooldown = max(1, round(settings["cooldown_fraction"] * steps))
    return min(1.0, (step + 1) / settings["warmup_steps"], (steps - step) / cooldown)


def batch(tokens: np.ndarray, step: int, settings: dict) -> torch.Tensor:
    """Windows of step `step`: each pass over the text is a fresh permutation of windows with a fresh offset."""
    length = settings["context_length"]
    rows = settings["batch_tokens"] // length
    per_pass = (len(tokens) - length) // length // rows
    pass_number, index = divmod(step, per_pass)
    rng = np.random.default_rng([settings["seed"], pass_number])
    offset = int(rng.integers(length))
    windows = rng.permutation(per_pass * rows)[index * rows : (index + 1) * rows]
    return torch.from_numpy(
        np.stack([tokens[offset + w * length : offset + (w + 1) * length] for w in windows]).astype(np.int64)
    )


def next_token_loss(model: GPTNeoXForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy in nats: matrix products in bfloat16, the softmax in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.gpt_neox(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        logits = model.get_output_embeddings()(hidden).flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: GPTNeoXForCausalLM, tokens: np.ndarray, length: int) -> float:
    """Nats per token on 64 windows spread evenly over the held-out text."""
    model.eval()
    starts = np.linspace(0, len(tokens) - length - 1, 64).astype(int)
    ids = torch.from_numpy(np.stack([tokens[s : s + length] for s in starts]).astype(np.int64))
    losses = [next_token_loss(model, part).item() for part in ids.split(16)]
    model.train()
    return sum(losses) / len(losses)


def save_checkpoint(path: Path, model: GPTNeoXForCausalLM, parts: list[torch.optim.Optimizer], step: int) -> None:
    """Weights, optimiser moments and the step number in one safetensors file."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for i, part in enumerate(parts):
        for index, state in part.state_dict()["state"].items():
            tensors |= {f"optim.{i}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    save_file(
        {k: v.contiguous() for k, v in tensors.items()}, path.with_suffix(".partial"), metadata={"step": str(step)}
    )
    path.with_suffix(".partial").replace(path)


def load_checkpoint(path: Path, model: GPTNeoXForCausalLM, parts: list[torch.optim.Optimizer]) -> int:
    from safetensors import safe_open

    tensors = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for i, part in enumerate(parts):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optim.{i}."):
                _, _, index, name = key.split(".", 3)
                state.setdefault(int(index), {})[name] = value
        part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def beginning_with_end_of_text(tokenizer: Tokenizer) -> processors.PostProcessor:
    """A template that puts the end-of-text token in front, where every document had it in training."""
    return processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{END_OF_TEXT} $A",
                pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B",
                special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))],
            ),
        ]
    )


def export(model: GPTNeoXForCausalLM, out: Path) -> None:
    """Float16 weights, config and tokenizer in the usual Hugging Face layout."""
    target = out / "model"
    GPTNeoXForCausalLM(model.config).half().save_pretrained(target)  # writes config.json with dtype float16
    model_half = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(model_half, target / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.post_processor = beginning_with_end_of_text(tokenizer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=model.config.max_position_embeddings,
    ).save_pretrained(target)


def train(
    model: GPTNeoXForCausalLM, tokens: dict[str, np.ndarray], settings: dict, out: Path, *, compiled: bool
) -> None:
    training_loss = torch.compile(next_token_loss) if compiled else next_token_loss
    parts = optimisers(model, settings)
    checkpoint = out / "checkpoint.safetensors"
    first = load_checkpoint(checkpoint, model, parts) if checkpoint.exists() else 0
    steps = math.ceil(settings["tokens"] / settings["batch_tokens"])
    base_rates = [settings["muon_rate"], settings["adam_rate"]]
    saved = started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, open(out / "loss.jsonl", "a", encoding="utf-8") as log:
        task = progress.add_task("training", total=steps, completed=first)
        for step in range(first, steps):
            ids = batch(tokens["train"], step, settings)
            loss = training_loss(model, ids)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings["gradient_clip"])
            for part, rate in zip(parts, base_rates, strict=True):
                part.param_groups[0]["lr"] = rate * rate_factor(step, steps, settings)
                part.step()
                part.zero_grad(set_to_none=True)
            done = step + 1
            progress.update(task, completed=done, description=f"loss {loss.item():.3f}")
            if done % settings["evaluate_every_steps"] == 0 or done == steps:
                row = {
                    "step": done,
                    "tokens": done * settings["batch_tokens"],
                    "train_loss_nats": round(loss.item(), 4),
                    "held_out_loss_nats": round(held_out_loss(model, tokens["valid"], settings["context_length"]), 4),
                    "tokens_per_s": round((done - first) * settings["batch_tokens"] / (time.monotonic() - started)),
                }
                log.write(json.dumps(row) + "\n")
                log.flush()
            if time.monotonic() - saved > settings["checkpoint_every_s"] or done == steps:
                save_checkpoint(checkpoint, model, parts, done)
                saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl.zst and valid.jsonl.zst")
    parser.add_argument("--out", type=Path, required=True, help="build folder; resumed when it holds a checkpoint")
    parser.add_argument("--recipe", type=Path, default=Path(__file__).with_name("recipe.toml"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="skip torch.compile, which needs a C++ compiler and is 1.3 times faster",
    )
    arguments = parser.parse_args()
    recipe = tomllib.loads(arguments.recipe.read_text(encoding="utf-8"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    tokens = prepare(arguments.data, arguments.out, recipe)
    print({split: f"{len(values):,} tokens" for split, values in tokens.items()}, flush=True)
    vocabulary = Tokenizer.from_file(str(arguments.out / "tokenizer.json")).get_vocab_size()
    model = new_model(recipe, vocabulary)
    train(model, tokens, recipe["training"], arguments.out, compiled=not arguments.no_compile)
    export(model, arguments.out)
    print(f"wrote {arguments.out / 'model'}")


if __name__ == "__main__":
    main()
