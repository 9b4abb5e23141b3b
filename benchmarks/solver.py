"""Measures how near to the optimum `choose_layers` solves P1 (which layers each client trains), and its time.

    python benchmarks/solver.py [--cases 200] [--rounds 5] [--costs equal] [--out solver.csv]

Each row is printed and written as soon as it is measured. Rows that the file holds already are not measured
again, so that an interrupted benchmark goes on; remove the file to measure all anew.

Small problems are compared with the optimum by HiGHS, of a linear programme with a variable for every pair of
clients and layer, and of one with unary counters (the m-th client of a layer costs lambda (N - 2 m + 1)).
Problems of 100 clients are compared with the proven bound of `choose_layers(prove=True)`, and larger ones
with the bound of the call itself, because a proof for 1000 clients takes minutes. Gains have a part that all
clients share and a part of each client, or come in three clusters; budgets are equal or mixed, in layers or
(rows with "few" and "all") in units of costs: of three kinds of layers, or all different, half of these cases
with a way down to the lowest layer. lambda is in units of the mean gain divided by the number of clients.
Times are processor time, which other work changes less than it changes time.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil, inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from fedtlu_fast.randomness import generator
from fedtlu_fast.selection import choose_layers
from fedtlu_fast.selection.agreement import Choice
from fedtlu_fast.selection.agreement.exact import solve_exactly
from fedtlu_fast.selection.agreement.limits import Counts
from fedtlu_fast.selection.agreement.problem import Problem
from fedtlu_fast.selection.agreement.search import Found

Floats = NDArray[np.float64]
Case = tuple[Floats, NDArray[np.int64], float]
Costed = tuple[Floats, Floats, float, Floats, Floats]

SMALL = ((8, 8), (12, 12), (20, 12))
LARGE = ((100, 24), (1000, 48))
COSTED = ((10, 12), (100, 24), (300, 48))
KINDS = ("few", "all")
PROVEN = 100
LAMBDAS = (0.1, 0.3, 1.0, 3.0)
UNARY_SECONDS = 20


def case(clients: int, layers: int, lam: float, index: int) -> Case:
    """Draws gains, budgets and lambda."""
    random = generator(0, f"solver benchmark {clients}x{layers}", index, int(10 * lam))
    own = random.choice([0.2, 0.5, 1.0])
    gains = (1 - own) * random.gamma(2, 1, layers) + own * random.gamma(2, 1, (clients, layers))
    if index % 3 == 0:
        gains = 0.3 * gains + 0.7 * random.gamma(1, 1, (3, layers))[random.integers(0, 3, clients)]
    most = int(random.integers(1, layers // 2 + 1))
    budgets = random.integers(1, most + 1, clients) if index % 2 else np.full(clients, most)
    return gains, budgets, lam * float(gains.mean()) / clients


def costed(clients: int, layers: int, lam: float, index: int, kind: str) -> Costed:
    """Draws gains, budgets, lambda, costs of some kind, and the way down to each layer."""
    gains, budgets, price = case(clients, layers, lam, index)
    random = generator(0, f"solver costs {kind} {clients}x{layers}", index, int(10 * lam))
    few = random.choice([1.0, 2.5, 4.7], layers)
    costs = few if kind == "few" else random.gamma(2, 1, layers) + 0.1
    reach = np.arange(layers, 0, -1) * (costs.mean() / 4 * (index // 2 % 2))
    shares = budgets * random.uniform(0.9, 1.1, clients) if index % 2 else budgets.astype(np.float64)
    return gains, (shares + 0.5) * costs.mean() + reach[0] * budgets / layers, price, costs, reach


def by_costs(problem: Costed, **how: bool) -> Choice:
    """Solves a problem with costs."""
    gains, budgets, lam, costs, reach = problem
    return choose_layers(gains, budgets, lam, costs=costs, reach=reach, **how)


def by_pairs(gains: NDArray[np.float64], budgets: NDArray[np.int64], lam: float) -> float:
    """Finds the optimum by the package's own programme."""
    problem = Problem(gains, np.ones(len(gains)), lam, Counts(budgets))
    return solve_exactly(problem, Found(np.zeros(gains.shape, np.bool_), 0.0, inf)).objective


def by_counters(gains: NDArray[np.float64], budgets: NDArray[np.int64], lam: float) -> float:
    """Finds the optimum by unary counters, or the best value found within UNARY_SECONDS."""
    clients, layers = gains.shape
    cells = clients * layers
    dearer = np.tile(lam * (clients - 2 * np.arange(1, clients + 1) + 1), layers)
    each = sparse.kron(sparse.eye_array(clients), np.ones((1, layers)))
    chosen = sparse.kron(np.ones((1, clients)), sparse.eye_array(layers))
    counted = sparse.kron(sparse.eye_array(layers), np.ones((1, clients)))
    next_one = np.eye(clients - 1, clients) - np.eye(clients - 1, clients, 1)
    falling = sparse.kron(sparse.eye_array(layers), next_one)
    nothing = sparse.csr_array((falling.shape[0], cells))
    found = milp(
        np.concatenate([-gains.ravel(), dearer]),
        constraints=[
            LinearConstraint(sparse.hstack([each, sparse.csr_array((clients, cells))]), -np.inf, budgets),
            LinearConstraint(sparse.hstack([chosen, -counted]), 0, 0),
            LinearConstraint(sparse.hstack([nothing, falling]), 0, np.inf),
        ],
        integrality=np.ones(2 * cells),
        bounds=Bounds(0, 1),
        options={"time_limit": UNARY_SECONDS, "mip_rel_gap": 1e-9},
    )
    return -float(found.fun) if found.x is not None else 0.0


