"""Runs an experiment, or single stages of it, as a Ray job.

From the root of the repository:

    ray job submit --working-dir . -- python jobs/run.py jobs/experiments/demo.yaml

Single stages and changed keys:

    ray job submit --working-dir . -- python jobs/run.py EXPERIMENT --stages search,train --set seed=1

`ray job stop` ends the running stage cleanly; submitting again resumes there.
"""

import sys
from pathlib import Path

# A script's own directory is on the path, not the uploaded working directory above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator.cli import main as orchestrator


def main() -> int:
    """Run the experiment that the arguments name; give 0 when everything asked for succeeded."""
    return orchestrator(["run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
