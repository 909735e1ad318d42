"""The memory of failed polls: a few of each connection, and bounded over all."""

from datetime import timedelta

from monitor.core.model import FailureReason, PollFailed
from monitor.view.failures import EACH, Failures
from tests.view.scene import NOW

FAILED = PollFailed(FailureReason.SERVER_ERROR, "canary detail", 503, "req-7")


def test_the_last_few_are_kept_newest_first() -> None:
    failures = Failures()
    for number in range(EACH + 3):
        failures.note("downtown", "anna", FAILED, NOW + timedelta(seconds=number))
    kept = failures.of("downtown", "anna")
    assert [each.at - NOW for each in kept] == [timedelta(seconds=n) for n in (7, 6, 5, 4, 3)]
    assert (kept[0].reason, kept[0].http_status, kept[0].request_id) == ("server_error", 503, "req-7")
    assert failures.of("downtown", "ben") == failures.of("uptown", "anna") == ()


def test_the_connections_that_failed_last_are_the_ones_remembered() -> None:
    failures = Failures(connections=2)
    for name in ("anna", "ben", "anna", "cleo"):
        failures.note("downtown", name, FAILED, NOW)
    assert [len(failures.of("downtown", name)) for name in ("anna", "ben", "cleo")] == [2, 0, 1]


def test_a_long_request_id_is_cut_and_no_words_of_the_answer_are_kept() -> None:
    failures = Failures()
    failures.note("downtown", "anna", PollFailed(FailureReason.TLS, "canary", None, "x" * 5000), NOW)
    (kept,) = failures.of("downtown", "anna")
    assert kept.request_id == "x" * 100
    assert "canary" not in repr(kept)
