"""The pictures that tests draw: seeds the tiny SAM never saw in training, and what lies on them.

The drawing itself is `boothsam.conformance.pictures`: the conformance kit needs it where no tests are installed.
"""

from __future__ import annotations

from boothsam.conformance.pictures import Scene, draw_scene

__all__ = ["TEST_PICTURES", "Scene", "draw_scene", "test_picture"]

# name -> (seed, (h, w), shapes, (smallest, largest radius)); training draws seeds from 1,000,000 up.
TEST_PICTURES: dict[str, tuple[int, tuple[int, int], int, tuple[int, int]]] = {
    "landscape": (11, (480, 640), 14, (30, 70)),
    "portrait": (12, (640, 480), 14, (30, 70)),
    "square": (16, (512, 512), 14, (26, 60)),
    "large": (14, (768, 1024), 16, (50, 110)),
}


def test_picture(name: str) -> Scene:
    """The drawn picture of that name with its object masks. Raises KeyError for a name not in TEST_PICTURES."""
    seed, size_hw, count, radius = TEST_PICTURES[name]
    return draw_scene(seed, size_hw, count=count, radius=radius, insets=10)


test_picture.__test__ = False  # type: ignore[attr-defined]
