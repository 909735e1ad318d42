"""Scenarios and the configurations that fit them, for tests over real processes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from monitor.simulator import Connection, OAuthClient, Scenario, Site

CLIENT_SECRET: Final = "canary-client-secret-4d1f"
API_KEY: Final = "canary-api-key-77ab"


def oauth_site(name: str, connections: Iterable[Connection], **more: Any) -> Site:
    """A simulated site behind OAuth client credentials."""
    client = OAuthClient(client_id="app", client_secret=CLIENT_SECRET, instance_id=f"{name}-instance")
    return Site(name=name, oauth=client, connections=tuple(connections), **more)


def key_site(name: str, connections: Iterable[Connection], **more: Any) -> Site:
    """A simulated site behind an API key."""
    return Site(name=name, api_key=API_KEY, site_id=f"{name}-id", connections=tuple(connections), **more)


def write_config(
    folder: Path,
    base_url: str,
    scenario: Scenario,
    *,
    polling: Mapping[str, object] | None = None,
    api: Mapping[str, object] | None = None,
    site: Mapping[str, object] | None = None,
    store: Mapping[str, object] | None = None,
) -> Path:
    """Write the configuration that watches all of a scenario, secrets in files beside it; its path."""
    for name, secret in (("client-secret", CLIENT_SECRET), ("api-key", API_KEY)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret + "\n")
    document = {
        "api": {"base_url": base_url, "timeout": "2s", **(api or {})},
        "polling": {"interval": "1s", "unsettled_interval": "1s", **(polling or {})},
        "store": {"url": f"sqlite:///{folder / 'state.db'}", **(store or {})},
        "sites": [_site(each, site or {}) for each in scenario.sites],
    }
    path = folder / "monitor.yml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _site(site: Site, more: Mapping[str, object]) -> dict[str, object]:
    credential: dict[str, object] = {"api_key_file": "api-key", "site_id": site.site_id}
    if site.oauth is not None:
        credential = {
            "oauth": {
                "client_id": site.oauth.client_id,
                "client_secret_file": "client-secret",
                "instance_id": site.oauth.instance_id,
            }
        }
    connections = [{"id": each.id, "name": each.id} for each in site.connections]
    return {
        "name": site.name,
        "credential": credential,
        "requests_per_minute": 2000,
        "connections": connections,
        **more,
    }
