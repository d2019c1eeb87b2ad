"""The arm of the exact-selection benchmark that runs in an environment with SCIP and HiGHS: outer approximation by cuts.

    ENV/bin/python benchmarks/outer_approximation_arm.py PROBLEM.npz RESULT.json --solver scip|highs --limit SECONDS

PROBLEM holds z [row, column], target (0 or 1), weights, ridge, k, gap (relative), incumbent (columns of a good support) and, if
known, root (a dual vector of the root relaxation). RESULT gets solver, objective, bound, gap, seconds, cuts, nodes, status
(optimal or limit) and support. ENV is made from `benchmarks/requirements-mip.txt`; run it with OPENBLAS_NUM_THREADS=1.

Solved is `min t` over binary s with at most k ones, where t is held up by cuts `t >= D(a) - sum_j (z'a)_j^2 s_j / (2 ridge)`. The
cut of the best dual vector a at a point s is exact there: for binary s the value of the fit on that support, between them that of
the fit whose ridge is `ridge / s_j`. SCIP takes cuts at LP solutions in its one tree, fractional ones included. HiGHS has no such
way in: after rounds on the LP alone, a tree is solved to its end, cuts are added, and it begins anew.

What may be given up is `gap` of the objective, so both prune at (1 - gap) times the best value that is known.
"""

import argparse
import json
import time
from pathlib import Path

import highspy
import numpy as np
from pyscipopt import SCIP_PARAMSETTING, SCIP_RESULT, Conshdlr, Model, quicksum
from scipy.special import entr, expit

VIOLATION = 1e-6
"""By how much an LP solution must violate a cut: the solvers' own tolerance."""
ROOT_ROUNDS = 60
"""Most cuts at fractional points before branching; it ends when six have brought the bound less than 1 % of its way to the goal."""


