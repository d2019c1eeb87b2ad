"""The proof of an exact selection as data, and its check, which shares no code with the search that found it.

The claim: every support of k columns costs at least `bound`, the incumbent costs `objective`. The proof: a tree that splits the
supports by whether they hold a column, and dual points that rule out the supports of a node.

Pulls a_i (minus slopes of lines below the losses) with `sum_i c_i a_i = 0` bound every support S: with u_j = sum_i c_i a_i z_ij,

    min_b0,b sum_i c_i l(z_i b + b0, t_i) + ridge/2 |b|^2  >=  sum_i c_i intercept_of_pull(a_i, t_i) - sum_S u_j^2 / (2 ridge).

At a node with the columns I in and O out, the right side is smallest for I and the k - |I| columns outside both with the largest
u_j^2; exchanging one of these shows which columns no support below the claim can hold, or lack. How the search came to a dual
point, and how exactly, does not matter: the check makes its own pulls from the stored coefficients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8

from sparse_probing.errors import InputError, first_line
from sparse_probing.files import no_file, write_atomically
from sparse_probing.selection.problem import Problem

FORMAT = 1
SEAL = b"sparse_probing certificate "
"""Begins the comment at the end of the file's zip archive; the checksum of all bytes before it follows."""
DIGEST = 16
SCALARS: dict[str, type] = {
    "k": int, "ridge": float, "loss": str, "rows": int, "columns": int, "data": str, "intercept": float, "objective": float,
    "bound": float, "about": dict,
}  # fmt: skip
ARRAYS = {
    "excluded": "<i8", "support": "<i8", "coefficients": "<f8", "branch": "<i8", "dual_start": "<i8", "dual_column": "<i8",
    "dual_coefficient": "<f4", "dual_intercept": "<f8",
}  # fmt: skip
ROWS = 512
"""Rows that are summed before the tiles' sums are: short sums round little (see `_Check.errors`)."""
WIDE = 8_192
BATCH = 128
"""Dual points that share one matrix product."""
MOST_NUMBERS = 1 << 22
"""Of one array of a batch."""
OUT, FREE, IN = 0, 1, 2

State = Int8[np.ndarray, " kept"]
Progress = Callable[[int], object]


class CertificateError(InputError):
    """A certificate that does not prove what it claims about the problem at hand."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """What an exact search leaves behind: the incumbent, the claim, and the tree that proves it."""

    k: int
    ridge: float
    loss: str
    rows: int
    columns: int
    data: str
    """`problem_hash` of the problem."""
    excluded: Int[np.ndarray, " _"]
    """Columns that the claim leaves out; usually none."""
    support: Int[np.ndarray, " k"]
    coefficients: Float[np.ndarray, " k"]
    intercept: float
    objective: float
    """Of the incumbent, with the ridge."""
    bound: float
    """The claim: no support of k columns, none of them excluded, has a smaller objective."""
    branch: Int[np.ndarray, " node"]
    """The column that splits each node; -1 for a leaf. In preorder: a node, all nodes with its column, all nodes without."""
    dual_start: Int[np.ndarray, " node_and_one"]
    """Node i's dual point has the entries dual_start[i] to dual_start[i + 1]."""
    dual_column: Int[np.ndarray, " entry"]
    dual_coefficient: Float[np.ndarray, " entry"]
    """Taken as float32."""
    dual_intercept: Float[np.ndarray, " node"]
    """NaN: the node has no dual point of its own."""
    about: dict[str, Any]
    """What the certificate belongs to, for people: anything that JSON can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check has established."""

    nodes: int
    leaves: int
    bound: float
    """No admitted support has a smaller objective."""
    objective: float
    """Of the incumbent, computed anew."""
    gap: float
    """By how much of the objective the optimum may lie below it."""


