"""The command ``pointsman explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from router.admin.explain import MAX_LAST
from router.admin.explained import ExplainPage
from router.cli.admin_client import admin_option, ask
from router.cli.verdict import duration, verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from router.admin.explained import ToldDecision


@click.command("explain")
@click.argument("request_id", required=False)
@click.option(
    "--last",
    type=click.IntRange(1, MAX_LAST),
    metavar="N",
    help="List the last N decisions instead of one request's.",
)
@admin_option
def command(request_id: str | None, last: int | None, admin_url: str) -> None:
    """Tell why a request went to the replica that it went to.

    The router keeps its last 10,000 decisions. REQUEST_ID is the x-request-id of the answer.

    \b
    Examples:
      pointsman explain --last 20
      pointsman explain 5d2c0f3f6f1e4b0e9d3f6b0c1a2b3c4d
    """
    if (request_id is None) == (last is None):
        raise click.UsageError("give either a REQUEST_ID or --last N")
    path = f"?last={last}" if request_id is None else f"/{quote(request_id, safe='')}"
    page = ask(admin_url, "GET", f"/explain{path}", ExplainPage)
    # Imported here: it takes 50 ms that other commands need not wait for.
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False, markup=False)
    if request_id is None:
        console.print(_listing(page))
        return
    for decision in page.decisions:
        _explain(console, decision, page.policy)


def _listing(page: ExplainPage) -> Table:
    table = _table("request", "at (UTC)", "tokens", "replica", "reason", "held", "TTFT", "end")
    for decision in page.decisions:
        seen = f"{duration(decision.ttft_s)} / {duration(decision.seen_ttft_s)}"
        table.add_row(
            decision.request_id,
            decision.at[11:23],
            f"{decision.prompt_tokens}",
            decision.chosen,
            decision.reason,
            duration(decision.held_s),
            seen,
            decision.outcome or "-",
        )
    table.caption = "TTFT: expected / seen, from sending. The latest comes first."
    return table


def _explain(console: Console, decision: ToldDecision, policy: str) -> None:
    model = "no model" if decision.model is None else f"model {decision.model}"
    console.print(
        f"{decision.request_id}, {model}, {decision.prompt_tokens} prompt tokens,"
        f" attempt {decision.attempt}",
        style="bold",
    )
    waited = f" after {duration(decision.held_s)} in the router" if decision.held_s else ""
    console.print(
        f"{decision.at[:10]} {decision.at[11:23]} UTC: sent to {decision.chosen}{waited};"
        f" candidates: {decision.candidates}; reason: {decision.reason}."
    )
    console.print(
        f"First token: expected after {duration(decision.ttft_s)}, seen after"
        f" {duration(decision.seen_ttft_s)}. End: expected after {duration(decision.e2e_s)}, seen"
        f" after {duration(decision.took_s)} ({decision.outcome or 'not yet'})."
    )
    console.print(f"Why: {verdict(decision, policy)}")
    if decision.estimates:
        console.print(_estimates(decision))
    console.print()


def _estimates(decision: ToldDecision) -> Table:
    table = _table(
        "candidate", "queue", "KV wait", "prefill", "decode", "cached", "harm", "cost", numbers=True
    )
    for estimate in decision.estimates:
        chosen = estimate.replica == decision.chosen
        table.add_row(
            f"{estimate.replica} *" if chosen else estimate.replica,
            duration(estimate.queue_s),
            duration(estimate.kv_wait_s),
            duration(estimate.prefill_s),
            duration(estimate.decode_s),
            str(estimate.cached_tokens),
            f"{estimate.harm:.3f}",
            f"{estimate.cost:.3f}",
        )
    left_out = decision.candidates - len(decision.estimates)
    more = f" {left_out} more candidates cost more." if left_out > 0 else ""
    table.caption = (
        "* chosen. cached: prompt tokens in its cache. harm: objectives expected to be missed,"
        f" this request's and others'. The least cost wins.{more}"
    )
    return table


def _table(*headings: str, numbers: bool = False) -> Table:
    from rich import box  # noqa: PLC0415 - with the rest of rich
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, caption_justify="left")
    for column, heading in enumerate(headings):
        right = numbers and column > 0
        table.add_column(heading, overflow="fold", justify="right" if right else "left")
    return table
