"""HTML whose texts are escaped unless they were made here: a file name is never markup."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

_VOID = ("img", "meta")
Attribute = str | int | bool | None


class Html(str):
    """Markup that needs no escaping."""

    __slots__ = ()


def h(tag: str, *children: object, **attributes: Attribute) -> Html:
    """An element. children: None and "" are left out, what is no `Html` is escaped. attributes: `class_` is class,
    `_` is a hyphen; None and False are left out, True stands without a value."""
    words = [tag]
    for name, value in attributes.items():
        if value is not None and value is not False:
            key = name.rstrip("_").replace("_", "-")
            words.append(key if value is True else f'{key}="{escape(clean(str(value)), quote=True)}"')
    head = f"<{' '.join(words)}>"
    return Html(head) if tag in _VOID else Html(f"{head}{join(*children)}</{tag}>")


def join(*children: object) -> Html:
    """Children one after the other."""
    parts = [child if isinstance(child, Html) else escape(clean(str(child))) for child in children if child is not None]
    return Html("".join(parts))


def clean(text: str) -> str:
    """Control characters, signs that turn the writing's direction, and bytes that were no UTF-8 become U+FFFD."""
    return "".join(c if c.isprintable() or c in "\t\n" else "\ufffd" for c in text)


def href(path: str) -> str:
    """A file beside the page, as the address in a link."""
    return "./" + quote(path.encode(errors="surrogateescape"), safe="/")
