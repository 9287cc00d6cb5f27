"""Real photos with outlined things as training samples.

python -m boothsam.training.outlines --photos DIR --out pools/real

The outlines (outlines.json) were drawn over the Grocery Store Dataset's training photos and are found by the photo's
sha256, so any folder that holds those photos will do; all others in it are passed over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from boothsam.training.generator import Sample
from boothsam.training.photos import Image, list_photos, read_rgb
from boothsam.training.polygons import Bits, Outline, load_outlines, mask_of, sha256_of

LONGEST = 768  # longest side of the samples, pixels


def outlined(paths: Sequence[Path]) -> Iterator[tuple[Path, tuple[Outline, ...]]]:
    """Those of `paths` that have outlines, each with its things."""
    known = load_outlines()
    for path in paths:
        things = known.get(sha256_of(path))
        if things:
            yield path, things


def labelled_photos(paths: Sequence[Path]) -> list[tuple[Image, Bits, str]]:
    """(photo (h, w, 3) uint8 RGB, mask (h, w) bool of what is visible, name) of every outlined thing in `paths`."""
    labelled = []
    for path, things in outlined(paths):
        photo = read_rgb(path)
        labelled += [(photo, mask_of(thing.rings, *photo.shape[:2]), thing.name) for thing in things]
    return labelled


def real_sample(photo: Image, things: Sequence[Outline], longest: int = LONGEST) -> Sample:
    """One photo (h, w, 3) as a sample, its longest side resized to `longest`; instance k is the k-th thing, no parts.

    Outlines are scaled before they are drawn, so that masks of enlarged photos have no steps.
    """
    scale = longest / max(photo.shape[:2])
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    instances = np.zeros((height, width), np.uint8)
    for number, thing in enumerate(things, 1):
        rings = [[(x * width / photo.shape[1], y * height / photo.shape[0]) for x, y in ring] for ring in thing.rings]
        instances[mask_of(rings, height, width)] = number
    return Sample(image, instances, np.zeros((height, width), np.uint8))


def write_samples(paths: Sequence[Path], out: Path, longest: int = LONGEST) -> int:
    """Write one .npz per outlined photo of `paths` into `out`, named real-<sha256>; returns how many."""
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for path, things in outlined(paths):
        real_sample(read_rgb(path), things, longest).save(out / f"real-{sha256_of(path)[:16]}.npz")
        count += 1
    return count


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, action="append", required=True, help="folder of photos, repeatable")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--longest", type=int, default=LONGEST, help="longest side of the samples, pixels")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    paths = [path for folder in arguments.photos for path in list_photos(folder)]
    count = write_samples(paths, arguments.out, arguments.longest)
    if not count:
        sys.exit(
            f"none of the {len(paths)} photos has an outline; hint: pass the training photos of "
            "https://github.com/marcusklasson/GroceryStoreDataset with --photos"
        )
    sys.stdout.write(f"{count} samples of {len(paths)} photos in {arguments.out}\n")


if __name__ == "__main__":
    main()