def problem_hash(problem: Problem) -> str:
    """A name for all that the objective depends on: columns, targets, weights, loss and ridge, bit by bit.

    Memory order and memory maps do not matter, and float16 columns are named like the same numbers in float32.
    """
    z = problem.z
    stored = np.dtype("<f4" if z.dtype.itemsize <= 4 else "<f8")
    facts = [list(z.shape), stored.str, problem.loss.name, float(problem.ridge).hex()]
    digest = hashlib.blake2b(json.dumps(facts).encode() + b"\n", digest_size=DIGEST)
    for rows in _tiles(len(z), max(1, MOST_NUMBERS // max(1, z.shape[1]))):
        digest.update(np.ascontiguousarray(z[rows], dtype=stored).data)
    for values in (problem.target, problem.weights):
        digest.update(np.ascontiguousarray(values, dtype="<f8").data)
    return digest.hexdigest()


def write_certificate(path: Path, certificate: Certificate) -> None:
    """One compressed .npz file, written atomically; the same certificate gives the same bytes."""
    header = {"format": FORMAT} | {name: getattr(certificate, name) for name in SCALARS}
    text = json.dumps(header, allow_nan=False, ensure_ascii=False, sort_keys=True).encode()
    buffer = BytesIO()
    arrays: dict[str, Any] = {name: getattr(certificate, name).astype(kind) for name, kind in ARRAYS.items()}
    np.savez_compressed(buffer, header=np.frombuffer(text, dtype=np.uint8), **arrays)
    write_atomically(path, lambda partial: partial.write_bytes(_sealed(buffer.getvalue())))


def read_certificate(path: Path) -> Certificate:
    """The certificate in a file.

    Raises:
        InputError: the file is absent, damaged, or nothing that `write_certificate` wrote.
    """
    name = f"certificate {str(path)!r}"
    if problem := no_file(path):
        raise InputError(f"{name} cannot be read: it {problem}.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}): check the path.") from None
    body, digest = raw[: -2 * DIGEST], raw[-2 * DIGEST :]
    if not body.endswith(SEAL):
        raise InputError(f"{name} is none, or was cut short: copy it again from where it was written.")
    if hashlib.blake2b(body, digest_size=DIGEST).hexdigest().encode() != digest:
        raise InputError(f"{name} is damaged, its checksum is wrong: copy it again from where it was written.")
    try:
        with np.load(BytesIO(raw), allow_pickle=False) as archive:
            arrays = {part: archive[part] for part in archive.files}
        header = json.loads(arrays.pop("header").tobytes())
        version = header.pop("format")
    except Exception as error:  # a forged archive can make the readers of zip, npy and JSON raise almost anything
        raise InputError(f"{name} is unreadable ({first_line(error)}): run the exact search again.") from None
    if version != FORMAT:
        raise InputError(f"{name} has format {version!r}, not {FORMAT}: use the version that wrote it.")
    same = ("support", "coefficients"), ("branch", "dual_intercept"), ("dual_column", "dual_coefficient")
    kinds = {part: array.dtype.str if array.ndim == 1 else None for part, array in arrays.items()}
    whole = kinds == ARRAYS and all(len(arrays[one]) == len(arrays[other]) for one, other in same)
    if {part: type(value) for part, value in header.items()} != SCALARS or not whole:
        raise InputError(f"{name} has other parts than it should: run the exact search again.")
    return Certificate(**header, **arrays)


def check_certificate(certificate: Certificate, problem: Problem, progress: Progress = lambda _: None) -> Checked:
    """Prove the claim anew from the problem and the stored tree, in float64 with rounding counted against the claim.

    `progress` is called with the number of nodes that lie behind. Cost: O(dual points * row * columns that the root leaves), and
    one pass over all columns. Memory beyond the problem is flat.

    Raises:
        CertificateError: the claim is not proved; the message says where.
    """
    _match(certificate, problem)
    _check_arrays(certificate)
    ends = _subtree_ends(certificate.branch.tolist())
    with np.errstate(over="ignore", invalid="ignore"):  # an absurd dual point gives NaN, which closes nothing
        check = _Check(certificate, problem)
        objective = check.incumbent()
        check.tree(ends, progress)
    nodes, leaves, bound = len(certificate.branch), int((certificate.branch == -1).sum()), certificate.bound
    gap = (objective - bound) / objective if objective else 0.0
    return Checked(nodes=nodes, leaves=leaves, bound=bound, objective=objective, gap=gap)


def _sealed(archive: bytes) -> bytes:
    """A zip archive without a comment, given the comment that carries its checksum."""
    # An archive ends with the length of its comment.
    body = archive[:-2] + (len(SEAL) + 2 * DIGEST).to_bytes(2, "little") + SEAL
    return body + hashlib.blake2b(body, digest_size=DIGEST).hexdigest().encode()


def _tiles(length: int, size: int = ROWS) -> Iterator[slice]:
    return (slice(at, min(at + size, length)) for at in range(0, length, size))


def _refused(reason: str, repair: str = "run the exact search again") -> CertificateError:
    return CertificateError(f"the certificate is refused: {reason}; {repair}.")


def _match(certificate: Certificate, problem: Problem) -> None:
    n, p = problem.z.shape
    for name, claimed, here in (
        ("shape", (certificate.rows, certificate.columns), (n, p)),
        ("loss", certificate.loss, problem.loss.name),
        ("ridge", certificate.ridge, problem.ridge),
        ("data", certificate.data, problem_hash(problem)),
    ):
        if claimed != here:
            raise _refused(f"its {name} is {claimed!r}, not {here!r}", "check it with the problem that it was made for")
    c, classes = problem.weights, problem.loss.classes
    if not ((np.isin(problem.target, [0, 1]) if classes else np.isfinite(problem.target)).all() and problem.ridge > 0):
        raise _refused("the problem has targets or a ridge to which no bound applies", "mend the problem")
    if not ((c >= 0).all() and abs(c.sum() - 1) <= 1e-6):
        raise _refused("the problem's weights do not sum to 1, or some are negative", "mend the problem")
    for name, columns in (("excluded", certificate.excluded), ("support", certificate.support)):
        if len(np.unique(columns)) != len(columns) or ((columns < 0) | (columns >= p)).any():
            raise _refused(f"its {name} columns are not different columns of {p}")
    if not 1 <= certificate.k == len(certificate.support) or np.isin(certificate.support, certificate.excluded).any():
        raise _refused(f"its support is not {certificate.k} columns that are not excluded")


def _check_arrays(certificate: Certificate) -> None:
    branch, start, column, p = certificate.branch, certificate.dual_start, certificate.dual_column, certificate.columns
    if ((branch < -1) | (branch >= p)).any() or ((column < 0) | (column >= p)).any():
        raise _refused(f"its tree or a dual point has a column that is none of {p}")
    if len(start) != len(branch) + 1 or start[0] != 0 or start[-1] != len(column) or (np.diff(start) < 0).any():
        raise _refused(f"its nodes do not divide the {len(column)} entries of its dual points among them")
    without = np.isnan(certificate.dual_intercept)
    if np.diff(start)[without].any() or not np.isfinite(certificate.dual_intercept[~without]).all():
        raise _refused("a dual point lacks its intercept, or has one that is not finite")


def _subtree_ends(branch: list[int]) -> list[int]:
    """For each node, the node after the last one below it."""
    n = len(branch)
    ends = [*range(1, n + 1), n]  # right for leaves
    for node in reversed(range(n)):
        if branch[node] != -1:
            if ends[node + 1] >= n:
                raise _refused(f"its tree breaks off below node {node}")
            ends[node] = ends[ends[node + 1]]
    if ends[0] != n or n == 0:
        raise _refused(f"its tree is complete before the last of its {n} nodes")
    return ends


class _Points(NamedTuple):
    """Dual points: `sum_i c_i intercept_of_pull(a_i, t_i)` less its rounding, u_j^2 of the columns kept, rounding of u_j."""

    value: Float[np.ndarray, " point"]
    squares: Float[np.ndarray, "point kept"]
    error: Float[np.ndarray, " point"]


class _Check:
    def __init__(self, certificate: Certificate, problem: Problem) -> None:
        self.certificate, self.problem, self.loss = certificate, problem, problem.loss
        n, p = problem.z.shape
        # A regression's intercept is free: moved with the targets it changes no objective, and centred targets round less.
        self.shift = 0.0 if self.loss.classes else float(problem.weights @ problem.target / problem.weights.sum())
        self.target = problem.target - self.shift
        self.loss_at_0 = float(problem.weights @ self.loss.value(np.zeros(n), self.target))
        self.epsilon = (ROWS + -(-n // ROWS) + certificate.k + 16) * 2.0**-52
        self.norm = np.zeros(p)  # sqrt(sum_i c_i z_ij^2)
        for rows, columns in product(_tiles(n), _tiles(p, WIDE)):
            self.norm[columns] += problem.weights[rows] @ problem.z[rows, columns].astype(np.float64) ** 2
        self.norm = np.sqrt(self.norm)

    def incumbent(self) -> float:
        """The incumbent's objective, computed anew."""
        it = self.certificate
        eta = self.problem.z[:, it.support].astype(np.float64) @ it.coefficients + (it.intercept - self.shift)
        penalty = 0.5 * self.problem.ridge * (it.coefficients @ it.coefficients)
        objective = float(self.problem.weights @ self.loss.value(eta, self.target) + penalty)
        if not abs(objective - it.objective) <= 1e-9 * abs(it.objective):
            raise _refused(f"its support costs {objective:.15g}, not {it.objective:.15g} as it says")
        if not -np.inf < it.bound <= objective:
            raise _refused(f"its bound {it.bound:.15g} is not below its own support's cost {objective:.15g}")
        return objective

    def tree(self, ends: list[int], progress: Progress) -> None:
        """Close every leaf, or refuse."""
        it = self.certificate
        with_point = np.flatnonzero(~np.isnan(it.dual_intercept))
        kept = np.setdiff1d(np.arange(it.columns), it.excluded)
        points, first, last = None, 0, 0  # the batch at hand: with_point[first:last]
        stack: list[tuple[int, State]] = [(0, np.full(len(kept), FREE, dtype=np.int8))]
        while stack:
            node, state = stack.pop()
            n_in = int((state == IN).sum())
            if n_in > it.k or n_in + int((state == FREE).sum()) < it.k:
                continue  # no support of k columns is left
            proved, at = -np.inf, int(np.searchsorted(with_point, node))
            if at < len(with_point) and with_point[at] == node:
                if points is None or at >= last:
                    progress(node)
                    size = min(BATCH, MOST_NUMBERS // max(it.rows, len(kept))) if node else 1
                    first, last = at, min(at + max(1, size), len(with_point))
                    points = self.evaluate(with_point[first:last], kept)
                proved, state = self.narrowed(points, at - first, state)
                if proved >= it.bound:
                    continue
            if it.branch[node] == -1:
                raise _refused(f"leaf {node} proves {proved:.15g} for its supports, the claim is {it.bound:.15g}")
            if node == 0 and points is not None:  # what the root rules out is out below, too: evaluate nothing there
                kept, state, points = kept[state != OUT], state[state != OUT], None
            here = np.flatnonzero(kept == it.branch[node])
            for child, side in ((ends[node + 1], OUT), (node + 1, IN)):  # what is pushed last comes first
                now = state[here[0]] if len(here) else OUT
                if now in (FREE, side):  # otherwise that side holds no support
                    below = state.copy()
                    below[here] = side
                    stack.append((child, below))
        progress(len(it.branch))

    def narrowed(self, points: _Points, at: int, state: State) -> tuple[float, State]:
        """What a dual point proves for all supports of a node, and the state without the choices that it rules out."""
        bound, scale, squares = self.certificate.bound, 0.5 / self.problem.ridge, points.squares[at]
        free, inside = np.flatnonzero(state == FREE), state == IN
        k, left = self.certificate.k, self.certificate.k - int(inside.sum())
        ranked = np.sort(squares[free])[::-1]
        total, error = float(squares[inside].sum() + ranked[:left].sum()), float(points.error[at])
        # k numbers u_j, each off by `error`, whose squares sum to `total`, have true squares that sum to at most this much more:
        slack = 2 * error * (k * total) ** 0.5 + k * error**2 + self.epsilon * total
        proved = float(points.value[at]) - scale * (total + slack)
        if proved >= bound or not 0 < left < len(free):
            return proved, state
        # One of the largest exchanged for one of the rest: again k squares, of a smaller total, so the same slack covers them.
        state = state.copy()
        state[free[proved + scale * (ranked[left - 1] - squares[free]) >= bound]] = OUT
        state[free[proved + scale * (squares[free] - ranked[left]) >= bound]] = IN
        return proved, state

    def evaluate(self, nodes: Int[np.ndarray, " point"], kept: Int[np.ndarray, " kept"]) -> _Points:
        """The dual points of some nodes, on the columns that are kept."""
        c, loss, z = self.problem.weights, self.loss, self.problem.z
        target = np.broadcast_to(self.target, (len(nodes), len(c)))
        pull = self._balanced(-loss.slope(self._predictors(nodes), target))
        u, value, sums = np.zeros((len(nodes), len(kept))), np.zeros(len(nodes)), np.zeros((3, len(nodes)))
        for rows in _tiles(len(c)):
            a = pull[:, rows]
            weighted = a * c[rows]
            value += loss.intercept_of_pull(a, target[:, rows]) @ c[rows]
            sums += np.stack([weighted, np.abs(weighted), weighted * a]).sum(axis=2)
            for columns in _tiles(len(kept), WIDE):
                u[:, columns] += weighted @ z[rows][:, kept[columns]].astype(np.float64)
        relative, value_error = self.errors(sums)
        error = relative * np.sqrt(sums[2]) * self.norm[kept].max(initial=0.0)
        return _Points(value - value_error, u**2, error)

    def errors(self, sums: Float[np.ndarray, "3 point"]) -> Float[np.ndarray, "2 point"]:
        """How far each u_j, relative to `sqrt(power) norm_j`, and the value may be from those of an exactly balanced point.

        `sums` are rest = sum_i c_i a_i, size = sum_i c_i |a_i| and power = sum_i c_i a_i^2. The pulls count as exact numbers:
        however they came about, lines of these slopes lie below the losses. Two things are not exact.

        Sums. In float64, in any order, a sum of m rounded products is off by at most m 2^-53 / (1 - m 2^-53) times the sum of
        their absolute values. Here m is the rows of a tile + the tiles + k + 16 for the arithmetic within a term, and epsilon =
        m 2^-52, twice as much, covers the rounding of these error bounds, too. The absolute values sum to at most loss_at_0 +
        power for the value (the parts of an intercept sum to at most l(0, t_i) + a_i^2), to sqrt(power) norm_j for u_j (Cauchy
        and Schwarz), and to their total for k squares.

        Balance. The pulls sum to at most |rest| + epsilon size, not to 0. To balance them exactly, scale the heavier class, half
        of size or more, down by theta = 2 (|rest| + epsilon size) / size at most. An intercept is concave in the pull and not
        negative at 0, so the value loses at most theta loss_at_0, and u_j moves by at most theta sqrt(power) norm_j. For a
        regression subtract theta size / 2 at most: the value moves by at most theta (loss_at_0 + power), u_j no further.
        """
        rest, size, power = sums
        theta = np.divide(2 * (np.abs(rest) + self.epsilon * size), size, out=np.zeros_like(size), where=size > 0)
        relative = self.epsilon + theta
        return np.stack([relative, relative * (self.loss_at_0 + power)])

    def _predictors(self, nodes: Int[np.ndarray, " point"]) -> Float[np.ndarray, "point row"]:
        it, z = self.certificate, self.problem.z
        entries = slice(it.dual_start[nodes[0]], it.dual_start[nodes[-1] + 1])  # nodes between have none
        columns, place = np.unique(it.dual_column[entries], return_inverse=True)
        coefficients = np.zeros((len(nodes), len(columns)))
        point = np.repeat(np.arange(len(nodes)), np.diff(it.dual_start)[nodes])
        np.add.at(coefficients, (point, place), it.dual_coefficient[entries].astype(np.float32))
        eta = np.empty((len(nodes), len(z)))
        for rows in _tiles(len(z)):
            eta[:, rows] = coefficients @ z[rows][:, columns].astype(np.float64).T
        return eta + (it.dual_intercept[nodes] - self.shift)[:, None]

    def _balanced(self, pull: Float[np.ndarray, "point row"]) -> Float[np.ndarray, "point row"]:
        """Pulls that sum to 0 but for rounding: the heavier class scaled down, a regression's centred."""
        c = self.problem.weights
        if not self.loss.classes:
            return pull - (pull @ c / c.sum())[:, None]
        sums = np.stack([-(pull @ (c * (self.target == 0))), pull @ (c * (self.target == 1))])  # neither is negative
        share = np.divide(sums.min(axis=0), sums, out=np.zeros_like(sums), where=sums > 0)[:, :, None]
        return pull * np.where(self.target == 1, share[1], share[0])
