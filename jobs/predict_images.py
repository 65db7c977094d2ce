"""Classifies images with a trained model as a Ray job, from any image URI to Parquet.

From the root of the repository:

    ray job submit --working-dir . -- python jobs/predict_images.py MODEL INPUT --output OUTPUT

MODEL is RUN/groups/GROUP/model of a run directory; it, INPUT and OUTPUT are paths or URIs that every node can
reach. A row of the output has the image's path or row, the label, and the probability of each class; with
`--label-shift em` also what these are for the class frequencies that are estimated over all the images.
"""

import sys
from pathlib import Path

# A script's own directory is on the path, not the uploaded working directory above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from orchestrator.cli import main as orchestrator


def main() -> int:
    """Predict what the arguments name; give 0 when every image got a prediction."""
    return orchestrator(["predict", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
