"""The arm of `probing.py` that runs in an environment with TransformerLens: its own sweep, its defaults.

    ENV/bin/python benchmarks/transformer_lens_arm.py DATA.npz RESULT.npz K [K ...]

DATA holds x [row, unit] and labels [row, feature]; RESULT gets the seconds of all sweeps and what each probe was.
"""

import sys
import time

import numpy as np
import torch
from transformer_lens.tools.analysis.sparse_probing import sweep_sparse_probe

data, ks = np.load(sys.argv[1]), [int(k) for k in sys.argv[3:]]
x, found = torch.tensor(data["x"]), {}
sweep_sparse_probe(x[:200, :16], torch.tensor(data["labels"][:200, 0]), ks=[1, 2])  # nothing is timed cold
started = time.perf_counter()
sweeps = [sweep_sparse_probe(x, torch.tensor(label), ks=ks) for label in data["labels"].T]
found["seconds"] = time.perf_counter() - started
# to compare coefficients, not timed: its default stops at a decrement of 1e-12, which leaves them open to 1e-5 at ridge 0.01
exact = [sweep_sparse_probe(x, torch.tensor(label), ks=ks, decrement_tolerance=1e-16) for label in data["labels"].T]
for f, sweep in enumerate(exact):
    found[f"{f}-train"] = np.array(sweep.results[0].train_indices)
    for k, result in zip(ks, sweep.results, strict=True):
        found[f"{f}-{k}-columns"] = np.array(result.selected_features)
        found[f"{f}-{k}-coefficients"] = np.array(result.coefficients)
        found[f"{f}-{k}-intercept"] = np.array(result.intercept)
        found[f"{f}-{k}-f1"] = np.array(float(result.metrics.f1))
np.savez(sys.argv[2], **found)
