"""Logs: one line an event whatever is put in, nothing secret, nothing that could stop a poll."""

import contextvars
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.model import Status
from monitor.logs import LINE_LIMIT, Format, Redactor, rfc3339, set_up

CANARY = "canary-5f3a9c"
MOMENT = datetime(2026, 11, 23, 7, 0, 0, 123456, tzinfo=UTC)
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
TRANSITION: dict[str, Any] = {
    "site": "downtown",
    "connection": "Zoë's",
    "from_status": Status.SYNCED,
    "from_reason": None,
    "from_since": MOMENT,
    "duration_seconds": 61.5,
    "failures": 3,
    "observed_late": True,
    "wait": timedelta(seconds=90, microseconds=1234),
    "names": ["a b", "c"],
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Each test leaves the process's logging as it was."""
    root = logging.getLogger()
    before = root.handlers, root.level
    yield
    root.handlers, level = before
    root.setLevel(level)
    structlog.reset_defaults()


class Log:
    """A logger over a stream of ours."""

    def __init__(self, level: str = "debug", form: Format = Format.JSON) -> None:
        self.stream = io.StringIO()
        self.redactor = Redactor()
        self.log = set_up(level, form, self.redactor, stream=self.stream, environ={})

    @property
    def text(self) -> str:
        """What was written, the timestamps blotted."""
        return STAMP.sub("T", self.stream.getvalue())

    def line(self) -> dict[str, Any]:
        """The only line there is, as JSON."""
        (line,) = self.stream.getvalue().split("\n")[:-1]
        fact = json.loads(line)
        assert isinstance(fact, dict)
        return fact


def caught(fail: Callable[[], None]) -> Exception:
    """What it raises, with its traceback."""
    try:
        fail()
    except Exception as error:  # noqa: BLE001  whatever it is
        return error
    raise AssertionError("it did not fail")


forms = pytest.mark.parametrize("form", list(Format))


def test_a_json_line_is_exactly_this() -> None:
    log = Log()
    log.log.warning("connection_transition", **TRANSITION)
    assert log.text == (
        '{"timestamp":"T","level":"warning","event":"connection_transition","site":"downtown",'
        '"connection":"Zoë\'s","from_status":"SYNCED","from_reason":null,'
        '"from_since":"2026-11-23T07:00:00.123Z","duration_seconds":61.5,"failures":3,"observed_late":true,'
        '"wait":90.001,"names":["a b","c"]}\n'
    )


def test_a_logfmt_line_is_exactly_this() -> None:
    log = Log(form=Format.LOGFMT)
    log.log.warning("connection_transition", **TRANSITION)
    assert log.text == (
        "timestamp=T level=warning event=connection_transition site=downtown connection=Zoë's"
        " from_status=SYNCED from_reason= from_since=2026-11-23T07:00:00.123Z duration_seconds=61.5"
        " failures=3 observed_late=true wait=90.001 names=\"['a b', 'c']\"\n"
    )


def test_a_console_line_is_exactly_this() -> None:
    log = Log(form=Format.CONSOLE)
    log.log.warning("rate_limited", site="downtown", wait_seconds=45)
    assert log.text == "T [warning  ] rate_limited                   site=downtown wait_seconds=45\n"


def test_the_timestamp_is_the_present_in_utc() -> None:
    log = Log()
    before = datetime.now(UTC)  # noqa: TID251  the wall clock itself is what is tested
    log.log.info("monitor_ready")
    stamp = log.line()["timestamp"]
    assert STAMP.fullmatch(stamp)
    now = datetime.now(UTC)  # noqa: TID251  same
    assert before <= datetime.fromisoformat(stamp) <= now


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (MOMENT, "2026-11-23T07:00:00.123Z"),
        (MOMENT.replace(microsecond=0), "2026-11-23T07:00:00.000Z"),
        (MOMENT.astimezone(timezone(timedelta(hours=-5))), "2026-11-23T07:00:00.123Z"),
    ],
)
def test_moments_are_rfc_3339_in_utc(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text


LEVELS = ["debug", "info", "warning", "error", "critical"]


@pytest.mark.parametrize("floor", LEVELS)
def test_what_is_below_the_level_is_not_written(floor: str) -> None:
    log = Log(floor)
    for level in LEVELS:
        getattr(log.log, level)("told")
        log.log.log(logging.getLevelNamesMapping()[level.upper()], "told_by_number")
    told = [json.loads(line)["level"] for line in log.stream.getvalue().splitlines()]
    assert told == [level for level in LEVELS[LEVELS.index(floor) :] for _ in range(2)]


def test_context_of_a_task_is_on_the_line() -> None:
    log = Log()

    def inside() -> None:
        structlog.contextvars.bind_contextvars(site="downtown")
        log.log.info("told")

    contextvars.copy_context().run(inside)
    assert log.line()["site"] == "downtown"


# The libraries' lines


@forms
def test_a_librarys_error_has_its_traceback_without_secrets_and_locals(form: Format) -> None:
    log = Log(form=form)
    log.redactor.hide(CANARY)
    hidden_local = "local-" + CANARY[::-1]

    def fail(secret: str) -> None:
        raise ValueError(f"bad token {secret}")

    try:
        fail(CANARY)
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling %s", CANARY)
    text = log.stream.getvalue()
    assert "Error handling [REDACTED]" in text
    assert "ValueError: bad token [REDACTED]" in text
    assert "in fail" in text
    assert "aiohttp.server" in text
    assert CANARY not in text
    assert hidden_local not in text


def test_a_librarys_line_has_the_form_of_ours() -> None:
    log = Log()
    logging.getLogger("apscheduler.scheduler").error("it went %s", "wrong")
    assert (
        log.text
        == '{"timestamp":"T","level":"error","event":"it went wrong","logger":"apscheduler.scheduler"}\n'
    )


def test_a_library_is_heard_from_warning_on_or_from_our_level_if_that_is_higher() -> None:
    for level, heard in (("debug", ["w", "e"]), ("info", ["w", "e"]), ("error", ["e"])):
        log = Log(level)
        logger = logging.getLogger("somebody")
        logger.debug("d")
        logger.info("i")
        logger.warning("w")
        logger.error("e")
        assert [json.loads(line)["event"] for line in log.stream.getvalue().splitlines()] == heard


def test_a_librarys_slip_in_its_own_log_call_costs_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.redactor.hide(CANARY)
    logging.getLogger("aiohttp.web").error("%d of %s", CANARY)  # noqa: PLE1206  the slip
    assert log.line()["event"] == "%d of %s"
    assert capfd.readouterr() == ("", "")


def test_setting_up_again_writes_each_line_once() -> None:
    before = Log()
    log = Log()
    logging.getLogger("aiohttp").error("once")
    assert before.text == ""
    log.log.error("and once")
    assert [json.loads(line)["event"] for line in log.stream.getvalue().splitlines()] == ["once", "and once"]


@forms
def test_our_own_errors_have_their_traceback_without_locals(form: Format) -> None:
    log = Log(form=form)
    log.redactor.hide(CANARY)
    unknown = "not-hidden-anywhere"

    def fail() -> None:
        assert unknown
        raise KeyError(CANARY)

    log.log.error("poll_crashed", site="downtown", exc_info=caught(fail))
    text = log.stream.getvalue()
    assert "KeyError" in text
    assert "[REDACTED]" in text
    assert CANARY not in text
    assert unknown not in text


# Secrets


def test_a_secret_is_blotted_wherever_it_stands() -> None:
    log = Log()
    log.redactor.hide(CANARY)
    log.log.error(
        CANARY,
        plain=CANARY,
        inside=f"Bearer {CANARY}!",
        listed=[CANARY, {"deep": CANARY}],
        keyed={CANARY: 1},
        deeper={"a": {"b": {"c": {"d": CANARY}}}},
        error=ValueError(CANARY),
        path=Path("/") / CANARY,
        **{f"key_{CANARY}": 1},
    )
    assert CANARY not in log.stream.getvalue()
    assert log.line()["inside"] == "Bearer [REDACTED]!"


@forms
@pytest.mark.parametrize("secret", ['quo"te', "back\\slash", "bo\"th\\of'them", "a\\nb", "sp ace=", "<a&b>"])
def test_a_secret_is_blotted_however_it_is_escaped(form: Format, secret: str) -> None:
    log = Log(form=form)
    log.redactor.hide(secret)
    log.log.error("told", plain=secret, nested=[{"a": [{"b": secret}]}], error=repr(KeyError(secret)))
    text = log.stream.getvalue()
    assert text.count("[REDACTED]") == 3
    for form_of_it in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
        assert form_of_it not in text


@forms
def test_a_value_that_is_cut_shows_no_half_of_a_secret(form: Format) -> None:
    secret = "".join(f"{n:04d}." for n in range(40))
    for lead in range(900, 1100, 40):
        log = Log(form=form)
        log.redactor.hide(secret)
        log.log.error("told", value="x" * lead + secret + "y" * 9000)
        assert "0010." not in log.stream.getvalue()
        assert "0030." not in log.stream.getvalue()


def test_the_empty_string_is_no_secret() -> None:
    redactor = Redactor()
    redactor.hide("")
    assert redactor.clean("as it was") == "as it was"


def test_a_longer_memory_than_its_capacity_forgets_the_oldest() -> None:
    redactor = Redactor(capacity=2)
    for secret in ("first", "second", "third"):
        redactor.hide(secret)
    assert redactor.clean("first second third") == "first [REDACTED] [REDACTED]"


def test_a_secret_told_again_is_not_among_the_oldest() -> None:
    redactor = Redactor(capacity=2)
    for secret in ("first", "second", "first", "third"):
        redactor.hide(secret)
    assert redactor.clean("first second third") == "[REDACTED] second [REDACTED]"


# Hostile values

hostile = st.one_of(
    st.text(st.characters(), max_size=50),
    st.text(st.sampled_from('\n\r\t\0\x1b\x7f\x85\u2028\u2029\ud800\udfff"\\= {}%é𝄞'), max_size=50),
    st.sampled_from([each * 9000 for each in '\n\0\ud800"\\é𝄞']),
    st.integers(),
    st.sampled_from([2**63, -(2**70), 10**5000, 1e400, float("nan"), True, None, b"\xff\0", 3 + 4j]),
    st.lists(st.text(st.characters()), max_size=5),
    st.dictionaries(st.one_of(st.text(st.characters()), st.integers(), st.none()), st.text(), max_size=5),
)  # fmt: skip


@pytest.mark.parametrize("form", list(Format))
@given(values=st.dictionaries(st.sampled_from(["a", "b", "c", "cause", "reason"]), hostile))
def test_whatever_is_put_in_one_short_line_comes_out(form: Format, values: dict[str, Any]) -> None:
    log = Log(form=form)
    log.log.error("told", **values)
    text = log.stream.getvalue()
    assert len(text.encode()) <= 16 * 1024
    assert "told" in text
    assert "\ufffd" not in text
    assert "\x1b" not in text
    if form is not Format.CONSOLE:
        assert text.count("\n") == 1
        assert "\r" not in text
    if form is Format.LOGFMT:
        assert len(text.splitlines()) == 1
    if form is Format.JSON:
        assert set(log.line()) - {"truncated"} == {"timestamp", "level", "event", *values}


@pytest.mark.parametrize(
    "mark", ["\n", "\r", "\0", "\x1b", "\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\x9b", "\u2028"]
)
def test_no_control_character_breaks_a_logfmt_line(mark: str) -> None:
    log = Log(form=Format.LOGFMT)
    log.log.error("told", bare=f"a{mark}b", quoted=f"a {mark} b")
    assert mark not in log.text.removesuffix("\n")
    assert len(log.text.splitlines()) == 1


def test_a_traceback_may_be_longer_than_a_value() -> None:
    def fail() -> None:
        raise ValueError("m" * 6000)

    log = Log()
    log.log.error("poll_crashed", exc_info=caught(fail))
    assert "m" * 6000 in log.line()["exception"]


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_an_object_that_cannot_be_shown_is_named() -> None:
    log = Log()
    log.log.error("told", rude=Rude(), inside=[Rude()])
    assert (log.line()["rude"], log.line()["inside"]) == ("<Rude>", ["<Rude>"])


def test_a_value_that_holds_itself_is_shown_in_part() -> None:
    log = Log()
    loop: list[Any] = []
    loop.append(loop)
    log.log.error("told", loop=loop)
    assert "[...]" in str(log.line()["loop"])


@forms
def test_a_line_of_many_long_values_keeps_all_of_them_in_part(form: Format) -> None:
    log = Log(form=form)
    log.log.error("told", **{f"k{n}": f"<{n}>" + 3000 * "x" for n in range(30)}, count=7, none=None)
    text = log.stream.getvalue()
    assert len(text.encode()) <= 16 * 1024
    for n in range(30):
        assert f"<{n}>" in text
    if form is Format.JSON:
        line = log.line()
        assert (line["truncated"], line["count"], line["none"]) == (True, 7, None)


@forms
def test_a_line_of_too_many_values_keeps_its_head(form: Format) -> None:
    log = Log(form=form)
    log.log.error("told", **{f"k{n}": 100 * "x" for n in range(1000)})
    text = log.stream.getvalue()
    assert len(text.encode()) <= LINE_LIMIT + 1
    if form is Format.JSON:
        assert set(log.line()) == {"timestamp", "level", "event", "truncated"}


def test_a_short_line_is_not_marked_as_cut() -> None:
    log = Log()
    log.log.error("told", value="x" * 2048)
    assert log.line()["value"] == "x" * 2048
    assert "truncated" not in log.line()


def test_a_long_value_shows_its_head_and_tail() -> None:
    log = Log()
    log.log.error("told", value="head" + "x" * 5000 + "tail")
    value = log.line()["value"]
    assert value.startswith("head")
    assert value.endswith("tail")
    assert len(value) <= 2048 + 3


@forms
def test_a_deep_traceback_keeps_its_cause_within_the_limit(form: Format) -> None:
    def dig(depth: int = 400) -> None:
        if depth == 0:
            raise ValueError("the cause " + "é" * 20_000 + " in the end")
        dig(depth - 1)

    log = Log(form=form)
    log.log.error("poll_crashed", exc_info=caught(dig))
    text = log.stream.getvalue()
    assert len(text.encode()) <= 16 * 1024
    assert "Traceback" in text
    assert "in the end" in text


# Where it is written to


def test_a_journal_gets_priorities(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        log = set_up("debug", Format.JSON, Redactor(), stream=stream, environ=journal)
        for level in LEVELS:
            getattr(log, level)("told")
        logging.getLogger("aiohttp").warning("a library")
        lines = (tmp_path / "out").read_text().splitlines()
    assert [line[:4] for line in lines] == ["<7>{", "<6>{", "<4>{", "<3>{", "<2>{", "<4>{"]


@pytest.mark.parametrize(
    "named",
    ["", "1", ":", "1:2:3", "x:y", "{device}:1", "1:{inode}", "{inode}:{device}", "{device}:{inode}0"],
)
def test_what_is_not_the_journal_gets_none(tmp_path: Path, named: str) -> None:
    with (tmp_path / "out").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": named.format(device=facts.st_dev, inode=facts.st_ino)}
        set_up("info", Format.JSON, Redactor(), stream=stream, environ=environ).info("told")
        assert (tmp_path / "out").read_text().startswith("{")


def test_each_line_is_out_at_once(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        log = set_up("info", Format.JSON, Redactor(), stream=stream, environ={})
        log.info("told")
        assert (tmp_path / "out").read_text().endswith("}\n")


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w")  # noqa: PTH123  no path, a device


def broken_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("make", [full, broken_pipe])
def test_a_broken_standard_output_stops_nothing(make: Callable[[], io.TextIOWrapper]) -> None:
    stream = make()
    log = set_up("info", Format.JSON, Redactor(), stream=stream, environ={})
    for _ in range(100):
        log.error("told", value="x" * 2000)
        logging.getLogger("aiohttp").error("told")
    with pytest.raises(OSError, match=r"No space|Broken pipe"):
        stream.close()


def test_a_closed_stream_stops_nothing(tmp_path: Path) -> None:
    stream = (tmp_path / "out").open("w")
    log = set_up("info", Format.JSON, Redactor(), stream=stream, environ={})
    stream.close()
    log.error("told")
    logging.getLogger("aiohttp").error("told")


def test_no_locale_costs_a_line(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        log = set_up("info", Format.JSON, Redactor(), stream=stream, environ={})
        log.info("told", name="Zoë")
    assert json.loads((tmp_path / "out").read_bytes().decode())["name"] == "Zoë"


SCRIPT = """
from monitor.logs import Format, Redactor, set_up
set_up("info", Format.JSON, Redactor()).info("told")
import sys
sys.exit(7)
"""


@pytest.mark.parametrize(("redirection", "written"), [("", True), (">&-", False)])
def test_standard_output_is_the_default_and_may_be_closed(redirection: str, *, written: bool) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert ('"event":"told"' in done.stdout) is written


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(KeyError):
        set_up("loud", Format.JSON, Redactor(), stream=io.StringIO(), environ={})
