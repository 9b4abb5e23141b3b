"""Injects faults and bad input into real runs, and counts how the runs end.

    python benchmarks/faults.py [--csv FILE] [--seed 0] [--share 1.0]
    python benchmarks/faults.py --kind "workers killed (SIGKILL)" --case 17    one case again

Every case is compared with the same command without faults. It must end with the same bits, summary and logs,
or with one message, after which --resume (or the same command again) must give the same result; any other end
is wrong. With links and FIFOs, everything outside the directory must also stay unchanged. Every case draws
from the seed, its kind and its number, so that it can be repeated. Linux; the full disk needs the right to
mount a tmpfs.
"""

import argparse
import csv
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).parent))

from fault_kinds import clients, damage, kills, limits, places
from fault_kinds.harness import Bench, Kind, Outcome, load_package

KINDS = [*kills.KINDS, *damage.KINDS, *places.KINDS, *limits.KINDS, *clients.KINDS]


@dataclass(frozen=True)
class Row:
    """Holds the results of one kind."""

    kind: str
    cases: int
    faults: int
    same_bits: int
    one_message: int
    wrong: int
    skipped: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", type=Path, help="CSV file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of each kind's cases to run; at least one case"
    )
    parser.add_argument("--kind", help="run only kinds whose name contains this")
    parser.add_argument("--case", type=int, help="run only the case with this number")
    parser.add_argument("--verbose", action="store_true", help="print the result of every case")
    args = parser.parse_args()
    chosen = [kind for kind in KINDS if (args.kind or "") in kind.name]
    if not chosen:
        parser.error(f"--kind: none has {args.kind!r} in its name; there are {[kind.name for kind in KINDS]}")
    load_package()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for kind in chosen:
            count = max(1, round(kind.cases * args.share))
            cases = range(count) if args.case is None else [args.case]
            row = run_kind(bench, kind, args.seed, cases, args.verbose)
            rows.append(row)
            print(
                f"{row.kind}: {row.cases} cases, {row.faults} faults: {row.same_bits} same bits, "
                f"{row.one_message} one message, {row.wrong} WRONG, {row.skipped} skipped; "
                f"{row.seconds:.0f} s",
                flush=True,
            )
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    if any(row.wrong for row in rows):
        sys.exit("some cases ended in a wrong way")


def run_kind(bench: Bench, kind: Kind, seed: int, cases: object, verbose: bool) -> Row:
    """Runs all cases of one kind; prints the wrong ones with their numbers."""
    began, words, faults = time.monotonic(), Counter[str](), 0
    for case in cases:
        draw = random.Random(f"{seed}/{kind.name}/{case}")
        found: Outcome = kind.one(bench, draw)
        words[found.word] += 1
        faults += found.injected if found.word != "skipped" else 0
        if verbose or found.word == "wrong":
            print(f"  {kind.name}, case {case}: {found.word} {found.note}", flush=True)
    return Row(
        kind.name,
        words.total(),
        faults,
        words["same"],
        words["message"],
        words["wrong"],
        words["skipped"],
        round(time.monotonic() - began, 1),
    )


if __name__ == "__main__":
    main()