class Task:
    """The problem, the cuts found so far and the best support found so far."""

    def __init__(self, path: str) -> None:
        data = np.load(path)
        kept = data["weights"] > 0
        self.z = np.asfortranarray(data["z"][kept], dtype=np.float64)
        self.target, self.weights = data["target"][kept].astype(float), data["weights"][kept].astype(float)
        self.ridge, self.k, self.gap = float(data["ridge"]), int(data["k"]), float(data["gap"])
        self.width = self.z.shape[1]
        self.constants, self.slopes = np.empty(64), np.empty((64, self.width))
        self.cuts, self.values = 0, {}
        self.alive, self.z_alive = np.arange(self.width), self.z
        self.best, self.support = np.inf, ()
        self.incumbent = tuple(sorted(int(j) for j in data["incumbent"]))
        self.root = data["root"][kept].astype(float) if "root" in data else None

    @property
    def cutoff(self) -> float:
        """Nothing at or above this value is looked for."""
        return (1 - self.gap) * self.best

    def fit(self, columns: np.ndarray, share: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and dual vector of the fit whose ridge is `ridge / share` on these columns: Newton with step halving."""
        n, m = len(self.target), len(columns)
        x = np.empty((n, m + 1))
        np.multiply(self.z[:, columns], np.sqrt(share), out=x[:, :m])
        x[:, m] = 1.0
        ridge = np.append(np.full(m, self.ridge), 0.0)
        mean = self.weights @ self.target
        b = np.append(np.zeros(m), np.log(mean / (1 - mean)))
        eta = x @ b
        value = self.value_at(eta) + 0.5 * ridge @ b**2
        for _ in range(100):
            chance = expit(eta)
            gradient = x.T @ (self.weights * (chance - self.target)) + ridge * b
            if np.abs(gradient).max() < 1e-10:
                break
            hessian = (x * (self.weights * chance * (1 - chance))[:, None]).T @ x
            hessian[np.diag_indices(m + 1)] += ridge + 1e-14
            step = np.linalg.solve(hessian, gradient)
            size, step_eta, decrease = 1.0, x @ step, gradient @ step
            while size > 1e-8:
                trial = b - size * step
                trial_eta = eta - size * step_eta
                new = self.value_at(trial_eta) + 0.5 * ridge @ trial**2
                if new <= value - 1e-4 * size * decrease + 1e-15:
                    break
                size *= 0.5
            b, eta, value = trial, trial_eta, new
        return value, self.weights * (self.target - expit(eta))

    def value_at(self, eta: np.ndarray) -> float:
        """Weighted logistic loss."""
        return float(self.weights @ np.logaddexp(0.0, np.where(self.target > 0, -eta, eta)))

    def add_cut(self, alpha: np.ndarray) -> int:
        """The cut of a dual vector, whose sum is first made 0 (the heavier class is scaled down); its number."""
        up, down = alpha[alpha > 0].sum(), -alpha[alpha < 0].sum()
        alpha = np.where(alpha > 0, alpha * min(1.0, down / up), alpha * min(1.0, up / down))
        used = np.clip(np.abs(alpha) / self.weights, 0.0, 1.0)
        if self.cuts == len(self.constants):
            self.constants = np.concatenate([self.constants, self.constants])
            self.slopes = np.concatenate([self.slopes, self.slopes])
        self.constants[self.cuts] = self.weights @ (entr(used) + entr(1 - used))
        self.slopes[self.cuts] = 0.0
        self.slopes[self.cuts, self.alive] = (self.z_alive.T @ alpha) ** 2 / (2 * self.ridge)
        self.cuts += 1
        return self.cuts - 1

    def leave_out(self, alive: np.ndarray) -> None:
        """Only these columns can still be of use: later cuts say nothing of the others, where s is 0."""
        if len(alive) < 0.8 * len(self.alive):
            self.alive, self.z_alive = alive, np.asfortranarray(self.z[:, alive])

    def cut_values(self, columns: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Height of every cut at a point, given by its nonzero entries."""
        return self.constants[: self.cuts] - self.slopes[: self.cuts, columns] @ share

    def evaluate(self, support: tuple[int, ...]) -> float:
        """Value of a support of at most k columns; its cut is added the first time."""
        if support not in self.values:
            value, alpha = self.fit(np.array(support, dtype=int), np.ones(len(support)))
            self.values[support] = value
            self.add_cut(alpha)
            if value < self.best:
                self.best, self.support = value, support
        return self.values[support]

    def cut_at(self, share: np.ndarray) -> None:
        """Add the best cut at a point."""
        columns = np.flatnonzero(share > 1e-4)
        self.add_cut(self.fit(columns, share[columns])[1])

    def rounded(self, share: np.ndarray) -> tuple[int, ...]:
        """The k largest entries."""
        return tuple(sorted(np.argsort(-share, kind="stable")[: self.k].tolist()))


def settled(heights: list[float], goal: float) -> bool:
    """Whether more rounds at the root are of no use."""
    if len(heights) <= 6:
        return False
    return len(heights) > ROOT_ROUNDS or heights[-1] - heights[-7] < 0.01 * max(0.0, goal - heights[-1])


class Cuts(Conshdlr):
    """SCIP's constraint handler: holds t above every cut, those not found yet included."""

    def __init__(self, task: Task, s: list, t: object, rounds: int) -> None:
        self.task, self.original, self.rounds = task, (s, t), rounds
        self.s, self.t = None, None
        self.node, self.round, self.heights = 0, 0, []
        self.told, self.cores = np.inf, {}
        self.core = np.zeros(task.width)
        self.core[list(task.incumbent)] = 1.0

    def enter(self) -> None:
        """A node: leave out the columns that the root has fixed, and start from its parent's core, moved inside its bounds."""
        node = self.model.getCurrentNode()
        if node.getNumber() == self.node:
            return
        columns = np.flatnonzero(self.core > 1e-4)
        self.cores[self.node] = columns, self.core[columns]
        self.node, self.round = node.getNumber(), 0
        alive = self.task.alive
        self.task.leave_out(np.array([j for j in alive.tolist() if self.s[j].getUbGlobal() > 0.5]))
        if node.getParent() is None:
            return
        core = np.zeros(self.task.width)
        columns, values = self.cores.get(node.getParent().getNumber(), self.cores[0])
        core[columns] = values
        alive = self.task.alive
        low = np.array([self.s[j].getLbLocal() for j in alive.tolist()])
        free = np.array([self.s[j].getUbLocal() for j in alive.tolist()]) - low > 0.5
        left, inside = self.task.k - low.sum(), core[alive]
        inside[~free] = low[~free]
        for _ in range(10):
            inside[free] = np.minimum(1.0, inside[free] * left / max(inside[free].sum(), 1e-9))
        self.core = np.zeros(self.task.width)
        self.core[alive] = inside

    def point(self, solution: object = None) -> tuple[np.ndarray, float]:
        """s and t of a solution, the LP's without one."""
        if self.s is None:
            self.s = [self.model.getTransformedVar(v) for v in self.original[0]]
            self.t = self.model.getTransformedVar(self.original[1])
        s = np.zeros(self.task.width)
        chosen = self.task.alive.tolist() if solution is None else range(self.task.width)
        for j in chosen:
            s[j] = self.model.getSolVal(solution, self.s[j])
        return np.clip(s, 0.0, 1.0), self.model.getSolVal(solution, self.t)

    def add_row(self, number: int) -> bool:
        """Give a cut to the LP; true if the node is then infeasible."""
        row = self.model.createEmptyRowUnspec("cut", lhs=self.task.constants[number], rhs=None, local=False)
        self.model.cacheRowExtensions(row)
        self.model.addVarToRow(row, self.t, 1.0)
        slopes = self.task.slopes[number]
        for j in self.task.alive[slopes[self.task.alive] > 1e-10].tolist():
            self.model.addVarToRow(row, self.s[j], slopes[j])
        self.model.flushRowExtensions(row)
        infeasible = self.model.addCut(row, forcecut=True)
        self.model.releaseRow(row)
        return infeasible

    def offer(self, support: tuple[int, ...]) -> None:
        """Try a support, and tell SCIP of the best one at (1 - gap) of its value: it prunes at what it is told."""
        task = self.task
        task.evaluate(support)
        if task.best < self.told:
            self.told = task.best
            solution = self.model.createSol()
            for j in task.support:
                self.model.setSolVal(solution, self.original[0][j], 1.0)
            self.model.setSolVal(solution, self.original[1], task.cutoff)
            self.model.trySol(solution, printreason=False)

    def add_violated(self, share: np.ndarray, t: float, most: int = 5) -> int:
        """Give the LP the most violated of the known cuts."""
        columns = np.flatnonzero(share > 0)
        excess = self.task.cut_values(columns, share[columns]) - t
        worst = np.argsort(-excess)[:most]
        chosen = worst[excess[worst] > VIOLATION]
        if any([self.add_row(int(i)) for i in chosen]):
            return SCIP_RESULT.CUTOFF
        return SCIP_RESULT.SEPARATED if len(chosen) else SCIP_RESULT.DIDNOTFIND

    def conssepalp(self, *_):
        """Known cuts first; then the best cut at the LP solution, as long as it is worth its time at this node."""
        share, t = self.point()
        self.enter()
        if self.told == np.inf:
            self.offer(self.task.incumbent)
        found = self.add_violated(share, t)
        if found != SCIP_RESULT.DIDNOTFIND:
            return {"result": found}
        if self.model.getDepth() == 0:
            self.heights.append(t)
            enough = settled(self.heights, self.task.cutoff)
        else:
            self.round += 1
            enough = self.round > self.rounds
        if enough:
            return {"result": SCIP_RESULT.DIDNOTFIND}
        self.offer(self.task.rounded(share))
        self.core = 0.5 * (self.core + share)
        self.task.cut_at(self.core)
        found = self.add_violated(share, t)
        if found == SCIP_RESULT.DIDNOTFIND:
            self.task.cut_at(share)
            found = self.add_violated(share, t)
        return {"result": found}

    def consenfolp(self, *_):
        """An integer LP solution: its own cut, unless it is there already."""
        share, t = self.point()
        self.offer(tuple(np.flatnonzero(share > 0.5).tolist()))
        found = self.add_violated(np.round(share), t)
        return {"result": SCIP_RESULT.FEASIBLE if found == SCIP_RESULT.DIDNOTFIND else found}

    def consenfops(self, *_):
        """Without an LP there is nothing to cut."""
        return {"result": SCIP_RESULT.SOLVELP}

    def conscheck(self, _, solution, *__):
        """A solution holds if its t is the value of its support, less the gap."""
        share, t = self.point(solution)
        support = tuple(np.flatnonzero(share > 0.5).tolist())
        holds = len(support) <= self.task.k and t >= (1 - self.task.gap) * self.task.evaluate(support) - 1e-9
        return {"result": SCIP_RESULT.FEASIBLE if holds else SCIP_RESULT.INFEASIBLE}

    def conslock(self, _, locktype, nlockspos, nlocksneg):
        """Less t, or a column fewer, may break a cut."""
        for v in (*self.original[0], self.original[1]):
            self.model.addVarLocksType(v, locktype, nlockspos, nlocksneg)


def solve_scip(task: Task, limit: float, rounds: int) -> dict:
    """Branch and cut in one tree: best bound first, without SCIP's own cuts and heuristics, which cost more than they saved."""
    model = Model()
    model.hideOutput()
    s = [model.addVar(f"s{j}", vtype="B") for j in range(task.width)]
    t = model.addVar("t", vtype="C", lb=0.0)
    model.addCons(quicksum(s) <= task.k)
    model.setObjective(t)
    model.setSeparating(SCIP_PARAMSETTING.OFF)
    model.setHeuristics(SCIP_PARAMSETTING.OFF)
    model.setParams(
        {
            "limits/time": limit,
            "separating/maxstallrounds": -1,
            "separating/maxstallroundsroot": -1,
            "separating/maxrounds": -1,
            "separating/maxroundsroot": -1,
            "misc/usesymmetry": 0,
            "lp/threads": 1,
            "nodeselection/bfs/stdpriority": 1_000_000,
        }
    )
    handler = Cuts(task, s, t, rounds)
    model.includeConshdlr(
        handler,
        "cuts",
        "outer approximation",
        sepapriority=1,
        enfopriority=-1,
        chckpriority=-1,
        sepafreq=1,
        needscons=False,
    )
    model.optimize()
    done = model.getStatus() == "optimal"
    bound = task.cutoff if done else min(model.getDualbound(), task.cutoff)
    return {"bound": bound, "nodes": model.getNTotalNodes(), "status": "optimal" if done else "limit"}


def solve_highs(task: Task, limit: float) -> dict:
    """Rounds on the LP, then a whole tree for each few cuts; its presolving and heuristics took most of the time."""
    started, highs, free = time.perf_counter(), highspy.Highs(), highspy.kHighsInf
    options = {"output_flag": False, "threads": 1, "parallel": "off", "presolve": "off", "mip_heuristic_effort": 0.0}
    options |= {f"mip_heuristic_run_{name}": False for name in ("rins", "rens", "root_reduced_cost")}
    for name, value in (options | {"mip_rel_gap": task.gap / 10}).items():
        highs.setOptionValue(name, value)
    t, given, nodes, bound = task.width, 0, 0, 0.0
    for _ in range(task.width):
        highs.addVar(0.0, 1.0)
    highs.addVar(0.0, free)
    highs.changeColCost(t, 1.0)
    everything = np.arange(task.width + 1, dtype=np.int32)
    highs.addRow(-free, task.k, task.width, everything[:t], np.ones(task.width))
    tried: set[tuple[int, ...]] = set()

    def solve() -> tuple[np.ndarray, highspy.HighsModelStatus]:
        """The point that the solver ended with, empty without one, and how it ended."""
        nonlocal given
        for i in range(given, task.cuts):
            highs.addRow(task.constants[i], free, t + 1, everything, np.append(task.slopes[i], 1.0))
        given = task.cuts
        highs.changeColBounds(t, 0.0, task.cutoff)
        highs.setOptionValue("time_limit", max(0.01, limit - (time.perf_counter() - started)))
        highs.run()
        solution = highs.getSolution()
        return np.array(solution.col_value) if solution.value_valid else np.empty(0), highs.getModelStatus()

    def out_of_time() -> bool:
        return time.perf_counter() - started > limit

    infeasible = highspy.HighsModelStatus.kInfeasible
    core = np.zeros(task.width)
    core[list(task.incumbent)] = 1.0
    heights: list[float] = []
    while not settled(heights, task.cutoff):
        point, status = solve()
        if status == infeasible:  # nothing is left below the cutoff
            return {"bound": task.cutoff, "nodes": 0, "status": "optimal"}
        if status != highspy.HighsModelStatus.kOptimal:
            break
        share = np.clip(point[:t], 0.0, 1.0)
        bound = max(bound, float(point[t]))
        heights.append(bound)
        for j in np.flatnonzero(np.array(highs.getSolution().col_dual)[:t] + point[t] > task.cutoff):
            highs.changeColBounds(int(j), 0.0, 0.0)
        task.evaluate(task.rounded(share))
        core = 0.5 * (core + share)
        before = task.cuts
        task.cut_at(core)
        columns = np.flatnonzero(share)
        if task.cut_values(columns, share[columns])[before:].max() <= point[t] + VIOLATION:
            task.cut_at(share)
            if task.cut_values(columns, share[columns])[-1] <= point[t] + VIOLATION:
                break
    highs.changeColsIntegrality(t, everything[:t], np.full(t, highspy.HighsVarType.kInteger))
    highs.cbMipImprovingSolution.subscribe(lambda e: tried.add(task.rounded(np.array(e.data_out.mip_solution)[:t])))
    while not out_of_time():
        tried.clear()
        point, status = solve()
        info = highs.getInfo()
        nodes += max(0, info.mip_node_count)
        if status == infeasible:
            return {"bound": task.cutoff, "nodes": nodes, "status": "optimal"}
        bound = max(bound, min(info.mip_dual_bound, task.cutoff))
        if bound >= task.cutoff:
            return {"bound": bound, "nodes": nodes, "status": "optimal"}
        if len(point):
            tried.add(task.rounded(point[:t]))
        for support in tried:
            task.evaluate(support)
    return {"bound": min(bound, task.cutoff), "nodes": nodes, "status": "limit"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", metavar="PROBLEM.npz")
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    parser.add_argument("--solver", choices=["scip", "highs"], default="scip")
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS", help="of wall time, reading left out")
    parser.add_argument(
        "--rounds", type=int, default=1, help="SCIP: cuts at fractional points, per node below the root"
    )
    arguments = parser.parse_args()
    task = Task(arguments.problem)
    started = time.perf_counter()
    task.evaluate(task.incumbent)
    if task.root is not None:
        task.add_cut(task.root)
    if arguments.solver == "scip":
        result = solve_scip(task, arguments.limit, arguments.rounds)
    else:
        result = solve_highs(task, arguments.limit)
    result |= {
        "solver": arguments.solver,
        "objective": task.best,
        "gap": (task.best - result["bound"]) / task.best,
        "seconds": time.perf_counter() - started,
        "cuts": task.cuts,
        "support": list(task.support),
    }
    arguments.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
