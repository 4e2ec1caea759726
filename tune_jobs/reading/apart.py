"""What differs within a batch size and is no seed: machines, optimizers, models. Judged apart.

A column that is not read may be a setting that was tried on purpose, the run's own name, or
something that was measured. Words that several runs share are a setting; numbers are one where the
name says so, or where each of few values was tried at every batch size alike.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from tune_jobs.reading import cells
from tune_jobs.reading.columns import Named
from tune_jobs.reading.names import is_metric, words
from tune_jobs.reading.rows import Row

SETTING = re.compile(
    r"(?:.*_)?(?:optimi[sz]er|optim|opt|model|arch(?:itecture)?|network|net|backbone|dataset|data|task|variant"
    r"|method|algo(?:rithm)?|platform|framework|backend|precision|dtype|activation|schedul(?:er|e)|augment\w*"
    r"|momentum|weight_decay|wd|drop_?out|layers?|depth|width|hidden\w*|units|warm_?up\w*|clip\w*|beta_?[12]"
    r"|epsilon|gamma|nesterov|group|kind|type|version|setting|phase|tag|norm\w*|init\w*)"
)  # fmt: skip
IDENTIFIER = re.compile(
    r"(?:.*_)?(?:id|uuid|hash|path|dir|logdir|uri|url|file|date|datetime\w*|created|updated|timestamp|user|pid|notes?"
    r"|comments?|sha|commit|command|end_time|start_time|tags?|description|ip)"
)  # fmt: skip
MOST_TOLD = 6
BUDGETS = ("epochs", "updates", "examples_seen", "tokens")


def judged_apart(
    rows: Sequence[Row], named: Named, stem: str, by_budget: bool = False
) -> tuple[list[Row], list[str]]:
    """The rows with a workload for each combination of settings; what differs is told.

    `by_budget`: final metrics are judged, so that those of several budgets are not mixed.
    """
    changed, notes = list(rows), []
    for workload in dict.fromkeys(row.get("workload") or stem for row in rows):
        of = [n for n, row in enumerate(rows) if (row.get("workload") or stem) == workload]
        mine = [rows[n] for n in of]
        apart = _apart(mine, named, by_budget)
        notes += [_told(name, value, mine, named) for name, value in apart.items()]
        for n in of:
            kinds = ", ".join(_named(name, value(rows[n])) for name, value in apart.items())
            full = f"{workload}: {kinds}" if kinds else workload
            changed[n] = rows[n].having(workload=full, device=_device(rows[n], named))
    return changed, notes


Value = Callable[[Row], str]


def _apart(rows: Sequence[Row], named: Named, by_budget: bool) -> dict[str, Value]:
    """The columns by which the rows are judged apart, and a row's value in each."""
    found: dict[str, Value] = {}
    for name, value in _machine_values(rows, named).items():
        if len({value(row) for row in rows}) > 1:
            found[name] = value
    for ours in BUDGETS if by_budget else ():
        budget = _value_of(ours)
        told = [budget(row) for row in rows]
        if ours in named.by_ours and len(set(told)) > 1 and _crossed(_sizes(rows), told):
            found[named.by_ours[ours].theirs] = budget
    for name in dict.fromkeys(name for row in rows for name in row.settings):
        value = _setting_value(name)
        told = [value(row) for row in rows]
        if (
            len(set(told)) > 1
            and _is_setting(name, told, rows)
            and not _follows(value, found, rows)
        ):
            found[name] = value
    return found


def _machine_values(rows: Sequence[Row], named: Named) -> dict[str, Value]:
    names = dict.fromkeys(name for row in rows for name in row.machine)
    values: dict[str, Value] = {name: _machine_value(name) for name in names}
    for ours in ("device", "devices"):
        if ours in named.by_ours:
            values[named.by_ours[ours].theirs] = _value_of(ours)
    return values


def _machine_value(name: str) -> Value:
    return lambda row: row.machine.get(name, "")


def _setting_value(name: str) -> Value:
    return lambda row: row.settings.get(name, "")


