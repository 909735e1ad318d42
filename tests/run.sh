#!/usr/bin/env bash
# Runs every check and every test on a machine that has Python 3.11 or later and nothing of ours:
# makes its own environment in .venv, installs exactly what tests/requirements.txt pins, and goes.
# Arguments are handed to pytest, after which only pytest runs: tests/run.sh tests/core -k late
set -euo pipefail
cd "$(dirname "$0")/.."

# Prometheus and its tool collect their garbage less often: a fifth less of the processor, for some memory.
export GOGC=400

. deploy/environment.sh
make_environment .venv tests/requirements.txt

if [ "$#" -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi

bash tests/install-real-parts.sh
bash tests/install-newer-parts.sh

step() {
    printf '\n== %s\n' "$*"
    "$@"
}
step .venv/bin/ruff check .
step .venv/bin/ruff format --check .
step .venv/bin/mypy monitor tests
step .venv/bin/lint-imports
step .venv/bin/python -m pytest -m "not alone" --numprocesses=4 --dist=loadgroup
step .venv/bin/python -m pytest -m alone
