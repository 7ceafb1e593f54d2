"""Trains segmentation networks on the same simulated head CTs, for the same minutes, and prints them side by side.

    python tools/peers [unet|dynunet|nnunet ...] [--minutes M] [--seeds S ...] [--output DIR] [key=value ...]

Without a network only the table is printed. Each network, budget and seed is a cell, DIR/cells/<name>.json, trained
once; cells may be added at any time, on any machine that the folder is on. The clock is the processor time of one
thread while a network trains (other work on the machine does not count): preparing exams, nnU-Net's planning and
preprocessing, and predicting lie outside it. key=value: settings of the pipeline hemorrhage, such as data.n=40.
nnU-Net 2 has an environment of its own:
    python3 -m venv outputs/nnunet && outputs/nnunet/bin/pip install nnunetv2==2.8.1
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "tools")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from peers import cells, exams  # noqa: E402

NETWORKS = ("unet", "dynunet", "nnunet")


def main() -> int:
    """Train what was asked for, then print the table of all cells."""
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="NETWORK|key=value", help=", ".join(NETWORKS))
    parser.add_argument("--minutes", type=float, default=15.0, help="processor minutes of training a cell")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "peers")
    parser.add_argument("--nnunet", type=Path, default=ROOT / "outputs/nnunet/bin/python", help="its Python")
    arguments = parser.parse_intermixed_args()
    settings = [word for word in arguments.words if "=" in word]
    networks = [word for word in arguments.words if "=" not in word]
    if unknown := sorted(set(networks) - set(NETWORKS)):
        parser.error(f"unknown network {unknown[0]}; known: {', '.join(NETWORKS)}")
    output = arguments.output.resolve()
    if networks:
        sets = exams.prepare(output, settings)
        for seed in arguments.seeds:
            for network in networks:
                cells.train(network, sets, output, minutes=arguments.minutes, seed=seed, python=arguments.nnunet)
    print(cells.table(output))
    return 0


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
