"""The message of a row: what happened, and why some observables are NaN, in the few bytes that an archive has for it.

Where all of it does not fit, what goes is chosen: first what a reason says of expected and got, then the names that share
a reason, then whole reasons, the later ones. How many are gone is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

#: A reason, and the observables that it keeps from being measured.
Group = tuple[str, list[str]]
#: What an error adds to its problem, which is the reason.
_DETAILS = re.compile(r"[:,] (?:expected|got) .*|\. (?=[A-Z]).*", re.DOTALL)


def message(facts: Iterable[str], reasons: Iterable[Mapping[str, str]], *, room: int) -> str:
    """One line of at most ``room`` bytes in UTF-8, but for facts, which are told in whole and first.

    Args:
        facts: what is to be said of the row itself; "" says nothing.
        reasons: of each probe, by observable, why it is NaN.
        room: bytes.

    Returns:
        ``fact; NAME, NAME: reason; NAME and 3 more: reason; and 2 more reasons``.
    """
    told = list(dict.fromkeys(filter(None, facts)))
    found = _grouped(reasons)
    if _size(said := _joined(told, [f"{', '.join(names)}: {why}" for why, names in found])) <= room:
        return said
    beside = {
        why: names for why, names in found if why in told
    }  # a fact that is a reason too is told once, with a name
    groups = _short([(why, names) for why, names in found if why not in beside])
    told = [_told((fact, beside[fact]), 1) if fact in beside else fact for fact in told]
    kept = _as_many_reasons(told, groups, room)
    gone = len(groups) - len(kept)
    return _line(told, kept, gone, _as_many_names(told, kept, gone, room))


def _as_many_reasons(facts: Sequence[str], groups: Sequence[Group], room: int) -> list[Group]:
    """The reasons that have room with one name each: every one in turn that leaves none of the earlier ones without."""
    kept: list[Group] = []
    for group in groups:
        more = [*kept, group]
        if _size(_line(facts, more, len(groups) - len(more), [1] * len(more))) <= room:
            kept = more
    return kept


def _as_many_names(facts: Sequence[str], kept: Sequence[Group], gone: int, room: int) -> list[int]:
    """How many names stand beside each reason that is kept: one more in turn, as long as there is room."""
    counts = [1] * len(kept)
    growing = list(range(len(kept)))
    while growing:
        for place in list(growing):
            more = [count + (place == at) for at, count in enumerate(counts)]
            if more[place] <= len(kept[place][1]) and _size(_line(facts, kept, gone, more)) <= room:
                counts = more
            else:
                growing.remove(place)
    return counts


def _grouped(reasons: Iterable[Mapping[str, str]]) -> list[Group]:
    """Each reason once, with the names of what it keeps from being measured."""
    grouped: dict[str, dict[str, None]] = {}
    for probe in reasons:
        for name, reason in probe.items():
            grouped.setdefault(reason, {})[name] = None
    return [(why, list(names)) for why, names in grouped.items()]


def _short(found: Sequence[Group]) -> list[Group]:
    """The same without what the reasons add to their problem; those that are then the same, together."""
    return _grouped({name: _DETAILS.sub("", why) or why for name in names} for why, names in found)


def _line(facts: Sequence[str], kept: Sequence[Group], gone: int, counts: Sequence[int]) -> str:
    told = [_told(group, count) for group, count in zip(kept, counts, strict=True)]
    return _joined(facts, [*told, f"and {gone} more reason{'s' * (gone != 1)}" * (gone > 0)])


def _told(group: Group, count: int) -> str:
    why, names = group
    told, rest = ", ".join(names[:count]), ", ".join(names[count:])
    return f"{told}{min(f', {rest}', f' and {len(names) - count} more', key=_size) if rest else ''}: {why}"


def _joined(*parts: Sequence[str]) -> str:
    return "; ".join(filter(None, (one for several in parts for one in several)))


def _size(text: str) -> int:
    return len(text.encode())
