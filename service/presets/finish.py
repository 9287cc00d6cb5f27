"""The finished file of a product picture: drawn, encoded within its byte limits, checked before anybody gets it."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass

from boothsam.runtime.colour import srgb_profile
from boothsam.runtime.containers import sniff
from boothsam.runtime.credits import Credits, with_credits
from boothsam.runtime.cutout import CutOut
from boothsam.runtime.images import encode_image
from boothsam.runtime.transforms import Size, Uint8Array
from boothsam.service.presets.check import Report, check
from boothsam.service.presets.errors import VISIBLE, PresetError
from boothsam.service.presets.layout import ATTEMPTS, MAX_UPSCALE, Placed, Strictness
from boothsam.service.presets.preset import Preset
from PIL import Image

Warning = tuple[str, str]


@dataclass(frozen=True)
class Finished:
    """A finished picture. size_hw: of the picture. warnings: message and hint. report: with a preset, its check.

    advice: one word per warning: the kind of the rule, or `enlarged`.
    """

    data: bytes
    size_hw: Size
    cut: CutOut
    warnings: tuple[Warning, ...] = ()
    report: Report | None = None
    advice: tuple[str, ...] = ()


def encode(
    array: Uint8Array, format: str, quality: int, preset: Preset | None, credits: Credits, *, exact: bool = False
) -> bytes:
    """An encoded picture with its credits; of a preset's, small enough for its byte limits if its quality allows it.

    exact: without loss where the format can; that is WebP, whose usual encoder now and then changes a flat background.

    Raises:
        OutputError: see `images.encode_image`.
    """
    if preset is None:
        return with_credits(encode_image(array, format, quality=quality), credits)
    data = _lossless_webp(array) if exact and format == "webp" else encode_image(array, format, quality=quality)
    if format != "png" and not exact:
        # Credits and density are put in after the search; they take the same room whatever the quality.
        added = len(with_credits(data, credits, dpi=preset.make.dpi)) - len(data)
        # Advice first, the law last: a limit that no allowed quality meets must not cost quality.
        for limit in sorted(rule.value for rule in preset.of("max_bytes")):
            found = _fitting(
                data, limit - added, quality, preset.make.min_quality,
                lambda chosen: encode_image(array, format, quality=chosen),
            )  # fmt: skip
            if found is not None:
                data = found
                break
    return with_credits(data, credits, dpi=preset.make.dpi)


def _lossless_webp(array: Uint8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "WEBP", lossless=True, method=0, icc_profile=srgb_profile())
    return buffer.getvalue()


def _fitting(data: bytes, limit: int, quality: int, floor: int, encoded: Callable[[int], bytes]) -> bytes | None:
    """The best quality within the limit, found by halving; None where none is. data: at `quality`."""
    if len(data) <= limit:
        return data
    low, high, best = floor, quality - 1, None
    while low <= high:
        middle = (low + high) // 2
        tried = encoded(middle)
        if len(tried) <= limit:
            best, low = tried, middle + 1
        else:
            high = middle - 1
    return best


def finish_for(
    preset: Preset,
    cut: CutOut,
    draw: Callable[[Strictness], tuple[Uint8Array, Placed]],
    written: Callable[[Uint8Array, bool], bytes],
    chosen: Collection[str] = (),
) -> Finished:
    """The best picture that a preset allows: drawn, encoded and checked, again with another idea of what is visible
    where that may mend what the check found. Its name is not known here.

    draw: from a cut-out to pixels. written: from pixels to a file, without loss if its second argument is true and the
    format can. chosen: kinds of rules against whose advice somebody chose: no news to him.

    Raises:
        PresetError: a rule that must be kept is broken each time.
    """
    best: tuple[tuple[int, int], Finished, Report] | None = None
    for strict, exact in (*((strict, False) for strict in ATTEMPTS), (ATTEMPTS[0], True)):
        if exact and best is not None and sniff(best[1].data) != "webp":
            break
        array, placed = draw(strict)
        data = written(array, exact)
        report = check(data, preset)
        mistakes = len(report.failed), len(report.advice)
        if best is None or mistakes < best[0]:
            told = _warnings(report, placed, chosen)
            advice, warnings = tuple(word for word, _ in told), tuple(warning for _, warning in told)
            best = mistakes, Finished(data, (array.shape[0], array.shape[1]), cut, warnings, report, advice), report
        broken = {finding.rule for finding in (*report.failed, *report.advice)}
        if not broken & set(VISIBLE) - set(chosen):
            break
    assert best is not None
    _, done, report = best
    if not report.passed:
        raise PresetError(report, done.data)
    return done


def _warnings(report: Report, placed: Placed, chosen: Collection[str]) -> list[tuple[str, Warning]]:
    """Each with its word of `Finished.advice`."""
    found = [
        (finding.rule, (f"{report.preset}: {finding}", finding.mend))
        for finding in report.advice
        if finding.rule not in chosen
    ]
    if placed.scale > MAX_UPSCALE:
        x0, y0, x1, y1 = placed.box_xyxy
        message = f"the product has {x1 - x0}x{y1 - y0} pixels in the photo and is enlarged {placed.scale:.1f} times"
        found.append(("enlarged", (f"{message}: it will look soft", "go closer or use a better camera")))
    return found
