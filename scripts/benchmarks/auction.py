"""The auction by itself: how long a placement takes, beside a plain numpy pass over all cells; or how well it places.

Pure: no cell, no BBS, no database. Times are processor time of this process: other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
from pathlib import Path

import numpy as np

from diego_py.service import collector
from scripts.benchmarks import report
from scripts.benchmarks.auctions import quality, speed


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench auction", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of everything, in random order (5)")
    parser.add_argument("--cells", type=int, nargs="+", default=list(speed.CELLS), help="sizes of the fleet")
    parser.add_argument("--quality", action="store_true", help="compare placements instead; draws docs/auction/*.svg")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    options = parser.parse_args(argv)
    collector.settle()  # as in a BBS
    print(f"python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}\n")
    if options.quality:
        text, document = quality.compare()
    else:
        text, document = speed.measure(options.rounds, options.cells, random.Random(0), report.progress)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))
    return 0
