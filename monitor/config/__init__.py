"""YAML and environment in, frozen settings out; every problem at once, with file and line."""

from monitor.config.load import Loaded, load
from monitor.config.model import json_schema
from monitor.config.report import plan_report
from monitor.config.resolve import Secrets
from monitor.config.settings import (
    ApiKeyCredential,
    ApiSettings,
    OAuthCredential,
    SecretSource,
    Settings,
    SiteSettings,
    StoreSettings,
)
from monitor.config.source import Duration, StrictModel, parse

__all__ = [
    "ApiKeyCredential",
    "ApiSettings",
    "Duration",
    "Loaded",
    "OAuthCredential",
    "SecretSource",
    "Secrets",
    "Settings",
    "SiteSettings",
    "StoreSettings",
    "StrictModel",
    "json_schema",
    "load",
    "parse",
    "plan_report",
]
