#!/usr/bin/env bash
# Installs the real programs that some tests run, on Debian and its kin, where we are root and one is missing.
# Elsewhere it says what is missing and goes on: those tests are then skipped (with CI=true they fail).
set -euo pipefail

# tool:package
wanted=(
    prometheus:prometheus promtool:prometheus
    prometheus-alertmanager:prometheus-alertmanager amtool:prometheus-alertmanager
    systemd-nspawn:systemd-container systemd-analyze:systemd
    pgrep:procps curl:curl jq:jq ip:iproute2
    chromium:chromium
    pgbouncer:pgbouncer
    # to build our package, and what it depends on
    dpkg-deb:dpkg deb-systemd-invoke:init-system-helpers update-ca-certificates:ca-certificates
)
services=(prometheus.service prometheus-alertmanager.service postgresql.service pgbouncer.service)

missing=()
for each in "${wanted[@]}"; do
    command -v "${each%:*}" >/dev/null || missing+=("${each#*:}")
done
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql) # not on PATH
if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

go_on() {
    echo "missing for the tests with real parts: ${missing[*]} ($1); they are skipped without them" >&2
    exit 0
}
[ "$EUID" -eq 0 ] || go_on "installing them needs root"
command -v apt-get >/dev/null || go_on "there is no apt-get to install them with"

# The tests start programs of their own; the packages' services must not run. While this file is there Debian's
# packages start nothing; one that is there already is the machine's own and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "installing for the tests with real parts: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 || go_on "apt-get update failed"
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" || go_on "apt-get install failed"

# Nor shall they start with the machine's next boot. What was installed before us is left as it was.
for service in "${services[@]}"; do
    if [[ " ${missing[*]} " == *" ${service%.service} "* ]] && command -v systemctl >/dev/null; then
        systemctl --quiet disable "$service" || echo "could not disable $service: it starts at the next boot" >&2
    fi
done
