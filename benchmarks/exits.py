"""Runs the demo many times and looks at how the interpreter ends: an abort at exit is status 134.

    python -m benchmarks.exits --times 20

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter


def exit_statuses(times: int, seconds: float = 1) -> Counter[int]:
    """Run short demos, each in a process of its own; count their exit statuses."""
    statuses: Counter[int] = Counter()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "livestain", "demo", "--seconds", str(seconds), "--size", "128"]
            command += ["--out", scratch]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            statuses[done.returncode] += 1
            if done.returncode:
                print(done.stdout + done.stderr, file=sys.stderr)
    return statuses


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    chosen = parser.parse_args()
    statuses = exit_statuses(chosen.times)
    print(json.dumps({"benchmark": "exits", "runs": chosen.times, "statuses": dict(statuses)}))


if __name__ == "__main__":
    main()
