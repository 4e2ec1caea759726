"""Flags: made from the fields of `SweepConfig` that are marked as such, parsed by tyro."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tune_jobs.config import SweepConfig

_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "float | None": float,
    "str": str,
    "str | None": str,
    "bool": bool,
}
_BATCH_SIZES = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="B,B,...",
    instance_from_str=lambda args: _batch_sizes(args[0]),
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda value: [",".join(map(str, value))],
)


def _batch_sizes(text: str) -> tuple[Any, ...]:
    """Integers where they are; anything else is left for the configuration to refuse by name."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(int(p) if re.fullmatch("[+-]?[0-9]{1,18}", p) else p for p in parts)


@dataclass(frozen=True)
class Action:
    """What to do with the configuration."""

    config: Path | None = None
    """TOML file of settings; flags override it"""
    resume: bool = False
    """take up the sweep of this name where it stopped"""
    only: Literal["measure"] | None = None
    """stop after this stage; --resume goes on from there"""
    dry_run: bool = False
    """print the configuration, the plan and the requests; start nothing"""
    new_workload: Path | None = None
    """write a commented file to begin a --workload of your own from, and stop"""


@dataclass(frozen=True)
class Invocation:
    """A command line, parsed: the action, and the flags that were given."""

    action: Action
    flags: dict[str, Any] = field(default_factory=dict)


def flag_names() -> list[str]:
    """Every flag of the sweep, as typed."""
    own = [f.name for f in fields(Action)]
    names = own + [f.name for f in fields(SweepConfig) if f.metadata["flag"]]
    return sorted("--" + name.replace("_", "-") for name in names)


def parse(arguments: Sequence[str] | None = None) -> Invocation:
    """Parse a command line. Exits with status 2 on an unknown flag, 0 on --help."""
    with without_controls():
        parsed: Any = tyro.cli(
            _options_type(),
            prog="sweep.py",
            args=list(arguments) if arguments is not None else sys.argv[1:],
            description="Which batch size should I train with, at which learning rate, and why? "
            "Everything not listed here is set in the TOML file.",
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    given: dict[str, Any] = {}
    for group in fields(parsed):
        if group.name != "action":
            part = getattr(parsed, group.name)
            given |= {f.name: getattr(part, f.name) for f in fields(part)}
    # By identity: 0 is a value that was given.
    was_given = {k: v for k, v in given.items() if v is not None and v is not False}
    return Invocation(parsed.action, was_given)


@contextmanager
def without_controls() -> Iterator[None]:
    """Errors that are written meanwhile quote a command line: what would steer a terminal is shown
    as a replacement character."""
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            yield
    finally:
        marks = dict.fromkeys([*range(32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")
        sys.stderr.write(told.getvalue().translate({**marks, ord("\n"): "\n"}))


def _options_type() -> type:
    groups: dict[str, list[Any]] = {}
    for f in fields(SweepConfig):
        if not f.metadata["flag"]:
            continue
        kind: Any = _TYPES.get(str(f.type))
        if f.name == "batch_sizes":
            annotation: Any = Annotated[tuple[Any, ...], _BATCH_SIZES]
        else:
            annotation = kind
        text = f"{f.metadata['help']}{_default_text(f.default)}"
        if kind is bool:
            about = tyro.conf.arg(help=text, help_behavior_hint="")
            entry: Any = (f.name, Annotated[bool, about], field(default=False))
        else:
            metavar = "B,B,..." if f.name == "batch_sizes" else str(kind.__name__).upper()
            about = tyro.conf.arg(help=text, help_behavior_hint="", metavar=metavar)
            shown = Annotated[annotation | None, about]
            entry = (f.name, shown, field(default=None))
        groups.setdefault(f.metadata["group"], []).append(entry)
    parts: list[Any] = []
    for title, entries in groups.items():
        key = title.lower().replace(" ", "_")
        kind = make_dataclass(key, entries, frozen=True)
        kind.__doc__ = title
        parts.append((key, kind, field(default_factory=kind)))
    parts.append(("action", Action, field(default_factory=Action)))
    return make_dataclass("Options", parts, frozen=True)


def _default_text(value: Any) -> str:
    if value is None or value is False:
        return ""
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return f" (default: {shown})"
