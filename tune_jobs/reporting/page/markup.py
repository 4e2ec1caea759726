"""HTML from text: whatever is not markup already is escaped when it enters an element."""

from __future__ import annotations

from markupsafe import Markup, escape

EMPTY = frozenset({"meta", "br", "hr", "link"})


def element(name: str, *parts: object, **attributes: object) -> Markup:
    """`<name attributes>parts</name>`; an underscore ends a name that is a Python keyword.

    An attribute that is None is left out; underscores within its name become hyphens.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in EMPTY:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(*parts)}</{name}>")


def joined(*parts: object) -> Markup:
    """The parts one after the other, each escaped where it is not markup; None is nothing."""
    return Markup("".join(escape(part) for part in parts if part is not None))
