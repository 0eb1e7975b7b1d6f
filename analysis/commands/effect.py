"""No option is passed over: one that does nothing in its combination is refused, in a line that says what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import typer


@dataclass(frozen=True)
class Rule:
    """When an option does something.

    Attributes:
        option: it.
        needs: what must be given for it to have an effect; "" for nothing.
        beside: what must not be given; "" for nothing.
        why: what happens instead.
    """

    option: str
    why: str
    needs: str = ""
    beside: str = ""


#: Each command with options that do something only together with others, or only without them.
RULES: Mapping[str, tuple[Rule, ...]] = {
    "plot": (
        *(
            Rule(option, "the names of the figures are printed", beside="--list")
            for option in ("ARCHIVE", "--figure", "-o", "--control", "--probe", "--style", "--x", "--format")
        ),
        Rule("--control", "runs are drawn side by side; give the control as one of them", beside="--figure runs"),
        Rule("--x", "the axis is that of the comparison", beside="--figure runs"),
        Rule("--format", "the ending of a file says what it is", needs="-o - or a pipe"),
    ),
    "lr-decay": (
        Rule("--json", "either JSON is printed or the figure is written", beside="-o"),
        Rule("--style", "it is the look of the figure", needs="-o"),
        Rule("--format", "the ending of a file says what it is", needs="-o - or a pipe"),
    ),
    "forecast": (
        *(
            Rule(option, "what is forecast is each change of the run's own", beside="--check")
            for option in ("--rate", "--steps", "--at")
        ),
        Rule("--control", "a control scores the forecast of a change that was made", needs="--check"),
    ),
    "report": (
        Rule("--each", "one archive has one page", needs="several ARCHIVEs"),
        Rule("--group", "one run has nothing to be told apart from", needs="several ARCHIVEs"),
        Rule("--group", "the page of one run has no other beside it", beside="--each"),
    ),
    "compare": (
        Rule("--at", "it is the step of a sweep", needs="--against"),
        Rule("--by", "a sweep takes one snapshot of each run", beside="--against"),
        Rule("--group", "a sweep averages the runs of one number by itself", beside="--against"),
        Rule("--group", "JSON has every run", beside="--json"),
        Rule("--json", "either JSON is printed or the figure is written", beside="-o"),
        Rule("--style", "it is the look of the figure", needs="-o"),
        Rule("--format", "the ending of a file says what it is", needs="-o - or a pipe"),
    ),
}


def refuse_useless(command: str, given: Mapping[str, object]) -> None:
    """Refuse an option that does nothing.

    Args:
        command: its name.
        given: whether (or with what) each option and each condition of the command's rules is given.

    Raises:
        typer.BadParameter: naming the first such option and what it needs.
    """
    for rule in RULES[command]:
        if not _is_given(given[rule.option]):
            continue
        if rule.needs and not _is_given(given[rule.needs]):
            raise typer.BadParameter(f"{rule.option} needs {rule.needs}: {rule.why}")
        if rule.beside and _is_given(given[rule.beside]):
            raise typer.BadParameter(f"{rule.option} has no effect beside {rule.beside}: {rule.why}")


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != []
