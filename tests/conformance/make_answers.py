"""Ask the original authors' SamPredictor on the tiny SAM every question: runtime/conformance/data/answers.npz.

python -m tests.conformance.make_answers
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boothsam.conformance.cases import CASES, PICTURES, scene
from boothsam.conformance.runner import ANSWERS, OFFSET, STRIDE, fingerprint

from tests.models.tiny_sam import load_tiny_sam
from tests.reference.segment_anything_reference import load_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ANSWERS)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    reference = load_reference()
    predictor = reference.SamPredictor(load_tiny_sam())
    stored: dict[str, Any] = {f"{name}/sha256": np.array(fingerprint(scene(name).image)) for name in PICTURES}
    current = None
    for case in CASES:
        if case.picture != current:
            predictor.set_image(scene(case.picture).image)
            current = case.picture
        previous = None
        for call, ask in enumerate(case.asks):
            arguments = ask.arguments(scene(case.picture)) | ({"mask_input": previous} if ask.refine else {})
            masks, scores, logits = predictor.predict(**arguments)
            previous = logits[int(scores.argmax())][None]
            rles = reference.utils.amg.mask_to_rle_pytorch(torch.from_numpy(masks))
            key = f"{case.name}/{call}"
            stored |= {f"{key}/scores": scores, f"{key}/logits": logits[:, OFFSET::STRIDE, OFFSET::STRIDE]}
            stored[f"{key}/counts"] = np.concatenate([rle["counts"] for rle in rles]).astype(np.int32)
            stored[f"{key}/lengths"] = np.array([len(rle["counts"]) for rle in rles], np.int32)
            shares = ", ".join(f"{mask.mean():.3f}" for mask in masks)
            print(f"{key:20} scores {np.round(scores, 3)}  shares {shares}")
            if not masks[int(scores.argmax())].any():
                raise AssertionError(f"{key}: an empty mask proves nothing; choose another object")
    out.parent.mkdir(exist_ok=True)
    np.savez_compressed(out, **stored)
    print(f"{out}: {len(stored)} arrays, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
