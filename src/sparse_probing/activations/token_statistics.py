"""How every unit of a layer behaves over the tokens of some texts: what placebos are matched by, and donors for resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparse_probing.activations.batches import TokenBudget, forward, run_batches
from sparse_probing.activations.loaded import LoadedModel
from sparse_probing.activations.roles import linear_shape
from sparse_probing.records import Site


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitStatistics:
    """All units of one layer over the counted tokens."""

    mean: Float[np.ndarray, " unit"]
    size: Float[np.ndarray, " unit"]
    """Mean absolute value."""
    active: Float[np.ndarray, " unit"]
    """Share of tokens with a value above 0."""
    donors: Float[np.ndarray, "sample unit"]
    """The whole layer at some of the tokens, drawn at random."""
    donor_sequence: Int[np.ndarray, " sample"]
    donor_position: Int[np.ndarray, " sample"]
    output_norm: Float[np.ndarray, " unit"]
    """Length of the vector that a unit writes per unit of activation; 1 where units are coordinates."""


def unit_statistics(
    model: LoadedModel,
    sequences: Sequence[Int[np.ndarray, " _"]],
    counted: Sequence[Bool[np.ndarray, " _"]],
    sites: Sequence[Site],
    *,
    n_donors: int,
    rng: np.random.Generator,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[Site, UnitStatistics]:
    """One forward pass over the texts.

    Args:
        model: only its base is run.
        sequences: token ids.
        counted: per sequence, the positions that count.
        sites: layers to be looked at.
        n_donors: tokens whose values are kept (fewer where there are not so many).
        rng: draws them.
        progress: told the number of sequences just done.
    """
    places = [(s, int(p)) for s, flags in enumerate(counted) for p in np.flatnonzero(flags)]
    drawn = np.sort(rng.choice(len(places), size=min(n_donors, len(places)), replace=False))
    donors_of: dict[int, list[tuple[int, int]]] = {}
    for number, d in enumerate(drawn.tolist()):
        donors_of.setdefault(places[d][0], []).append((places[d][1], number))
    sums = {site: np.zeros((3, site.width)) for site in sites}
    donors = {site: np.zeros((len(drawn), site.width), dtype=np.float32) for site in sites}
    lengths = np.array([len(sequence) for sequence in sequences], dtype=int)

    def step(members: Int[np.ndarray, " sequence"]) -> None:
        here = [(i, place, d) for i, s in enumerate(members.tolist()) for place, d in donors_of.get(s, ())]
        row, column, number = (np.array(part, dtype=int) for part in zip(*here, strict=True)) if here else [[]] * 3
        found: dict[Site, np.ndarray] = {}

        def take(site: Site, hidden: Tensor) -> None:
            mask = torch.zeros(hidden.shape[:2], dtype=torch.bool)
            for i, s in enumerate(members.tolist()):
                mask[i, : lengths[s]] = torch.from_numpy(counted[s])
            inside = hidden[mask.to(hidden.device)].double()
            found[site] = torch.stack([inside.sum(0), inside.abs().sum(0), (inside > 0).double().sum(0)]).cpu().numpy()
            donors[site][number] = hidden[row, column].float().cpu().numpy()

        forward(model, [sequences[s] for s in members.tolist()], sites, take)
        for site, values in found.items():  # at the end: a batch that does not fit into memory is begun anew
            sums[site] += values
        progress(len(members))

    run_batches(np.arange(len(sequences)), lengths, TokenBudget(model), step)
    n = max(1, len(places))
    return {
        site: UnitStatistics(
            mean=sums[site][0] / n,
            size=sums[site][1] / n,
            active=sums[site][2] / n,
            donors=donors[site],
            donor_sequence=np.array([places[d][0] for d in drawn], dtype=int),
            donor_position=np.array([places[d][1] for d in drawn], dtype=int),
            output_norm=output_norms(model, site),
        )
        for site in sites
    }


def output_norms(model: LoadedModel, site: Site) -> Float[np.ndarray, " unit"]:
    """Norm of the column that each unit is multiplied with, where the site is the input of a linear map; else ones.

    Ones, too, where the weights wait in another place (a device map) or are quantised: placebos are then matched by activation.
    """
    module = model.network.get_submodule(site.module_path)
    shape, weight = linear_shape(module), getattr(module, "weight", None)
    if site.side == "output" or shape is None or not isinstance(weight, Tensor):
        return np.ones(site.width)
    if weight.is_meta or not weight.is_floating_point():
        return np.ones(site.width)
    # a linear map keeps [output, input], GPT-2's Conv1D [input, output]
    axis = 0 if isinstance(module, torch.nn.Linear) else 1
    return torch.linalg.vector_norm(weight.detach().double(), dim=axis).cpu().numpy()
