"""What is said about a data set before any model is run: where it comes from, what was mended, how rows are spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from sparse_probing.datasets.audit import distinct_documents
from sparse_probing.datasets.feature_dataset import FeatureDataset, NumberTarget
from sparse_probing.datasets.labelled_text import LabelledText
from sparse_probing.errors import InputError
from sparse_probing.records import POOLINGS, SPLITS, Split
from sparse_probing.studies.datasheet.confounds import Confounds, warnings_of

NOT_STATED = "not stated"
MOST_NAMES = 20
"""Sources and licences that are listed by name."""
BINS = 25
"""At most, per histogram."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def datasheet(labelled: LabelledText, dataset: FeatureDataset, *, text_only: bool = True) -> dict[str, Any]:
    """The data sheet of one category, as strict JSON. Lengths and positions are in tokens.

    Args:
        labelled: the texts as they were read; the sheet counts what the audit left of them.
        dataset: their rows; other categories in it are left aside.
        text_only: whether to fit the classifiers that read the text, which take most of the time.

    Raises:
        InputError: `dataset` holds nothing of this category.
    """
    category, documents = labelled.category, distinct_documents(labelled.documents)
    mine = _of_category(dataset, category)
    audit, alignment = dataset.audits.get(category), dataset.alignments.get(category)
    confounds = Confounds(mine, text_only=text_only)
    return {
        "category": category,
        "level": labelled.level,
        "documents": len(documents),
        "groups": len({document.group for document in documents}) if audit is None else audit.groups,
        "characters": sum(len(document.text) for document in documents),
        "tokens": None if alignment is None else alignment.tokens,
        "rows": mine.n_rows,
        "sequences": mine.n_sequences,
        "poolings": [POOLINGS[p].value for p in np.unique(mine.row_pooling)],
        "sources": _counted(document.source for document in documents),
        "licences": _counted(document.licence for document in documents),
        "split": _split(mine),
        "near_duplicates": labelled.near_duplicates,
        "features": [_feature(mine, f, confounds) for f in range(len(mine.features))],
        "numbers": [_number(target, mine) for target in mine.targets],
        "histograms": {name: _histogram(mine, values) for name, values in confounds.measures.items()},
        "audit": None if audit is None else asdict(audit),
        "alignment": None if alignment is None else asdict(alignment),
        "notes": list(dataset.notes.get(category, ())),
    }


def _of_category(dataset: FeatureDataset, category: str) -> FeatureDataset:
    features = [f for f, name in enumerate(dataset.categories) if name == category]
    targets = [t for t, target in enumerate(dataset.targets) if target.category == category]
    rows = np.any(dataset.eligible[:, features], axis=1, out=np.zeros(dataset.n_rows, dtype=bool))
    for t in targets:
        rows |= ~np.isnan(dataset.targets[t].values)
    if not rows.any():
        raise InputError(f"the rows hold nothing of category {category!r}: give the data set that was built from it.")
    return dataset.only(rows, features, targets)


def _counted(names: Iterable[str | None]) -> list[dict[str, Any]]:
    """Documents per name, most first; rare names are summed."""
    counts = Counter(NOT_STATED if name is None else name for name in names).most_common()
    shown = [{"name": name, "documents": n} for name, n in counts[:MOST_NAMES]]
    if counts[MOST_NAMES:]:
        rest = sum(n for _, n in counts[MOST_NAMES:])
        shown.append({"name": f"{len(counts) - MOST_NAMES:,} others", "documents": rest})
    return shown


def _split(dataset: FeatureDataset) -> dict[str, Any]:
    """Rows and groups per split; groups that have rows in more than one split, all their rows, and those in the test split."""
    seen = np.zeros((int(dataset.row_group.max()) + 1, len(SPLITS)), dtype=bool)
    seen[dataset.row_group, dataset.row_split] = True
    leaking = seen.sum(axis=1) > 1
    of_leaking = leaking[dataset.row_group]
    return {
        "rows": {split.value: int((dataset.row_split == s).sum()) for s, split in enumerate(SPLITS)},
        "groups": {split.value: int(seen[:, s].sum()) for s, split in enumerate(SPLITS)},
        "leaking_groups": int(leaking.sum()),
        "leaking_rows": int(of_leaking.sum()),
        "leaking_test_rows": int((of_leaking & (dataset.row_split == SPLITS.index(Split.TEST))).sum()),
    }


def _feature(dataset: FeatureDataset, feature: int, confounds: Confounds) -> dict[str, Any]:
    splits = {
        split: {"positive": p, "negative": n, "share": p / (p + n) if p + n else None}
        for split, (p, n) in dataset.counts(feature).items()
    }
    share = splits[Split.TEST.value]["share"]
    record = {
        "name": dataset.features[feature],
        "splits": splits,
        "always_yes_f1": None if share is None else 2 * share / (1 + share),
        "confounds": confounds.of(feature),
    }
    return record | {"warnings": warnings_of(record)}


def _number(target: NumberTarget, dataset: FeatureDataset) -> dict[str, Any]:
    """Per split: rows, mean, standard deviation (of these rows, divided by n), quantiles. Null where there is no row."""
    splits = {}
    for s, split in enumerate(SPLITS):
        values = target.values[(dataset.row_split == s) & ~np.isnan(target.values)]
        none = len(values) == 0
        splits[split.value] = {
            "n": len(values),
            "mean": None if none else float(values.mean()),
            "sd": None if none else float(values.std()),
            "quantiles": None if none else [float(q) for q in np.quantile(values, QUANTILES)],
        }
    return {"name": target.name, "quantiles": list(QUANTILES), "splits": splits}


def _histogram(dataset: FeatureDataset, values: np.ndarray) -> dict[str, Any]:
    """Rows of all splits per bin: all of them, and for each feature those of the class and the rest."""
    width = bin_width(int(values.max()))
    bins = values // width

    def counts(rows: np.ndarray) -> list[int]:
        return np.bincount(bins[rows], minlength=int(bins.max()) + 1).tolist()

    return {
        "bin_width": width,
        "rows": counts(np.arange(len(values))),
        "features": [
            {
                "name": name,
                "class": counts(dataset.eligible[:, f] & dataset.positive[:, f]),
                "rest": counts(dataset.eligible[:, f] & ~dataset.positive[:, f]),
            }
            for f, name in enumerate(dataset.features)
        ],
    }


def bin_width(largest: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 ... that covers 0 to `largest` in at most `BINS` bins, the first of which begins at 0."""
    width, steps = 1, 0
    while largest // width >= BINS:
        steps += 1
        width = (1, 2, 5)[steps % 3] * 10 ** (steps // 3)
    return width
