"""What `boothsam crop --preset` makes, `boothsam check` accepts: for any mask, any photo, any preset.

Small canvases; `-m slow` takes the presets' own. BOOTHSAM_FUZZ_EXAMPLES raises the number of examples of each preset.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from boothsam.runtime.cutout import AlphaOptions, CutOut, cut_out
from boothsam.runtime.errors import NothingFound
from boothsam.service.presets.check import check
from boothsam.service.presets.errors import PresetError
from boothsam.service.presets.look import preset_look
from boothsam.service.presets.preset import load_preset, preset_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.presets.pictures import file_name, products

EXAMPLES = int(os.environ.get("BOOTHSAM_FUZZ_EXAMPLES", "12"))
FORMATS = {"amazon": ("jpg", "png"), "ebay": ("jpg", "png"), "gs1": ("jpg", "png")}  # else: all three

SMALLEST = {"amazon": 500, "ebay": 500, "google": 500, "vtex": 600}
FAINT = 100  # levels of 255


def peak(cut: CutOut) -> int:
    """The largest difference that any pixel of the cut-out makes on white."""
    return int(((255 - cut.rgba[..., :3].min(2).astype(int)) * cut.alpha).max() // 255)


@pytest.mark.parametrize("name", preset_names())
def test_what_crop_makes_check_accepts(name: str) -> None:
    _check_all(name, st.sampled_from((SMALLEST.get(name, 300), 601, 777)), EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_what_crop_makes_check_accepts_on_the_presets_own_canvas(name: str) -> None:
    _check_all(name, st.sampled_from((None, 1024)), 2 * EXAMPLES)


def _check_all(name: str, sizes: st.SearchStrategy[int | None], examples: int) -> None:
    preset = load_preset(name)
    kinds = FORMATS.get(name, ("jpg", "png", "webp"))

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(products(), sizes, st.sampled_from(kinds), st.booleans())
    def accepted(made: tuple[Any, Any], size: int | None, kind: str, refine: bool) -> None:
        image, mask = made
        try:
            cut = cut_out(image, mask, options=AlphaOptions(refine=refine))
        except NothingFound:
            return
        look, _ = preset_look(preset, size=size, format=kind)
        try:
            done = look.finish(cut)
        except PresetError:
            # So faint that a lossy encoder may swallow it; a lossless one may not.
            assert peak(cut) < FAINT
            return
        report = check(done.data, preset, name=file_name(name, {"jpg": ".jpg"}.get(kind, f".{kind}")))
        assert report.passed, report.failed
        if peak(cut) < FAINT:
            return
        other = [finding for finding in report.advice if finding.rule not in ("min_longest", "min_side", "max_bytes")]
        assert not other, [str(finding) for finding in other]
        if report.fill is not None:
            wanted = look.fill or 0.85
            assert wanted - 0.02 <= report.fill <= wanted + 40 / done.size_hw[0]
        assert done.size_hw == ((size, size) if size else preset.make.size)

    accepted()


def test_a_product_that_cannot_be_seen_is_refused() -> None:
    white = np.full((60, 60, 3), 253, np.uint8)
    mask = np.zeros((60, 60), np.bool_)
    mask[20:40, 20:40] = True
    look, _ = preset_look(load_preset("amazon"), size=600)
    with pytest.raises(PresetError, match=r"pixels away from the product differ") as caught:
        look.finish(cut_out(white, mask, options=AlphaOptions(refine=False)))
    assert {finding.rule for finding in caught.value.report.failed} <= {"background", "min_fill"}
    assert "hint:" in str(caught.value)
