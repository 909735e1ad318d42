#!/usr/bin/env bash
# Runs the daemon against the bundled Wix simulator on a machine that has Python 3.11 or later and nothing of
# ours: makes its own environment in .demo. Where Prometheus and Alertmanager are on PATH the shipped rules run too.
# Arguments are handed on: deploy/demo.sh --web.listen-address=:9999
set -euo pipefail
cd "$(dirname "$0")/.."

. deploy/environment.sh
make_environment .demo deploy/requirements.txt
exec .demo/bin/wix-calendar-monitor demo --deploy-folder=deploy "$@"
