"""The command ``pointsman policies``, which tells who may choose the replica."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from policies.registry import available, look_up
from router.config.structs import PolicyConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from policies.registry import PolicyInfo


@click.command("policies")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the policies that can be chosen, or tell how NAME works and what its options mean.

    Use one with `pointsman serve --policy NAME`, or in the configuration:

    \b
      policy:
        name: NAME
        options: {OPTION: VALUE}

    A class of your own is used as --policy package.module:Class; NAME may be one, too.
    """
    # Imported here: it takes 50 ms that other commands need not wait for.
    from rich.console import Console  # noqa: PLC0415

    # Without markup: plugins' square brackets are to be read as they are.
    console = Console(highlight=False, markup=False)
    if name is None:
        console.print(_listing(available()))
        console.print("How one works: pointsman policies NAME")
        return
    info = look_up(name)
    title = info.name if ":" in info.name else f"{info.name} ({info.distribution}, {info.target})"
    console.print(title, style="bold", soft_wrap=True)
    if info.error is not None:
        console.print(_verdict(info))
        return
    console.print(f"\n{_plain(info.about) or 'It has no docstring.'}\n")
    console.print(_options(info) if info.options else "It has no options.")


def _listing(infos: Sequence[PolicyInfo]) -> Table:
    table = _table("policy", "what it does, and its options")
    ours = {info.distribution for info in infos if info.distribution.startswith("pointsman ")}
    default = PolicyConfig().name
    for info in infos:
        lines = [f"The default. {_verdict(info)}" if info.name == default else _verdict(info)]
        if info.options:
            lines.append("options: " + ", ".join(f"{o.name}={o.default!r}" for o in info.options))
        if info.distribution not in ours:
            lines.append(f"({info.distribution})")
        table.add_row(info.name, "\n".join(lines))
    return table


def _options(info: PolicyInfo) -> Table:
    table = _table("option", "type", "default", "what it means")
    for option in info.options:
        table.add_row(option.name, option.type, repr(option.default), _plain(option.doc))
    return table


def _table(*headings: str) -> Table:
    from rich import box  # noqa: PLC0415 - with the rest of rich
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _verdict(info: PolicyInfo) -> str:
    return f"cannot be used: {info.error}" if info.error else info.summary


def _plain(docstring: str) -> str:
    """A docstring as people read it: no marks, paragraphs in one line, examples as they are."""
    paragraphs = docstring.replace("``", "").split("\n\n")
    joined = [p if p.startswith(" ") else " ".join(p.splitlines()) for p in paragraphs]
    return re.sub("::$", ":", "\n\n".join(joined), flags=re.MULTILINE)
