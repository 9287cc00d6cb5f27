"""Fills a folder with composed scenes, so that drawing never holds up training.

python -m boothsam.training.pool --out pools/512 --longest 512 --count 4000 --textures DIR --cutouts DIR
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from boothsam.training.generator import Sources, compose


def fill_pool(out: Path, count: int, longest: int, seed: int, sources: Sources) -> int:
    """Write scenes `seed`-0 .. `seed`-(count - 1) that are not there yet; returns how many were written.

    Scene i depends on (seed, i) alone, so an interrupted run goes on where it stopped.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for index in range(count):
        path = out / f"{seed:04d}-{index:06d}.npz"
        if path.exists():
            continue
        compose(np.random.default_rng([seed, index]), longest, sources).save(path)
        written += 1
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--longest", type=int, default=512, help="longest side of the scenes, pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--textures", type=Path, action="append", default=[], help="folder of photos, repeatable")
    parser.add_argument("--cutouts", type=Path, action="append", default=[], help="folder of products on white")
    parser.add_argument("--favour", default="", help="draw this kind of thing eight times as often, such as cup")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    sources = Sources.from_folders(arguments.textures, arguments.cutouts, arguments.favour)
    sys.stdout.write(f"{len(sources.photos)} photos, {len(sources.cutouts)} cut-outs\n")
    start = time.perf_counter()
    written = fill_pool(arguments.out, arguments.count, arguments.longest, arguments.seed, sources)
    sys.stdout.write(f"{written} scenes in {time.perf_counter() - start:.0f} s\n")


if __name__ == "__main__":
    main()
