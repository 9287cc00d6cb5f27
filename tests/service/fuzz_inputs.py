"""Inputs for the fuzz tests: small whole and damaged photos, and the check of an answer against /openapi.json."""

from __future__ import annotations

import io
import os
import random
from typing import Any

import jsonschema
import numpy as np
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from tests.service.conftest import disc

FEW = 12
EXAMPLES = int(os.environ.get("BOOTHSAM_FUZZ_EXAMPLES", FEW))
# The short run asks the same questions each time.
few_or_many = hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == FEW,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def files() -> list[bytes]:
    """One drawn product, a red disc around (45, 30) on 90x60, as every accepted kind of file; one of them rotated."""
    image = np.full((60, 90, 3), 230, np.uint8)
    disc(image, (45, 30), 18, (190, 40, 35))
    sideways = Image.Exif()
    sideways[0x0112] = 6
    found = []
    for kind, options in (
        ("JPEG", {}), ("JPEG", {"progressive": True, "exif": sideways}), ("PNG", {}), ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def damage(data: bytes, seed: int) -> bytes:
    """One file with flipped bits, a missing end, or a stretch removed, doubled or made noise."""
    rng, file = random.Random(seed), bytearray(data)
    at, length = rng.randrange(len(file)), rng.randrange(1, 64)
    way = rng.randrange(5)
    if way == 0:
        for _ in range(rng.randrange(1, 16)):
            file[rng.randrange(len(file))] ^= 1 << rng.randrange(8)
    elif way == 1:
        del file[max(1, at) :]
    elif way == 2:
        del file[at : at + length]
    elif way == 3:
        file[at:at] = file[at : at + length] * rng.randrange(1, 30)
    else:
        file[at : at + length] = rng.randbytes(length)
    return bytes(file)


whole = st.sampled_from(files())
damaged = st.builds(damage, whole, st.integers(0, 1 << 30))


def check_answer(document: dict[str, Any], method: str, path: str, answer: Any) -> None:
    """The status is documented, and a JSON body keeps to the schema of its status and content type.

    By jsonschema: schemathesis' own check takes the prefixItems of a tuple in a referenced schema for an error.
    """
    responses = document["paths"][path][method]["responses"]
    assert str(answer.status_code) in responses, (answer.status_code, answer.text[:500])
    kind = answer.headers.get("content-type", "").split(";")[0]
    if kind.endswith("json"):
        schema = responses[str(answer.status_code)].get("content", {}).get(kind, {}).get("schema", {})
        jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json())
