"""Check digits: a wrong one must stop the photo."""

from __future__ import annotations

import pytest
from boothsam.service.captures.gtin import InvalidGtin, check_gtin

# GS1's own examples and well-known products, one of each length.
GOOD = ("96385074", "036000291452", "4006381333931", "10614141000415")


@pytest.mark.parametrize("text", GOOD)
def test_every_length_is_accepted(text: str) -> None:
    assert check_gtin(text) == text


def test_spaces_and_hyphens_are_what_people_write() -> None:
    assert check_gtin("4 006381-333931") == "4006381333931"


@pytest.mark.parametrize("text", GOOD)
def test_any_other_check_digit_is_refused(text: str) -> None:
    for digit in set("0123456789") - {text[-1]}:
        with pytest.raises(InvalidGtin, match=f"its check digit is {text[-1]}") as caught:
            check_gtin(text[:-1] + digit)
        assert caught.value.hint


@pytest.mark.parametrize("text", GOOD)
def test_any_single_wrong_digit_is_found(text: str) -> None:
    for place in range(len(text)):
        with pytest.raises(InvalidGtin):
            check_gtin(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


@pytest.mark.parametrize(
    "text", ["", "1", "400638133393", "123456789", "40063813339310", "MUG-7", "４００６３８１３３３９３１", "²" * 8]
)
def test_other_texts_are_no_gtin(text: str) -> None:
    with pytest.raises(InvalidGtin):
        check_gtin(text)
