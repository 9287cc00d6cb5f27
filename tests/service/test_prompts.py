"""--box, --point, --boxes, --auto: what is understood and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from boothsam.runtime.errors import PromptError
from boothsam.service.prompts import Request


def test_numbers() -> None:
    request = Request.parse(["1,2.5,30,4e1"], ["5, 6", "7,8,0"])
    assert request.boxes == ((1, 2.5, 30, 40),)
    assert request.points == ((5, 6, 1), (7, 8, 0))
    assert request.count(Path("mug.jpg"), only=True) == 1
    assert Request.parse(["0,0,1,1", "2,2,3,3"], None).count(Path("mug.jpg"), only=True) == 2


@pytest.mark.parametrize(
    ("box", "point", "auto", "message"),
    [
        (None, None, False, "no prompt was given"),
        (["1,2,3"], None, False, "has 3 numbers; expected x0,y0,x1,y1"),
        (["1,2,3,x"], None, False, "in finite numbers"),
        (["1,2,nan,4"], None, False, "in finite numbers"),
        (["1,2,inf,4"], None, False, "in finite numbers"),
        ([""], None, False, "in finite numbers"),
        (["9,2,3,4"], None, False, "empty or reversed"),
        (["1,2,1,4"], None, False, "empty or reversed"),
        (None, ["1"], False, "expected x,y or x,y,1"),
        (None, ["1,2,2"], False, "expected x,y or x,y,1"),
        (None, ["1,2,3,4"], False, "expected x,y or x,y,1"),
        (None, ["1,2,0"], False, "every --point is a background point"),
        (["0,0,1,1"], None, True, "--auto and --box or --point exclude each other"),
        (["0,0,1,1", "2,2,3,3"], ["0,0"], False, "not clear which box"),
    ],
)
def test_refusals(box: list[str] | None, point: list[str] | None, auto: bool, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Request.parse(box, point, auto=auto)


def test_a_width_and_height_box_gets_its_corners_as_hint() -> None:
    with pytest.raises(PromptError) as caught:
        Request.parse(["200,50,100,40"], None)
    assert caught.value.hint is not None and "200,50,300,90" in caught.value.hint
