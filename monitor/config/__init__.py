"""YAML and environment in, frozen settings out; every problem at once, with file and line."""

from monitor.config.difference import Difference, Names, difference
from monitor.config.gather import check_connections_text
from monitor.config.load import Loaded, load, load_each
from monitor.config.model import json_schema
from monitor.config.report import plan_report, spread_report
from monitor.config.resolve import Secrets
from monitor.config.settings import (
    CREDENTIALS_UNSET,
    ApiKeyCredential,
    ApiSettings,
    FeedSettings,
    OAuthCredential,
    Part,
    SecretSource,
    Settings,
    SiteSettings,
    StoreSettings,
)
from monitor.config.share import share, units
from monitor.config.source import Duration, StrictModel, parse
from monitor.config.watching import Sources

__all__ = [
    "CREDENTIALS_UNSET",
    "ApiKeyCredential",
    "ApiSettings",
    "Difference",
    "Duration",
    "FeedSettings",
    "Loaded",
    "Names",
    "OAuthCredential",
    "Part",
    "SecretSource",
    "Secrets",
    "Settings",
    "SiteSettings",
    "Sources",
    "StoreSettings",
    "StrictModel",
    "check_connections_text",
    "difference",
    "json_schema",
    "load",
    "load_each",
    "parse",
    "plan_report",
    "share",
    "spread_report",
    "units",
]
