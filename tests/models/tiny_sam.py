"""The tiny real SAM: where it lies, how to load it. make_tiny_sam.py trained it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from tests.reference.segment_anything_reference import build_reference_sam

CONFIG = Path(__file__).with_name("tiny_sam.json")
CHECKPOINT = Path(__file__).with_name("tiny_sam.pt")


def load_tiny_sam(checkpoint: Path = CHECKPOINT) -> Any:
    """The trained tiny SAM as a `segment_anything` Sam in eval mode.

    Raises ValueError if the committed file is not the one that tiny_sam.sha256 names.
    """
    if checkpoint == CHECKPOINT:
        found = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        expected = checkpoint.with_suffix(".sha256").read_text().split()[0]
        if found != expected:
            raise ValueError(
                f"found sha256 {found} for {checkpoint.name}, expected {expected}\n"
                "hint: git checkout tests/models, or train it anew with python -m tests.models.make_tiny_sam"
            )
    sam = build_reference_sam(json.loads(CONFIG.read_text()))
    sam.load_state_dict(torch.load(checkpoint, weights_only=True), strict=True)
    return sam
