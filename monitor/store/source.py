"""What a store must be for another one to be filled from it: one of ours, as this version writes it."""

from monitor.errors import CannotStartError


def see_that_it_is_ours(place: object, found: int | None, known: int) -> None:
    """Refuse what is not, as nothing is made or changed in a source; None: it has no tables of ours.

    Raises CannotStartError.
    """
    if found == known:
        return
    if found is None:
        told = f"there is nothing of ours in {place} that its user may read"
        raise CannotStartError(f"{told}; name the store that is to be copied in --from")
    told = f"{place} has schema {found}, this version copies {known}"
    mend = "start a daemon of this version on it once, which brings it up to date"
    raise CannotStartError(f"{told}; {mend if found < known else 'use the version that writes it'}")
