"""Options of a run: one frozen model for the command line, the TOML file and Python. A field's docstring is its help text."""

from __future__ import annotations

import json
import os
import tomllib
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sparse_probing.errors import InputError, unusable
from sparse_probing.files import file_name, no_file
from sparse_probing.records import NEURONS, Pooling, Role, SpecialTokens, TextFormat
from sparse_probing.selection.defaults import SELECTION_RIDGE, SMALLEST_GAP

Selected = Literal[
    "greedy_swap",
    "exact",
    "shrinking_elastic_net",
    "l1_path",
    "recursive_elimination",
    "orthogonal_matching_pursuit",
    "mean_difference",
    "mutual_information",
]


SourceName = Literal[
    "part-of-speech",
    "dependencies",
    "morphology",
    "natural-language",
    "programming-language",
    "kind-of-text",
    "text-features",
    "compound-words",
    "latex",
    "people",
    "relations",
    "sequence-position",
    "demo",
]


LONGEST_CONFIG = 1 << 20
FEWEST_PLACEBOS = 20
"""With 20 the smallest p is 1 in 21."""


LONGEST_NAME = 120
"""Bytes of a file's name that a run folder takes over as they are."""


LONGEST_RUN_NAME = 200


class DataConfig(BaseModel):
    """Which labelled text, and how it becomes rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = "demo"
    """Model: `demo` (bundled), a local folder (a PEFT adapter is merged into the model below it), a .gguf file, or a hub id such as
    EleutherAI/pythia-70m."""
    base: str | None = None
    """Model below a PEFT adapter (--model names the adapter's folder), where the one that the adapter names is not at hand."""
    trust_remote_code: bool = False
    """Run program code that comes with the model, where it needs some. It runs here with all your rights: off unless you say so."""
    special_tokens: SpecialTokens | None = "auto"
    """What stands around a text. auto: what the model's tokenizer itself adds. bos: that, with one BOS in front, as TransformerLens
    and the paper have it. none: nothing."""
    chat_template: bool = False
    """Give each text as a message in the model's chat template (docs/texts.md); labels stay on the text's own characters."""
    system: str | None = None
    """With --chat-template: the system message. Default: what the template puts there by itself."""
    role: Role | None = None
    """With --chat-template: who says the text. Default: user."""
    data: Path | None = None
    """Labelled text: a .csv, .tsv, .jsonl, .parquet (.gz, .zst) or .conllu file, a dataset folder (`sprobe datasets build`), a
    Hugging Face data set (its folder, or hf:OWNER/NAME[:CONFIG]); with --source, the folder that the source reads."""
    source: SourceName | None = None
    """Build one of the paper's feature categories from source text (`sprobe datasets list` tells them)."""
    paper_rules: bool = False
    """With --source: the paper's own rules for this category, defects included, instead of ours (docs/datasets.md)."""
    label: tuple[str, ...] = ()
    """Label column(s). 1/0, true/false, yes/no, or any two values, give one feature, more values one feature each, many numbers a
    regression; empty cells are left out. In a .conllu file: upos, xpos, deprel, feats.Tense, ..."""
    number: tuple[str, ...] = ()
    """Column(s) of numbers to predict by regression."""
    positive: tuple[str, ...] = ()
    """Which of two values of a label column is the feature: VALUE, or COLUMN=VALUE with several columns. Default: the rarer one."""
    label_regex: tuple[str, ...] = ()
    """NAME=PATTERN: the characters that a regular expression matches carry the feature NAME; probes single tokens."""
    text_column: str = "text"
    """Column that holds the text."""
    spans_column: str | None = None
    """Column with labelled character spans [{"start", "end", "label"}]; probes tokens (or spans) instead of whole texts."""
    tags_column: str | None = None
    """Column with a list of tags (BIO or plain), one per word of --tokens-column; probes tokens (or spans)."""
    tokens_column: str = "tokens"
    """Column with a list of words, for --tags-column."""
    template: tuple[str, ...] = ()
    """Prompt(s) with {column} places, filled with every row of the data; the text of --target is probed."""
    target: str | None = None
    """Column whose text in a --template is probed. Default: the last place of the template."""
    rows: Literal["tokens", "spans"] = "tokens"
    """What labelled characters become: one row per token, or one row per span, its tokens pooled."""
    category: str | None = None
    """Name under which the features of your own data appear in results. Default: the name of the file."""
    group_column: str | None = None
    """Column whose equal values must stay in one split (book, author). Default: each text is its own group."""
    pair_column: str | None = None
    """Column that names minimal pairs: a pair stays in one split, and its likeness is no duplicate."""
    split_column: str | None = None
    """Column that says train, validation or test. Default: split by group, balanced over features."""
    max_documents: int | None = None
    """Texts to draw (with --source: per class). Default: all of a file; what the source says."""
    pooling: Pooling | None = None
    """How the tokens of a text or span become one vector: mean, max, first or last. Default: mean, or what suits the source."""
    window: int | None = None
    """Tokens per sequence, special tokens included. Default: 256 or what suits the source; at most the model's context."""
    long_texts: Literal["window", "error"] | None = None
    """Texts longer than a window: cut them into windows (default), or refuse them."""
    windows_per_document: int | None = None
    """Windows that one long text may give; its other parts are left out (whole texts, not spans). Default: 1."""
    skip_first: int | None = None
    """Tokens at the start of a sequence that are left out: they have seen too little context. Default: 10, or what suits the
    source; none with --pooling last or first."""
    sampling: Literal["clipped", "natural", "balanced", "filled"] | None = None
    """Share of positives. natural: as found. balanced: half. clipped (default): as found for whole texts and templates, for tokens
    and spans between 25 % and 50 %. filled: the paper's, negatives fill the rows."""
    split_by: Literal["given", "group", "row"] | None = None
    """given: the source's own split where it has one, else by group (default). group: no document in two splits. row: at random, as
    in the paper: documents leak."""
    max_rows: int | None = None
    """Rows per feature for tokens and spans. Default: 4,000; all rows of whole texts and templates."""
    min_rows: int | None = None
    """Positives and negatives that each split must have; features with fewer are left out. Default: 5."""
    seed: int = 0
    """Seed of drawing, split, sampling, controls and bootstrap. Same seed, same bytes."""

    @model_validator(mode="after")
    def _data_fields_agree(self) -> DataConfig:
        for name in type(self).model_fields:
            value = getattr(self, name)
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str | Path) and (problem := unusable(str(text))):
                    raise ValueError(f"{name} holds {str(text)!a}, {problem}")
        self.text_format()
        if self.category is not None and not self.category.strip():
            raise ValueError("category must not be blank")
        if self.pooling is Pooling.TOKEN:
            raise ValueError("pooling 'token' is for single tokens (--rows tokens): choose mean, max, first or last")
        if self.window is not None and self.window <= (self.skip_first or 0):
            raise ValueError(f"window ({self.window}) must be larger than skip_first ({self.skip_first})")
        for name in ("windows_per_document", "max_rows", "min_rows", "max_documents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if (self.skip_first or 0) < 0 or self.seed < 0:
            raise ValueError("skip_first and seed must not be negative")
        if self.paper_rules and self.source in (None, "demo"):
            raise ValueError("paper_rules belongs to a --source of the paper's features")
        return self

    def text_format(self) -> TextFormat:
        """How texts are given to the model."""
        return TextFormat(
            special_tokens=self.special_tokens, chat_template=self.chat_template, system=self.system, role=self.role
        )

    def data_name(self) -> str:
        """Short name of the data, for folders: that of the source, or of the file."""
        if self.source is not None or self.data is None:
            return self.source or "run"
        name = self.data.name if str(self.data).startswith("hf:") else self.data.resolve().name
        name = name.removeprefix("hf:").split(".")[0].replace(":", "-") or "run"
        return name if len(os.fsencode(name)) <= LONGEST_NAME else file_name(name)


class RunConfig(DataConfig):
    """What to probe, with which data, and how."""

    name: str | None = None
    """Name of the run, such as "SmolLM2 on reviews": in the report, on the terminal, in comparisons. Default: the model's."""
    site: str = NEURONS
    """Where to look: mlp.neurons, mlp.pre, mlp.out, attn.heads, attn.out, resid.pre, resid.post, a TransformerLens hook name, or a
    module path (`sprobe sites MODEL` lists them)."""
    layers: tuple[int, ...] | None = None
    """Layers to probe, from 0. Default: all."""
    ks: tuple[int, ...] | None = None
    """Numbers of neurons to try. Default: 1 2 3 4 5 6 7 8 10 12 16 32 64 128 256."""
    methods: tuple[Selected, ...] = ("greedy_swap", "mean_difference")
    """How the k units are chosen: greedy_swap, shrinking_elastic_net (the paper's), l1_path, recursive_elimination,
    orthogonal_matching_pursuit, mean_difference, mutual_information, exact (proved, for --exact-ks). Several are compared on
    validation."""
    selection_ridge: float = SELECTION_RIDGE
    """Ridge while units are chosen; the chosen ones are fitted again with a small one. 0.3 makes proofs faster, hardly worse."""
    exact_ks: tuple[int, ...] = (1, 2, 3)
    """Method exact: numbers of neurons for which the best support is proved."""
    exact_layers: tuple[int, ...] | None = None
    """Method exact: layers. Default: all that are probed."""
    exact_gap: float = 1e-3
    """Method exact: the best support may be better than the one found by at most this share of the objective."""
    exact_nodes: int = 20_000
    """Method exact: bounds to compute for one support before it is left with the gap that remains."""
    permutations: int = 1_000
    """Permutations of the labels that tell whether the best of all units is better than chance; 0 for none."""
    random_model: bool = True
    """Also probe the same architecture with untrained weights, as a control (doubles the time in the model)."""
    device: str = "auto"
    """Torch device; auto takes CUDA where there is one."""
    device_map: Literal["auto", "balanced", "sequential"] | None = None
    """Spread a large model over several devices, in accelerate's way (needs the extra multi-device)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; auto takes the checkpoint's own on an accelerator and float32 on a CPU."""
    store_dtype: Literal["float16", "bfloat16", "float32", "int8"] = "float16"
    """Precision of stored activations."""
    workers: int | None = None
    """Processes that fit probes. Default: one per core. Results do not depend on it."""
    out: Path | None = None
    """Run folder. Default: runs/NAME, NAME from the data. A stopped run in it is continued."""

    @model_validator(mode="after")
    def _fields_agree(self) -> RunConfig:
        if self.device_map is not None and self.random_model:
            raise ValueError(
                "the untrained twin is not spread over several devices: add --no-random-model to --device-map"
            )
        if self.name is not None and not 0 < len(self.name.strip()) <= LONGEST_RUN_NAME:
            raise ValueError(f"name must have 1 to {LONGEST_RUN_NAME} characters")
        if not self.methods:
            raise ValueError("methods must name at least one way to choose units, such as greedy_swap")
        if not (self.selection_ridge > 0 and isfinite(self.selection_ridge)):
            raise ValueError(f"selection_ridge must be above 0, got {self.selection_ridge}")
        if not SMALLEST_GAP <= self.exact_gap < 1:
            raise ValueError(f"exact_gap must be from {SMALLEST_GAP:g} to 1, got {self.exact_gap}")
        if self.exact_nodes < 1 or not self.exact_ks or min(self.exact_ks) < 1:
            raise ValueError("exact_nodes must be at least 1, and exact_ks name sizes from 1 on")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.permutations != 0 and self.permutations < 100:
            raise ValueError(f"permutations must be 0 (none) or at least 100, got {self.permutations}")
        return self

    def folder(self) -> Path:
        """Where the run lives."""
        if self.out is not None:
            return self.out
        return Path("runs") / self.data_name()

    def identity(self) -> dict[str, Any]:
        """The options that shape the numbers: without the name and the place of the run and the number of workers."""
        values = self.model_dump(mode="json", exclude={"name", "out", "workers", "device_map"})
        for name in ("trust_remote_code", "chat_template"):
            if not values[name]:
                del values[name]  # runs from before there was this option are still the same runs
        return {key: value for key, value in values.items() if value is not None}


class VerifyConfig(BaseModel):
    """Options of `sprobe verify`: what is done to the neurons of a run, and on how many texts it is measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    feature: tuple[str, ...] = ()
    """Feature(s) to look at, by name or as category/name. Default: all of the run."""
    kinds: tuple[Literal["zero", "mean", "resample", "clamp"], ...] = ("zero",)
    """What neurons are set to: zero, their mean, values from other tokens (resample), or the heights of --doses (clamp)."""
    doses: tuple[str, ...] = ("1x", "2x", "4x")
    """Heights of clamps: 8 (a value), 2x (times the mean in class), q0.95 (a quantile in class)."""
    where: Literal["all", "labelled"] = "all"
    """Change neurons at all positions, or at those of the labelled rows only."""
    texts: int = 24
    """Texts in class, and as many out of class, on which losses are measured (per feature)."""
    placebos: int = 20
    """Random supports of equal size beside each, matched in mean absolute activation and output norm; at least 20."""
    sizes: tuple[int, ...] = (1,)
    """Whose texts suffer? So many first neurons of a feature are switched off together, and all features' texts read; 0: skip."""
    text: Path | None = None
    """Folder or file of unlabelled text, in which further examples are looked for."""
    seed: int = 0
    """Seed of drawing, placebos and bootstrap. Same seed, same bytes."""
    device: str | None = None
    """Where the model runs. Default: as in the run."""
    trust_remote_code: bool = False
    """Run program code that comes with the model, where it needs some; a run folder cannot ask for it."""
    replace: bool = False
    """Throw away a finished second look with other options."""

    @model_validator(mode="after")
    def _fields_agree(self) -> VerifyConfig:
        if self.texts < 1 or self.seed < 0:
            raise ValueError("texts must be at least 1, and seed not negative")
        if self.placebos < FEWEST_PLACEBOS:
            raise ValueError(
                f"placebos must be at least {FEWEST_PLACEBOS}, got {self.placebos}: fewer cannot reach p 0.05"
            )
        if not set(self.kinds) - {"clamp"}:
            raise ValueError(
                "kinds must name zero, mean or resample (a clamp is no ablation, on which the verdict rests)"
            )
        if "clamp" not in self.kinds and "doses" in self.model_fields_set:
            raise ValueError("doses are the heights of clamps: add clamp to kinds")
        if not self.sizes or min(self.sizes) < 0:
            raise ValueError("sizes must be whole numbers from 0 on")
        return self

    def identity(self) -> dict[str, Any]:
        """The options that shape the numbers."""
        return self.model_dump(mode="json", exclude={"device", "replace", "text", "trust_remote_code"})


def make_config(values: dict[str, Any]) -> RunConfig:
    """Checked options, with pydantic's complaints in one sentence.

    Raises:
        InputError: unknown option, wrong type, or options that contradict each other.
    """
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise complaint(error) from None


BEFORE: dict[str, Any] = {"special_tokens": None}
"""Options that a run folder does not name where it is older than they are -> what runs did before."""


def read_run_config(folder: Path) -> RunConfig:
    """The options of the run in a folder, which may be of an older version.

    Raises:
        InputError: they cannot be read or used.
    """
    return make_config(BEFORE | read_config(folder / "config.toml"))


def make_data_config(values: dict[str, Any]) -> DataConfig:
    """The same for the options of the data alone; a TOML file made for a run may be given, its other options are ignored.

    Raises:
        InputError: unknown option, wrong type, or options that contradict each other.
    """
    try:
        return DataConfig(**{key: value for key, value in values.items() if key not in _OF_A_RUN_ONLY})
    except ValidationError as error:
        raise complaint(error) from None


_OF_A_RUN_ONLY = set(RunConfig.model_fields) - set(DataConfig.model_fields)


def complaint(error: ValidationError) -> InputError:
    """The first of pydantic's complaints in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return InputError(f"option {where}: {message}, got {first['input']!r}." if where else f"{message}.")


def read_config(path: Path) -> dict[str, Any]:
    """Options from a TOML file, names as on the command line (`-` or `_`)."""
    name = f"configuration file {str(path)!r}"
    if problem := no_file(path):
        raise InputError(f"{name} {problem}.")
    if path.stat().st_size > LONGEST_CONFIG:
        raise InputError(f"{name} is larger than {LONGEST_CONFIG >> 20} MiB: it holds no options.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}): check its permissions.") from None
    except RecursionError:
        raise InputError(f"{name} is not valid TOML: it is nested too deeply.") from None
    except ValueError as error:  # of TOML, of UTF-8, and integers of thousands of digits
        raise InputError(f"{name} is not valid TOML: {error}.") from None
    return {key.replace("-", "_"): value for key, value in values.items()}


def to_toml(values: dict[str, Any]) -> str:
    """Flat options as TOML. JSON strings, numbers, booleans and lists are TOML as they stand."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in sorted(values.items()))
