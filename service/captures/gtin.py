"""GTINs (GS1 General Specifications): 8, 12, 13 or 14 digits, the last one a check digit."""

from __future__ import annotations

from boothsam.runtime.errors import OptionError


class InvalidGtin(OptionError):
    """Digits that are no GTIN: a photo must not be filed under another product."""


def check_gtin(text: str) -> str:
    """The digits of a GTIN, without the spaces and hyphens people write.

    Raises:
        InvalidGtin: other characters, another number of digits, or a wrong check digit.
    """
    from stdnum import ean

    digits = text.replace(" ", "").replace("-", "")
    if not (digits.isascii() and digits.isdigit()) or len(digits) not in (8, 12, 13, 14):
        raise InvalidGtin(
            f"{text[:40]!r} is no GTIN; expected 8, 12, 13 or 14 digits", hint="scan the barcode again, or send a sku"
        )
    if not ean.is_valid(digits):
        raise InvalidGtin(
            f"GTIN {digits} ends with {digits[-1]}, but its check digit is {ean.calc_check_digit(digits[:-1])}",
            hint="scan the barcode again",
        )
    return digits
