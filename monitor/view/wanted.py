"""Which connections somebody asks for."""

import msgspec

from monitor.view.index import Entry, Index


class Wanted(msgspec.Struct, frozen=True):
    """All that is given must fit; None asks for any.

    `label` is a key, or `key=value`; `text` is found in names, ids, teams and labels, whatever its case.
    `healthy` is false of what was last known to be otherwise, `maintenance` true of what is not well in it.
    """

    site: str | None = None
    status: str | None = None
    label: str | None = None
    team: str | None = None
    text: str | None = None
    healthy: bool | None = None
    stale: bool | None = None
    maintenance: bool | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether a connection is one of those."""
        return (
            (self.site is None or entry.site == self.site)
            and (self.status is None or entry.status == self.status)
            and (self.healthy is None or (entry.healthy is True if self.healthy else entry.unwell))
            and (self.stale is None or entry.stale is self.stale)
            and (self.maintenance is None or entry.resting is self.maintenance)
            and (self.team is None or entry.watching.connection.team == self.team)
            and (self.label is None or self._has_label(entry))
            and (self.text is None or self._has_text(entry))
        )

    @property
    def asks_for_all(self) -> bool:
        """Whether everything fits."""
        return self == Wanted()

    def _has_label(self, entry: Entry) -> bool:
        key, told, value = (self.label or "").partition("=")
        labels = entry.watching.connection.labels
        return any(key == its and (not told or value == given) for its, given in labels)

    def _has_text(self, entry: Entry) -> bool:
        connection, text = entry.watching.connection, (self.text or "").casefold()
        told = (connection.name, connection.id, connection.site, connection.team)
        labels = (f"{key}={value}" for key, value in connection.labels)
        return any(text in each.casefold() for each in (*told, *labels))


def narrowed(wanted: Wanted, run: list[Entry]) -> list[Entry]:
    """Those of a run that fit, in its order."""
    return [entry for entry in run if wanted.fits(entry)]


def runs_of(wanted: Wanted, index: Index) -> list[list[Entry]]:
    """The runs in which those that are wanted can be."""
    if wanted.site is None:
        return index.runs
    return [run for run in index.runs if run and run[0].site == wanted.site]
