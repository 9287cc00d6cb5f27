"""The prompt fields of a form as the command line's `Request`: same words, same formats."""

from __future__ import annotations

import json
import re

from boothsam.service.forms import Form
from boothsam.service.problems import ServiceProblem, problem
from boothsam.service.prompts import Request

MAX_BOXES, MAX_POINTS = 16, 32
MAX_COORDINATE = 1e6  # far beyond any photo; boxes may hang over its border, and infinity in float32 must not arise
Box = tuple[float, float, float, float]


def parse_prompts(form: Form) -> Request:
    """box, boxes, points and labels; none of them means: find the product (auto). Empty fields count as not sent.

    Raises:
        ServiceProblem: `invalid_prompt`.
    """
    boxes = [_box(text, "box") for text in _texts(form, "box", ";")] + _boxes(form.get("boxes"))
    points = [_numbers(text, "points", 2, "x,y") for text in _texts(form, "points", ";")]
    labels = [_label(text) for text in _texts(form, "labels", "[;,]")]
    if len(boxes) > MAX_BOXES or len(points) > MAX_POINTS:
        raise _invalid(f"{len(boxes)} boxes and {len(points)} points; at most {MAX_BOXES} and {MAX_POINTS}")
    if labels and len(labels) != len(points):
        raise _invalid(f"{len(points)} points but {len(labels)} labels", "one label for each point, or none at all")
    if len(boxes) > 1 and points:
        raise _invalid(f"{len(boxes)} boxes with points: it is not clear which box they refine", "send one box")
    labels = labels or [1] * len(points)
    if points and not boxes and not any(labels):
        raise _invalid("every point is labelled 0, background", "send at least one point on the product")
    asked = tuple((x, y, label) for (x, y), label in zip(points, labels, strict=True))
    return Request(tuple(boxes), asked, None, auto=not boxes and not points)


def parse_limits(form: Form) -> Box | None:
    """The box of the field `limits`, written as x0,y0,x1,y1 or, in JSON, as a list; None when it was not sent.

    Raises:
        ServiceProblem: `invalid_prompt`.
    """
    texts = [text for text in form.all("limits") if text.strip()]
    return _box(",".join(texts), "limits") if texts else None


def _texts(form: Form, name: str, separator: str) -> list[str]:
    return [part.strip() for text in form.all(name) for part in re.split(separator, text) if part.strip()]


def _numbers(text: str, name: str, count: int, shape: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(number) <= MAX_COORDINATE for number in numbers):
        expected = f"{shape} in finite numbers, at most {MAX_COORDINATE:g}"
        raise _invalid(f"{name} {text[:80]!r}; expected {expected}", "photo pixels, separated by commas")
    return numbers


def _box(text: str, name: str) -> Box:
    x0, y0, x1, y1 = _numbers(text, name, 4, "x0,y0,x1,y1")
    if x1 <= x0 or y1 <= y0:
        hint = f"if these are x,y,width,height, send {x0:g},{y0:g},{x0 + x1:g},{y0 + y1:g}" if min(x1, y1) > 0 else ""
        raise _invalid(f"{name} {text[:80]!r} is empty or reversed; expected x0 < x1 and y0 < y1", hint)
    return x0, y0, x1, y1


def _boxes(text: str) -> list[Box]:
    if not text.strip():
        return []
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        rows = None
    good = isinstance(rows, list) and all(
        isinstance(row, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in row)
        for row in rows
    )
    if not good:
        raise _invalid(f"boxes {text[:80]!r}; expected a JSON list of [x0,y0,x1,y1]", "boxes=[[120,80,480,320]]")
    return [_box(",".join(str(value) for value in row), "boxes") for row in rows]


def _label(text: str) -> int:
    if text not in ("0", "1"):
        raise _invalid(f"labels {text[:80]!r}; expected 1 (product) or 0 (background)")
    return int(text)


def _invalid(detail: str, hint: str = "box=x0,y0,x1,y1 or points=x,y in photo pixels") -> ServiceProblem:
    return problem("invalid_prompt", detail, hint)
