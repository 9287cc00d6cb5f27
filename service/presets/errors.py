"""What can go wrong with a preset's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boothsam.runtime.errors import BoothsamError

if TYPE_CHECKING:
    from boothsam.service.presets.check import Report

VISIBLE = ("background", "min_fill", "max_fill")  # rules of what can be seen on the canvas
_SIZES = ("aspect", "min_side", "min_longest", "max_longest", "max_sum", "max_pixels")


class PresetError(BoothsamError):
    """A picture that cannot keep its preset's rules, whatever is tried.

    Attributes:
        report: what the check says. data: the encoded picture, for those who want to look at it.
    """

    def __init__(self, report: Report, data: bytes) -> None:
        first = report.failed[0]
        more = f", and {len(report.failed) - 1} more" if len(report.failed) > 1 else ""
        super().__init__(f"the picture breaks a rule of {report.preset}: {first}{more}", hint=_way_out(first.rule))
        self.report = report
        self.data = data


def _way_out(rule: str) -> str:
    """What helps where the preset's own choices could not."""
    if rule == "max_bytes":
        return "choose fewer pixels: --size 1000, or --format jpg"
    if rule == "min_bytes":
        return "choose more pixels: --size 3000"
    if rule in _SIZES:  # of a chosen canvas they are known before: this one grew around the product
        return "the preset chooses no canvas: --size PIXELS, or make.size in its file"
    if rule in VISIBLE:
        return "the product is as bright as the background there: take the photo with less light on it"
    return "leave the other options out: the preset chooses them"
