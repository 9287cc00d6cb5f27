"""What the tests of Triton's repositories ask, and servers to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from boothsam.engines.triton import Settings, export_repository
from boothsam.runtime.images import encode_image

from tests.engines.triton_stand_in import Array, Server


def png(image: Array) -> Array:
    return np.array([encode_image(image, "png")], np.object_)


def click(x: float, y: float, label: int = 1) -> dict[str, Array]:
    return {"point_coords": np.array([[[x, y]]], np.float32), "point_labels": np.array([[label]], np.int32)}


def boxes(*rows: tuple[float, float, float, float]) -> dict[str, Array]:
    return {"box": np.array(rows, np.float32)}


def unpacked(answer: Mapping[str, Array]) -> Array:
    """(P, C, H, W) bool."""
    return np.unpackbits(answer["masks"], axis=-1, count=int(answer["original_hw"][1])).astype(np.bool_)


def colours(*rgb: int) -> Array:
    """A small photo of one colour with a square in the middle."""
    image = np.full((60, 90, 3), 240, np.uint8)
    image[20:40, 30:60] = rgb
    return image


def key_of(server: Server, image: Array) -> bytes:
    key: bytes = server.infer("color", {"image_rgb": image}, ["embedding_id"])["embedding_id"][0]
    return key


def servers(color_folder: Path, folder: Path) -> Iterator[Callable[..., Server]]:
    """For a fixture: what starts a server with the colour model, `color`, under given settings."""
    running: list[Server] = []

    def begin(**settings: int) -> Server:
        out = folder / f"repository{len(running)}"
        export_repository(color_folder, out, device="cpu", settings=Settings(**settings))
        running.append(Server(out))
        return running[-1]

    yield begin
    for server in running:
        server.close()


PROMPTS: dict[str, dict[str, Array]] = {
    "click": click(240, 300),
    "three clicks": {
        "point_coords": np.array([[[240, 300], [260, 310], [20, 20]]], np.float32),
        "point_labels": np.array([[1, 1, 0]], np.int32),
    },
    "box": boxes((180, 220, 330, 380)),
    "box and click": {**boxes((180, 220, 330, 380)), **click(240, 300)},
    "two clicks apart": {
        "point_coords": np.array([[[240, 300]], [[100, 500]]], np.float32),
        "point_labels": np.array([[1], [1]], np.int32),
    },
    "two boxes": boxes((180, 220, 330, 380), (40, 440, 180, 560)),
}
