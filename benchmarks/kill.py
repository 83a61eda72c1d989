"""Kill a run at random moments, resume it from its last checkpoint, and compare its story with a run left alone.

    PYTHONPATH=tests python benchmarks/kill.py            # at least 50 kills

Each run is killed with SIGKILL up to 5 times, at moments drawn uniformly from the first 80 % of a run's
length, which is counted in calls of Python functions: no kill depends on how fast the machine is.
"""

import argparse
import random
import tempfile
from pathlib import Path

from killing import killed_run, story, whole_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    draw, killed, runs, same, torn = random.Random(1), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        longest = 0.8 * whole_run(whole)
        alerts, findings, _ = story(whole)
        while killed < options.kills:
            folder = Path(temporary) / str(runs)
            killed += killed_run(folder, 5, longest, draw)
            runs += 1
            *told, torn_here = story(folder)
            same += told == [alerts, findings]
            torn += torn_here
    print(f"{killed} kills in {runs} runs: {same} runs tell the same story as the one left alone; {torn} torn lines")
    print(f"that story: {len(alerts)} alerts, {len(findings)} findings")


if __name__ == "__main__":
    main()
