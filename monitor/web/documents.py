"""What is known, as the JSON of the API: its field names are a promise, described in `openapi.json`."""

from typing import Any
from urllib.parse import quote

import msgspec

from monitor.core.shards import Shard
from monitor.logs import rfc3339, rfc3339_or_none
from monitor.view.facts import Facts, NodeFacts, PeerFacts
from monitor.view.failures import FailedPoll
from monitor.view.index import Index, Tally
from monitor.view.look import ConnectionView, SiteView
from monitor.view.moves import Move
from monitor.view.verdict import judge

Document = dict[str, Any]


def connection_document(view: ConnectionView) -> Document:
    """One connection."""
    return {
        "site": view.site,
        "connection": view.name,
        "connection_id": view.id,
        "calendar_type": view.calendar_type,
        "team": view.team,
        "labels": view.labels,
        "status": view.status,
        "reason": view.reason,
        "healthy": view.healthy,
        "stale": view.stale,
        "since": rfc3339_or_none(view.since),
        "last_success": rfc3339_or_none(view.last_success),
        "last_poll": rfc3339_or_none(view.last_poll),
        "last_poll_success": view.last_poll_succeeded,
        "last_failure": None if view.failure is None else _failure_document(view.failure),
        "failures_in_a_row": view.failures_in_a_row,
        "next_poll": rfc3339_or_none(view.next_poll),
        "interval_seconds": view.interval.total_seconds(),
        "import_enabled": view.import_enabled,
        "export_enabled": view.export_enabled,
        "maintenance_until": rfc3339_or_none(view.maintenance_until),
        "transitions": view.transitions,
        **_move(view.move),
    }


def connection_whole(view: ConnectionView, series: list[str], command: str) -> Document:
    """One connection with its last failures, its series and the command that polls it."""
    return {
        **connection_document(view),
        "failures": [_failure_document(each) for each in view.failures],
        "series": series,
        "poll_command": command,
    }


def site_document(view: SiteView, tally: Tally) -> Document:
    """One site. Of its credential nothing but its kind and whether it is accepted."""
    return {
        "site": view.name,
        "up": view.up,
        "down_reason": view.down_reason,
        "down_since": rfc3339_or_none(view.down_since),
        "down_http_status": view.http_status,
        "down_request_id": view.request_id or None,
        "next_trial": rfc3339_or_none(view.next_trial),
        "failures_in_a_row": view.failures_in_a_row,
        "rate_limited_until": rfc3339_or_none(view.wait_until),
        "requests_per_minute": view.requests_per_minute,
        "requests_last_minute": view.used,
        "requests": view.requests,
        "request_failures": {str(reason): count for reason, count in sorted(view.failures.items())},
        "polls_waiting": view.polls_waiting,
        "throttled_seconds": round(view.throttled_seconds, 3),
        "poll_lag_seconds": None if view.lag_seconds is None else round(view.lag_seconds, 6),
        "interval_seconds": view.interval.total_seconds(),
        "interval_in_force_seconds": view.interval_in_force.total_seconds(),
        "credential": view.credential,
        "credential_state": view.credential_state,
        "maintenance_until": rfc3339_or_none(view.maintenance_until),
        **tally_document(tally),
        **_move(view.move),
    }


def tally_document(tally: Tally) -> Document:
    """Counts of connections."""
    return {
        "connections": tally.connections,
        "healthy": tally.healthy,
        "unhealthy": tally.unhealthy,
        "stale": tally.stale,
        "unseen": tally.unseen,
        "maintenance": tally.maintenance,
        "statuses": dict(sorted(tally.statuses.items())),
    }


def fleet_document(index: Index, shard: Shard) -> Document:
    """All that is watched here in a few numbers, and what is wrong in a sentence each."""
    store, node = index.facts.store, index.facts.node
    since = store.failing_since
    return {
        **tally_document(index.tally),
        "sites": len(index.sites),
        "sites_down": [site.name for site in index.down],
        "store": {
            "failing_since": None if since is None else rfc3339(index.facts.wall(since)),
            "changes_waiting": store.waiting,
            "changes_waiting_at_most": store.room,
        },
        "node": None if node is None else _node_document(node, index.facts),
        "nodes": [] if node is None else [_peer_document(each) for each in node.nodes],
        "shard": shard.ordinal,
        "total_shards": shard.total,
        "verdict": {
            scope: {"state": each.state, "told": each.told, **_move(each.move)}
            for scope, each in msgspec.structs.asdict(judge(index)).items()
        },
    }


def connection_path(site: str, name: str) -> str:
    """Where a connection's page is; the API's is below /api/v1."""
    return f"/connections/{_segment(site)}/{_segment(name)}"


def site_path(site: str) -> str:
    """Where a site's page is."""
    return f"/sites/{_segment(site)}"


def runbook_path(move: Move) -> str:
    """Where the runbook of a move is."""
    return f"/runbooks/{move.runbook}"


def _node_document(node: NodeFacts, facts: Facts) -> Document:
    lost = node.lost_since
    return {
        "name": node.name,
        "without_lease_since": None if lost is None else rfc3339(facts.wall(lost)),
        "may_poll": facts.blind_since is None,
    }


def _peer_document(peer: PeerFacts) -> Document:
    return {"name": peer.name, "urls": list(peer.urls)}


def _failure_document(failed: FailedPoll) -> Document:
    return {
        "at": rfc3339(failed.at),
        "reason": failed.reason,
        "http_status": failed.http_status,
        "request_id": failed.request_id or None,
    }


def _segment(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _move(move: Move | None) -> Document:
    if move is None:
        return {"who_acts": None, "problem": None, "alert": None, "runbook": None}
    return {
        "who_acts": move.who,
        "problem": move.told,
        "alert": move.alert,
        "runbook": runbook_path(move),
    }
