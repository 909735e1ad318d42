"""What the demo shows of Alertmanager's messages."""

from typing import Any, Final

from monitor.demo.talk import Notification

_IN_FULL: Final = 3  # alerts that a line names


class Teller:
    """Puts a message into a line: what is new in it. What is over in it is a line, too."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def lines(self, notification: Notification) -> list[str]:
        """The lines of one message; a reminder, with nothing new and nothing over, is told as it was."""
        firing = [each for each in notification["alerts"] if each["status"] == "firing"]
        over = [each for each in notification["alerts"] if each["status"] == "resolved"]
        new = [each for each in firing if each["fingerprint"] not in self._told]
        self._told = (self._told | _fingerprints(new)) - _fingerprints(over)
        begun = new or ([] if over else firing)
        return [_line(word, alerts) for word, alerts in (("alert", begun), ("over", over)) if alerts]


def _fingerprints(alerts: list[dict[str, Any]]) -> set[str]:
    return {each["fingerprint"] for each in alerts}


def _line(word: str, alerts: list[dict[str, Any]]) -> str:
    summaries = "; ".join(each["annotations"].get("summary", "") for each in alerts[:_IN_FULL])
    more = f"; and {len(alerts) - _IN_FULL} more" if len(alerts) > _IN_FULL else ""
    return f"{word:5}  {alerts[0]['labels']['alertname']}  {summaries}{more}"
