"""Prints the share of branches that the tests took, from `coverage json` on standard input; fails below a floor."""

from __future__ import annotations

import json
import sys


def main(floor: float) -> int:
    """Exit status: 0 if at least `floor` percent of the branches were taken."""
    totals = json.load(sys.stdin)["totals"]
    taken, branches = totals["covered_branches"], totals["num_branches"]
    share = 100 * taken / branches if branches else 100.0
    print(f"branches taken: {share:.1f} % ({taken} of {branches}); at least {floor:g} % are required")
    return 0 if share >= floor else 1


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
