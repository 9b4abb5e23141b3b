"""Makes a table of the runs of simulators: medians, and ratios beside a plain loop and the best rival."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fedtlu_fast.profiling.federations.workloads import NAMES
from fedtlu_fast.profiling.journal import Key
from fedtlu_fast.profiling.simulators import CEILING, OURS, PLAIN

Results = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class SimulatorRow:
    """Holds the result of one simulator on one workload; medians over its runs.

    A ratio is None if what it compares with was not run. The best rival is the fastest system that is neither
    ours nor the plain loop; for its first round it is the one whose first round is the fastest.

    Attributes:
        workload: one of `NAMES`.
        system: the simulator and its mode.
        version: the simulator's version.
        clients: number of clients in the federation.
        cohort: number of clients in a round.
        runs: how often it was started.
        seconds_per_round: median of all rounds except the first.
        first_round_seconds: from the end of the imports to the end of the first round.
        import_seconds: from the start of the script to the end of the imports.
        peak_mb: largest memory of all its processes, shared pages counted once; MB = 1e6 bytes.
        times_ours: seconds_per_round divided by that of fedtlu's default.
        times_faster_than_plain: the plain loop's seconds_per_round divided by this one's.
        times_faster_than_rivals: the best rival's seconds_per_round divided by this one's.
        first_round_of_rivals: first_round_seconds divided by the best rival's.
        mb_over_plain: peak_mb above the plain loop's.
        share_of_peak: FLOP/s of the models' matrix products and convolutions in a round, as a share of those
            of a large float32 matrix product on all cores, measured in the same run.
        loss_before: the initial model's loss, which shows that all begin with the same model.
        loss_after: the loss after all rounds; it differs, because each simulator draws its own cohorts.
    """

    workload: str
    system: str
    version: str
    clients: int
    cohort: int
    runs: int
    seconds_per_round: float
    first_round_seconds: float
    import_seconds: float
    peak_mb: float
    times_ours: float | None
    times_faster_than_plain: float | None
    times_faster_than_rivals: float | None
    first_round_of_rivals: float | None
    mb_over_plain: float | None
    share_of_peak: float | None
    loss_before: float
    loss_after: float


def rows(found: Mapping[Key, dict[str, Any]]) -> list[SimulatorRow]:
    """Returns one row for each simulator and workload; within a workload the fastest comes first.

    Args:
        found: results of runs, as `simulators.measure` puts them into a journal.
    """
    groups: defaultdict[str, defaultdict[tuple[str, str], list[dict[str, Any]]]]
    groups = defaultdict(lambda: defaultdict(list))
    for (workload, system, mode, _), result in found.items():
        groups[workload][system, mode].append(result)
    made = []
    for workload in sorted(groups, key=NAMES.index):
        own = [_row(simulator, results, groups[workload]) for simulator, results in groups[workload].items()]
        made += sorted(filter(None, own), key=lambda row: row.seconds_per_round)
    return made


def seconds_per_round(results: Results) -> float:
    """Returns the median over the rounds of some runs, without the first rounds."""
    return float(median(seconds for result in results for seconds in result["round_seconds"][1:]))


def _row(
    simulator: tuple[str, str], results: Results, all_results: Mapping[tuple[str, str], Results]
) -> SimulatorRow | None:
    """Returns the row of one simulator beside the others of its workload; None for the processor's peak."""
    if simulator[0] == CEILING.system:
        return None
    others = {name: own for name, own in all_results.items() if name[0] not in (OURS, PLAIN, CEILING.system)}
    plain, ours = all_results.get((PLAIN, "loop")), all_results.get((OURS, "auto"))
    ceiling = all_results.get((CEILING.system, CEILING.mode))
    seconds, peak = seconds_per_round(results), _peak_mb(results)
    rival = min(map(seconds_per_round, others.values()), default=None)
    rival_first = min(map(_first, others.values()), default=None)
    return SimulatorRow(
        workload=results[0]["workload"],
        system=" ".join(simulator),
        version=results[0]["version"],
        clients=results[0]["clients"],
        cohort=results[0]["cohort"],
        runs=len(results),
        seconds_per_round=seconds,
        first_round_seconds=_first(results),
        import_seconds=median(result["import_seconds"] for result in results),
        peak_mb=peak,
        times_ours=seconds / seconds_per_round(ours) if ours else None,
        times_faster_than_plain=seconds_per_round(plain) / seconds if plain else None,
        times_faster_than_rivals=rival / seconds if rival else None,
        first_round_of_rivals=_first(results) / rival_first if rival_first else None,
        mb_over_plain=peak - _peak_mb(plain) if plain else None,
        share_of_peak=_share_of_peak(ceiling, seconds) if ceiling else None,
        loss_before=results[0]["loss_before"],
        loss_after=results[0]["loss_after"],
    )


def _first(results: Results) -> float:
    return float(median(result["first_round_seconds"] for result in results))


def _peak_mb(results: Results) -> float:
    return float(median(result["peak_bytes"] for result in results)) / 1e6


def _share_of_peak(ceiling: Results, seconds: float) -> float:
    peak = median(result["peak_flops"] for result in ceiling)
    return float(ceiling[0]["round_flops"]) / seconds / float(peak)
