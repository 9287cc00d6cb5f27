"""Writes tests/data/everything.json: what the original authors' generator finds with the tiny SAM. Takes minutes.

python -m tests.runtime.make_everything_answers [CASE ...]
"""

from __future__ import annotations

import json
import math
import sys

import torch

from tests.models.tiny_sam import load_tiny_sam
from tests.reference.segment_anything_reference import load_reference
from tests.runtime.everything_cases import ANSWERS, CASES


def main() -> None:
    torch.set_num_threads(1)
    sam, reference = load_tiny_sam(), load_reference()
    answers = json.loads(ANSWERS.read_text())["answers"] if ANSWERS.exists() else {}
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        options = case.options() | {"output_mode": "coco_rle", "points_per_batch": 8}
        records = reference.SamAutomaticMaskGenerator(sam, **options).generate(case.scene.image)
        for record in records:  # 0 / 0 for an empty mask
            record["stability_score"] = None if math.isnan(record["stability_score"]) else record["stability_score"]
        answers[name] = records
        print(name, len(records))
    head = {"made_by": "python -m tests.runtime.make_everything_answers", "torch": torch.__version__}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(records)}" for name, records in answers.items())
    ANSWERS.write_text(f'{{"head": {json.dumps(head)}, "answers": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
