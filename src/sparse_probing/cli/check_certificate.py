"""`sprobe check-certificate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparse_probing.selection.certificate import Certificate
    from sparse_probing.selection.problem import Problem


def check_certificate(file: Path, /, *, problem: Path | None = None, trust_remote_code: bool = False) -> None:
    """Verify the proof that a support is the best of its size, without the code that found it.

    Every branch of the search tree is bounded again in float64 from the activations, and the support's own objective is computed
    again. A file that was changed, or that belongs to other data, is refused.

    Args:
        file: Certificate, from the folder `certificates` of a run.
        problem: For a certificate made in Python: an .npz file with the arrays z, target and weights.
        trust_remote_code: Run program code that comes with the model of the run, where it needs some.
    """
    from sparse_probing.cli.progress import Bars
    from sparse_probing.cli.terminal import Terminal, warn_of_model_code
    from sparse_probing.selection.certificate import check_certificate as check
    from sparse_probing.selection.certificate import read_certificate

    certificate = read_certificate(file)
    bars = Bars()
    about = certificate.about
    if problem is None:
        warn_of_model_code(trusted=trust_remote_code)
        made = _from_run(file, certificate, bars, trust_remote_code=trust_remote_code)
    else:
        made = _from_file(problem, certificate)
    done = 0
    with bars.stage("check", len(certificate.branch), "node") as step:

        def progress(nodes: int) -> None:
            nonlocal done
            step(nodes - done)
            done = nodes

        checked = check(certificate, made, progress)
    where = f" of {about['feature']}, layer {about['layer']}" if {"feature", "layer"} <= set(about) else ""
    console = Terminal(soft_wrap=True)
    console.print(f"valid{where}: columns {', '.join(map(str, certificate.support.tolist()))}")
    console.print(
        f"objective {checked.objective:.6f}; no other {certificate.k} of {certificate.columns:,} columns can go below "
        f"{checked.bound:.6f} ({100 * checked.gap:.2f} % less), proved by {checked.nodes:,} nodes"
    )


def _from_run(file: Path, certificate: Certificate, bars: object, *, trust_remote_code: bool) -> Problem:
    from sparse_probing.errors import InputError
    from sparse_probing.open_run import problem_of_run
    from sparse_probing.progress import Reporter

    about, folder = certificate.about, file.absolute().parent.parent
    if not {"category", "feature", "layer"} <= set(about) or not (folder / "config.toml").is_file():
        raise InputError(
            f"certificate {str(file)!r} does not lie in the folder `certificates` of a run: give --problem FILE.npz with the "
            "arrays z, target and weights that it was made for."
        )
    category, feature, layer = about["category"], about["feature"], about["layer"]
    if not isinstance(category, str) or not isinstance(feature, str) or not isinstance(layer, int):
        raise InputError(
            f"certificate {str(file)!r} does not say to which feature and layer it belongs: give --problem FILE.npz."
        )
    assert isinstance(bars, Reporter)
    return problem_of_run(folder, category, feature, layer, bars, trust_remote_code=trust_remote_code)


def _from_file(path: Path, certificate: Certificate) -> Problem:
    import numpy as np

    from sparse_probing.errors import InputError, first_line
    from sparse_probing.files import no_file
    from sparse_probing.probes.losses import LOSSES
    from sparse_probing.selection.exact import checked_problem
    from sparse_probing.selection.problem import Problem

    name = f"problem file {str(path)!r}"
    if problem := no_file(path):
        raise InputError(f"{name} {problem}.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            z, target, weights = (np.asarray(arrays[part]) for part in ("z", "target", "weights"))
    except Exception as error:  # the readers of zip and npy raise almost anything for a forged file
        raise InputError(
            f"{name} cannot be read ({first_line(error)}): it must be an .npz file with the arrays z, target and weights."
        ) from None
    for part, array, dimensions in (("z", z, 2), ("target", target, 1), ("weights", weights, 1)):
        if array.dtype.kind not in "biuf" or array.ndim != dimensions:
            wanted, shape = "a matrix" if dimensions == 2 else "a row", " x ".join(map(str, array.shape)) or "one value"
            raise InputError(f"{name}: {part} must be {wanted} of numbers, got {array.dtype} of shape {shape}.")
    if not len(z) == len(target) == len(weights):
        raise InputError(
            f"{name} has {len(z)} rows, but {len(target)} targets and {len(weights)} weights: give one of each per row."
        )
    target, weights = target.astype(np.float64), weights.astype(np.float64)
    if certificate.loss not in LOSSES:
        raise InputError(f"the certificate is for the loss {certificate.loss!r}, which this version does not know.")
    return checked_problem(
        Problem(z=z, target=target, weights=weights, loss=LOSSES[certificate.loss], ridge=certificate.ridge)
    )
