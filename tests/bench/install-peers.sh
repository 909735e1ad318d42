#!/usr/bin/env bash
# Installs what the benchmarks use beside ours, on Debian and its kin, as root: nginx, which they ask, and the peers
# that they are compared with. Where a peer is missing its rows say so.
set -euo pipefail

wanted=(
    nginx:nginx-light prometheus-blackbox-exporter:prometheus-blackbox-exporter prometheus:prometheus
    openssl:openssl taskset:util-linux
)
services=(nginx.service prometheus-blackbox-exporter.service prometheus.service)

PATH=$PATH:/usr/sbin
missing=()
for each in "${wanted[@]}"; do
    command -v "${each%:*}" >/dev/null || missing+=("${each#*:}")
done
if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi
if [ "$EUID" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing for the benchmarks: ${missing[*]}; installing them needs root and apt-get" >&2
    exit 1
fi

# The benchmarks start programs of their own; the packages' services must not run. While this file is there Debian's
# packages start nothing; one that is there already is the machine's own and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}"

# Nor shall they start with the machine's next boot. What was installed before us is left as it was.
for service in "${services[@]}"; do
    if [[ " ${missing[*]} " =~ \ ${service%.service}(-light)?\  ]] && command -v systemctl >/dev/null; then
        systemctl --quiet disable "$service" || echo "could not disable $service: it starts at the next boot" >&2
    fi
done
