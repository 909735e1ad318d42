"""What a page of metrics says, as values that a test can ask for."""

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, str, str], float]
Labelled = dict[tuple[str, frozenset[tuple[str, str]]], float]


def labelled(page: str) -> Labelled:
    """Values by name and all labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def samples(page: str) -> Samples:
    """Values by family, connection (or site) and the label that is the family's own."""
    return {
        (
            sample.name,
            sample.labels.get("connection", sample.labels.get("site", "")),
            sample.labels.get("status", sample.labels.get("reason", "")),
        ): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
