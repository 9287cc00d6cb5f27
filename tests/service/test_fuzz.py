"""Schemathesis against every operation of /openapi.json: no server error, and every answer as documented.

Files are small drawn photos, whole or damaged. BOOTHSAM_FUZZ_EXAMPLES raises the number of examples of each operation
from 12; more than those are new ones each time. Requests that make sense are in test_fuzz_forms.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from boothsam.service.app import create_app
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.service.fuzz_inputs import check_answer, damaged, few_or_many, files, whole
from tests.service.http_client import service, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis 4 needs Python 3.11")
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance  # noqa: E402

CHECKS = [not_a_server_error, content_type_conformance, status_code_conformance]
schemathesis.openapi.format("binary", st.one_of(whole, whole, damaged, st.binary(max_size=64)))


@pytest.fixture(scope="module")
def client(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A running, ready service with captures, and a photo to annotate."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "photos").mkdir()
    (folder / "photos" / "one.png").write_bytes(files()[2])
    folders = {"captures_dir": str(folder / "captures"), "annotate_dir": str(folder / "photos")}
    # POST /everything asks 1024 points by default, too many for a test; being cut short is an answer as well.
    with service(color_folder, min_free_bytes=0, everything_timeout_s=0.2, **folders) as started:
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


def _operations() -> list[tuple[str, str]]:
    paths = create_app(settings(None, captures_dir="unused", annotate_dir="unused")).openapi()["paths"]
    return [(method, path) for path, item in paths.items() for method in item]


@pytest.mark.parametrize(("method", "path"), _operations())
def test_every_answer_is_documented_and_none_is_a_server_error(
    client: TestClient, api: Any, method: str, path: str
) -> None:
    operation = api[path][method]
    modes = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]

    @few_or_many
    @given(case=st.one_of(modes))
    def ask(case: Any) -> None:
        answer = _send(client, case)
        cut_short = answer.status_code == 503 and answer.json()["code"] == "everything_timeout"
        case.validate_response(answer, checks=CHECKS[1:] if cut_short else CHECKS)
        check_answer(api.raw_schema, method, path, answer)

    ask()
