"""Schemathesis against every operation of /openapi.json: no server error, and every answer as documented.

Files are small drawn photos, whole or damaged, so that the decoder, the model and the cut-out are reached as well as
the refusals. BOOTHSAM_FUZZ_EXAMPLES raises the number of examples of each operation; other than in the short run they
are new ones each time.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import requests
import schemathesis
from boothsam.service.app import create_app
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from starlette.testclient import TestClient

from tests.service.conftest import disc
from tests.service.http_client import service, settings

FEW = 12
EXAMPLES = int(os.environ.get("BOOTHSAM_FUZZ_EXAMPLES", FEW))
CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance]


def _files() -> list[bytes]:
    """One drawn product as every accepted kind of file."""
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


_whole = st.sampled_from(_files())
_damaged = st.builds(damage, _whole, st.integers(0, 1 << 30))
schemathesis.openapi.format("binary", st.one_of(_whole, _whole, _damaged, st.binary(max_size=64)))


@pytest.fixture(scope="module")
def client(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A running, ready service with captures."""
    folder = tmp_path_factory.mktemp("fuzz") / "captures"
    with service(color_folder, captures_dir=str(folder), min_free_bytes=0) as started:
        yield started


@pytest.fixture(scope="module")
def api(client: TestClient) -> Any:
    """Its document, as schemathesis reads it."""
    return schemathesis.openapi.from_dict(client.get("/openapi.json").json())


def _send(client: TestClient, case: Any) -> Any:
    """The case on the client's own connection: schemathesis would start the application once more."""
    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://127.0.0.1")).prepare()
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    return client.request(prepared.method or "", prepared.url or "", headers=dict(prepared.headers), content=body)


def _conforms(document: dict[str, Any], method: str, path: str, answer: Any) -> None:
    """The body keeps to the schema of its status and content type.

    By jsonschema: schemathesis' own check takes the prefixItems of a tuple in a referenced schema for an error.
    """
    kind = answer.headers.get("content-type", "").split(";")[0]
    if not kind.endswith("json"):
        return
    content = document["paths"][path][method]["responses"][str(answer.status_code)].get("content", {})
    schema = content.get(kind, {}).get("schema", {})
    jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(answer.json())


def _operations() -> list[tuple[str, str]]:
    paths = create_app(settings(None, captures_dir="unused")).openapi()["paths"]
    return [(method, path) for path, item in paths.items() for method in item]


@pytest.mark.parametrize(("method", "path"), _operations())
def test_every_answer_is_documented_and_none_is_a_server_error(
    client: TestClient, api: Any, method: str, path: str
) -> None:
    operation = api[path][method]
    modes = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]

    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=EXAMPLES == FEW,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(modes))
    def ask(case: Any) -> None:
        answer = _send(client, case)
        case.validate_response(answer, checks=CHECKS)
        _conforms(api.raw_schema, method, path, answer)

    ask()