def _value_of(ours: str) -> Value:
    return lambda row: "" if row.get(ours) is None else f"{row.get(ours)}"


def _is_setting(name: str, told: Sequence[str], rows: Sequence[Row]) -> bool:
    plain = words(name)
    known = SETTING.fullmatch(plain) is not None
    sizes = _sizes(rows)
    within = len(set(zip(sizes, told, strict=True))) > len(set(sizes))
    few = 2 * len(set(told)) <= len(told)
    if not few or (IDENTIFIER.fullmatch(plain) and not known):
        return False
    if not within:
        return known
    numbers = all(cells.numeric(c) or cells.blank(c) for c in told)
    return not numbers or (not is_metric(name) and (known or _crossed(sizes, told)))


def _sizes(rows: Sequence[Row]) -> list[int]:
    return [row.get("batch_size") for row in rows]


def _crossed(sizes: Sequence[int], told: Sequence[str]) -> bool:
    """Every value as often at every batch size, as who tries them on purpose does."""
    pairs = Counter(zip(sizes, told, strict=True))
    whole = len(set(sizes)) * len(set(told))
    return len(set(sizes)) > 1 and len(pairs) == whole and len(set(pairs.values())) == 1


def _follows(value: Value, found: dict[str, Value], rows: Sequence[Row]) -> bool:
    """Whether the columns found so far tell this one's value."""
    known = {tuple(other(row) for other in found.values()) for row in rows}
    both = {(*(other(row) for other in found.values()), value(row)) for row in rows}
    return bool(found) and len(both) == len(known)


def _named(name: str, value: str) -> str:
    return f"{name} {value}" if value else f"no {name}"


def _device(row: Row, named: Named) -> str | None:
    """What the run ran on, in words."""
    parts = [row.get("device") or "", *row.machine.values()]
    if row.get("devices") is not None:
        parts.append(f"{named.by_ours['devices'].theirs} {row.get('devices')}")
    return ", ".join(part for part in parts if part) or None


def _told(name: str, value: Value, rows: Sequence[Row], named: Named) -> str:
    found = list(dict.fromkeys(value(row) or "(empty)" for row in rows))
    shown = ", ".join(found[:MOST_TOLD]) + (", ..." if len(found) > MOST_TOLD else "")
    told = f"{name!r} differs ({shown}): no seeds, each is judged apart"
    devices = named.by_ours.get("devices")
    size = named.by_ours.get("batch_size")
    if devices is not None and devices.theirs == name and size is not None:
        one = shlex.quote(f"per_device_batch_size={size.theirs}")
        told += (f"; {size.theirs} is taken as the examples of one update over all devices; where "
                 f"it is that of one device, give --map {one}")  # fmt: skip
    return told


def searched_along(rows: Sequence[Row]) -> list[str]:
    """Settings that differ in nearly every run: part of a search, and told as that."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    found = []
    for name in names:
        of = [row.settings.get(name, "") for row in rows]
        varied = len(of) > 2 and 2 * len(set(of)) > len(of)
        if varied and SETTING.fullmatch(words(name)) and all(map(cells.numeric, of)):
            found.append(name)
    return [f"{name!r} differs in nearly every run and is not told apart" for name in found]


def without_twins(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """A row that stands twice word for word, the run's own name or seed included, is one run."""
    kept, seen, twins = [], set(), []
    for row in rows:
        own = row.get("run") is not None or row.get("seed") is not None
        key = (tuple(sorted(row.values.items(), key=str)), tuple(row.settings.items()),
               tuple(row.machine.items()), row.never)  # fmt: skip
        if own and key in seen and any(isinstance(v, float) for v in row.values.values()):
            twins.append(row.place.rpartition(", ")[2])
            continue
        seen.add(key)
        kept.append(replace(row))
    told = [f"{len(twins)} of {len(rows)} rows left out: they repeat another word for word "
            f"({', '.join(twins[:5])})"] if twins else []  # fmt: skip
    return kept, told
