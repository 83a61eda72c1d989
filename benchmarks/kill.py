"""Kill a run at random moments, resume it from its last checkpoint, and compare its story with a run left alone.

    PYTHONPATH=tests python benchmarks/kill.py            # at least 50 kills

Each run is killed with SIGKILL up to 5 times, at moments drawn uniformly from the first 80 % of a run's length.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from killing import in_a_child, killed_run, story


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    draw, killed, runs, same, torn = random.Random(1), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        started = time.perf_counter()
        in_a_child(whole, None)
        longest = 0.8 * (time.perf_counter() - started)
        expected = story(whole)
        while killed < options.kills:
            folder = Path(temporary) / str(runs)
            killed += killed_run(folder, 5, longest, draw)
            runs += 1
            same += story(folder) == expected
            lines = (folder / "log/mesa/findings.jsonl").read_text().splitlines()
            torn += sum(not line.endswith("}") for line in lines)
    print(f"{killed} kills in {runs} runs: {same} runs tell the same story as the one left alone; {torn} torn lines")
    print(f"that story: {len(expected[0])} alerts, {len(expected[1])} findings")


if __name__ == "__main__":
    main()
