"""`python -m benchmarks NAME [--quick] [--out FILE]`: a table while it runs and, last, one JSON object of ratios."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import IDLE, ROOT, Effort, facts, load
from benchmarks.peers import PEERS, PeersMissingError, environment
from benchmarks.registry import BENCHMARKS
from benchmarks.rows import BUSY, REFUSED, SHOWN, Row, line, ratios, write_csv
from rheobase.scan.allocator import keep_memory


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark.

    Ends with 0, 1 if a contestant disagreed, 2 if the machine was busy, or lacks peers or what else it needs.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS), help="which benchmark")
    parser.add_argument("--quick", action="store_true", help="few cases, under two minutes; no default --out")
    parser.add_argument("--out", type=Path, help="CSV file (default: results/bench_NAME.csv)")
    parser.add_argument("--loaded", action="store_true", help="measure on a busy machine; no default --out")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # in the peers' environment already
    options = parser.parse_args(arguments)
    benchmark = BENCHMARKS[options.name]
    if reason := benchmark.missing():
        print(reason, file=sys.stderr)
        return 2
    rough = options.quick or options.loaded
    out = options.out or (None if rough else ROOT / "results" / f"bench_{options.name}.csv")

    if not options.inside:
        now = load()
        print(f"other processes use {now:.2f} of a core", flush=True)
        if now > IDLE and not options.loaded:
            print(f"that is above {IDLE}: wait, or pass --loaded for times not to be believed", file=sys.stderr)
            return 2
    if benchmark.peers and not options.inside:
        try:
            python = environment(PEERS)
        except PeersMissingError as error:
            print(error, file=sys.stderr)
            return 2
        target = [] if out is None else ["--out", str(out.resolve())]
        flags = [flag for flag in ("--quick", "--loaded") if getattr(options, flag[2:])]
        command = [str(python), "-m", "benchmarks", options.name, *flags, *target, "--inside"]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if status < 0:
            print(f"the run was ended by signal {-status}; if that is 9, memory may have run out", file=sys.stderr)
            return 2
        return status

    where = facts()
    print(f"freed memory is {'kept' if keep_memory() else 'returned'}; {where}\n{line(SHOWN)}", flush=True)
    rows = benchmark.run(Effort(options.quick, options.loaded), where, show)
    if out is not None:
        write_csv(out, rows)
    summary = {"benchmark": options.name, "ratios": ratios(rows), "loaded": options.loaded, **asdict(where)}
    print(json.dumps(summary))
    if any(REFUSED in row.note for row in rows):
        return 1
    return 2 if any(BUSY in row.note for row in rows) else 0


def show(rows: Sequence[Row]) -> None:
    """Print some rows of the table."""
    for row in rows:
        flat = row.flat()
        print(line([flat[name] for name in SHOWN]), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
