"""Whose move it is: one table for all that can be wrong, by the names of the alerts and their runbooks.

The alert of a move fires after a time of its own; the move is shown at once. What Wix says of a calendar
stands while we cannot ask; where it said that all is well, our blindness is what is wrong.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from monitor.core.model import Connection, ConnectionState, ErrorReason, FailureReason, Status
from monitor.core.site import SiteState


class Move(msgspec.Struct, frozen=True, gc=False):
    """Who acts, what is wrong in a line, and which alert's runbook says what to do.

    `page` is the runbook's name, where it is not the alert's.
    """

    alert: str
    who: str
    told: str
    page: str = ""

    @property
    def runbook(self) -> str:
        """The name of its runbook."""
        return self.page or self.alert


def _table(*moves: Move) -> Mapping[str, Move]:
    return {move.alert: move for move in moves}


MOVES: Final = _table(
    Move("WixCalendarTokenRevoked", "owner", "Wix may no longer use the calendar"),
    Move("WixCalendarDeleted", "owner", "the calendar is gone at its provider"),
    Move("WixCalendarCreationFailed", "owner", "Wix could not make the calendar that it exports to"),
    Move("WixCalendarError", "team", "ERROR, without a reason that we know"),
    Move("WixCalendarDisconnected", "team", "somebody, or Wix, disconnected the calendar"),
    Move("WixCalendarNotFound", "operator", "Wix knows no such id: most likely there is a new one"),
    Move("WixCalendarSyncStuck", "team", "a sync does not end within an hour"),
    Move("WixCalendarExportNotStarted", "team", "connected, but bookings are not exported"),
    Move("WixCalendarUnexpected", "operator", "a status that nobody expects"),
    Move("WixCalendarConnectionBlind", "operator", "one connection cannot be asked for"),
    Move("WixCalendarCredentialRefused", "operator", "Wix refuses our credential for a site"),
    Move("WixCalendarPlanLost", "site owner", "the site's plan at Wix has no calendar sync"),
    Move("WixUnreachable", "operator", "most sites cannot be asked for: network, or Wix"),
    Move("WixCalendarSiteUnreachable", "operator", "one site cannot be asked for"),
    Move("WixCalendarRateLimited", "operator", "Wix says that we ask too often"),
    Move("WixCalendarStoreFailing", "operator", "the store cannot be written"),
    Move(
        "WixCalendarNodeWithoutLease",
        "operator",
        "one of several nodes has no lease in the database",
        "WixCalendarNodes",
    ),
)
"""As the index of the runbooks has them."""

STUCK_AFTER: Final = timedelta(hours=1)
"""How long a sync may take, as the rules have it."""

_BY_REASON: Final = {
    ErrorReason.TOKEN_REVOKED: MOVES["WixCalendarTokenRevoked"],
    ErrorReason.EXTERNAL_CALENDAR_DELETED: MOVES["WixCalendarDeleted"],
    ErrorReason.EXTERNAL_CALENDAR_CREATION_FAILED: MOVES["WixCalendarCreationFailed"],
}
_BY_STATUS: Final = {
    Status.ERROR: MOVES["WixCalendarError"],
    Status.DISCONNECTED: MOVES["WixCalendarDisconnected"],
    Status.NOT_FOUND: MOVES["WixCalendarNotFound"],
}
_BY_OUTAGE: Final = {
    FailureReason.UNAUTHORIZED: MOVES["WixCalendarCredentialRefused"],
    FailureReason.FORBIDDEN: MOVES["WixCalendarCredentialRefused"],
    FailureReason.PREMIUM_REQUIRED: MOVES["WixCalendarPlanLost"],
}


def move_for(
    connection: Connection, state: ConnectionState, site: SiteState, now: datetime, *, stale: bool
) -> Move | None:
    """Whose move a connection asks for, None where it is nobody's."""
    if state.status is not None and not state.is_healthy(connection.policy):
        return _of_status(state)
    if stale or (state.status is None and state.failures_in_a_row):
        return site_move(site) or MOVES["WixCalendarConnectionBlind"]
    since = state.status_since
    if state.status is Status.SYNC_IN_PROGRESS and since is not None and now - since > STUCK_AFTER:
        return MOVES["WixCalendarSyncStuck"]
    return None


def site_move(site: SiteState) -> Move | None:
    """Whose move a site asks for, None where it is nobody's."""
    if site.outage is not None:
        return _BY_OUTAGE.get(site.outage.reason, MOVES["WixCalendarSiteUnreachable"])
    return MOVES["WixCalendarRateLimited"] if site.limited_since is not None else None


def _of_status(state: ConnectionState) -> Move:
    if state.reason in _BY_REASON:
        return _BY_REASON[state.reason]
    if state.status is Status.CONNECTED and state.export_enabled:
        return MOVES["WixCalendarExportNotStarted"]
    return _BY_STATUS.get(state.status or Status.UNDEFINED, MOVES["WixCalendarUnexpected"])
