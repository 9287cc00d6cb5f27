"""Every curl example of the documents, run as written against a live server; only its address is exchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from boothsam.runtime.images import load_image, save_image

from tests.service.http_client import serving

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8765"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_OUTPUT = re.compile(r" -o (\S+)")
PICTURES = {".png", ".jpg", ".webp"}


def _examples() -> list[tuple[str, str]]:
    """Document and text of each ```sh block that calls the service."""
    found = []
    for page in ("README.md", "docs/http.md"):
        blocks = [block for block in _BLOCK.findall((ROOT / page).read_text()) if ADDRESS in block]
        found += [(f"{page} {number}", block) for number, block in enumerate(blocks)]
    return found


EXAMPLES = _examples()


@pytest.fixture(scope="module")
def live(color_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("captures")
    with serving(color_folder, captures_dir=str(folder), min_free_bytes=0) as url:
        yield url


def test_the_documents_have_examples() -> None:
    shown = "".join(block for _, block in EXAMPLES)
    for route in ("/crop", "/embeddings", "/v1.0/removebg", "/captures", "/healthz"):
        assert f"{ADDRESS}{route}" in shown, route
    for name, block in EXAMPLES:
        # Without -f curl takes a refusal for a success.
        assert all(line.startswith("curl -fsS ") for line in re.findall(r"curl .*", block)), name


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl to run the examples with")
@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in EXAMPLES])
def test_an_example_works(block: str, live: str, photos: Path, tmp_path: Path) -> None:
    image = load_image(photos / "one.png")
    save_image(tmp_path / "product.jpg", image)
    for name in ("empty1.jpg", "empty2.jpg"):  # the same booth without its product: the backdrop's colour everywhere
        save_image(tmp_path / name, np.broadcast_to(image[0, 0], image.shape))
    script = "set -eu\n" + block.replace(ADDRESS, live)
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    outputs = _OUTPUT.findall(block)
    assert outputs or done.stdout.startswith("{"), done.stdout
    for name in outputs:
        assert (tmp_path / name).stat().st_size > 0, name
        if Path(name).suffix in PICTURES:
            assert load_image(tmp_path / name).size > 0