def by_choose_layers(gains: NDArray[np.float64], budgets: NDArray[np.int64], lam: float) -> float:
    """Returns the objective that `choose_layers` reaches."""
    return choose_layers(gains, budgets, lam).objective


def bound(gains: NDArray[np.float64], budgets: NDArray[np.int64], lam: float) -> float:
    """Returns an upper bound of the optimum, proven for some seconds where there are few clients."""
    return choose_layers(gains, budgets, lam, prove=len(gains) <= PROVEN).bound


def timed(solver: Callable[..., float], problem: Case) -> tuple[float, float]:
    """Returns the solver's result, and milliseconds of processor time."""
    start = time.process_time()
    value = solver(*problem)
    return value, 1000 * (time.process_time() - start)


def row(size: tuple[int, int], lam: float, cases: int, rounds: int, unary: int) -> dict[str, object]:
    """Makes a row of the table."""
    quality, ours, pairs, counters = [], [], [], []
    small = size in SMALL
    for index in range(cases):
        problem = case(*size, lam, index)
        best, milliseconds = timed(by_pairs if small else bound, problem)
        if small:
            pairs.append(milliseconds)
        tries = [timed(by_choose_layers, problem) for _ in range(rounds)]
        ours.append(min(milliseconds for _, milliseconds in tries))
        quality.append(tries[0][0] / best)
        if small and index < unary:
            value, milliseconds = timed(by_counters, problem)
            counters.append(milliseconds)
            if milliseconds < 1000 * UNARY_SECONDS and abs(value - best) > 1e-5 * best:
                raise AssertionError(f"two programmes, two optima: {best} and {value}")
    return line(size, lam, "equal", cases, small, quality, ours, pairs, counters)


def costed_row(size: tuple[int, int], lam: float, kind: str, cases: int, rounds: int) -> dict[str, object]:
    """Makes a row of the table for budgets in costs."""
    small, proven = size == COSTED[0], size[0] <= PROVEN
    quality, ours = [], []
    for index in range(cases):
        problem = costed(*size, lam, index, kind)
        best = by_costs(problem, exact=True).objective if small else by_costs(problem, prove=proven).bound
        times = []
        for _ in range(rounds):
            start = time.process_time()
            reached = by_costs(problem).objective
            times.append(1000 * (time.process_time() - start))
        ours.append(min(times))
        quality.append(reached / best)
    return line(size, lam, kind, cases, small, quality, ours, [], [])


def line(
    size: tuple[int, int],
    lam: float,
    kind: str,
    cases: int,
    small: bool,
    quality: list[float],
    ours: list[float],
    pairs: list[float],
    counters: list[float],
) -> dict[str, object]:
    """Puts a row's numbers into columns."""
    return {
        "clients": size[0],
        "layers": size[1],
        "costs": kind,
        "lambda": lam,
        "cases": cases,
        "against": "optimum" if small else "bound",
        "median quality": f"{np.median(quality):.6f}",
        "p10 quality": f"{np.quantile(quality, 0.1):.6f}",
        "worst quality": f"{min(quality):.6f}",
        "ours ms": f"{np.median(ours):.2f}",
        "ours p90 ms": f"{np.quantile(ours, 0.9):.2f}",
        "ours worst ms": f"{max(ours):.2f}",
        "HiGHS pairs ms": f"{np.median(pairs):.0f}" if pairs else "",
        "HiGHS counters ms": f"{np.median(counters):.0f}" if counters else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200, help="number of small problems, over all lambdas")
    parser.add_argument(
        "--large",
        type=int,
        default=6,
        help="number of problems of each size and lambda above 20 clients, with costs: above 100",
    )
    parser.add_argument(
        "--costed",
        type=int,
        default=4,
        help="number of other problems with costs, for each size, kind and lambda",
    )
    parser.add_argument(
        "--unary", type=int, default=3, help="number of problems per row that are also solved by counters"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="repetitions of choose_layers; the fastest counts"
    )
    parser.add_argument("--costs", nargs="+", choices=("equal", *KINDS), default=("equal", *KINDS))
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args()
    each = ceil(options.cases / (len(SMALL) * len(LAMBDAS)))
    rows: list[dict[str, object]] = []
    if options.out and options.out.exists():
        with options.out.open(newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    known = {(row["clients"], row["layers"], row["costs"], row["lambda"]) for row in rows}
    for kind, size, lam in plan(options.costs):
        if (*map(str, size), kind, str(lam)) in known:
            continue
        if kind != "equal":
            cases = options.costed if size[0] <= PROVEN else options.large
            found = costed_row(size, lam, kind, cases, options.rounds)
        elif size in SMALL:
            found = row(size, lam, each, options.rounds, options.unary)
        else:
            found = row(size, lam, options.large, options.rounds, 0)
        rows.append(found)
        print(*found.values(), sep="\t", flush=True)
        if options.out:
            write(options.out, rows)
    show(rows)


def plan(kinds: Sequence[str]) -> Iterator[tuple[str, tuple[int, int], float]]:
    """Yields costs, size and lambda of each row."""
    for kind in kinds:
        yield from product([kind], (*SMALL, *LARGE) if kind == "equal" else COSTED, LAMBDAS)


def write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Writes all rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def show(rows: Sequence[dict[str, object]]) -> None:
    """Prints the table."""
    table = Table(title="P1: objective of choose_layers over the optimum or the bound")
    for head in rows[0]:
        table.add_column(head, justify="right")
    for values in rows:
        table.add_row(*map(str, values.values()))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
