#!/usr/bin/env bash
# Renews the pins: deploy/requirements.txt for what runs, tests/requirements.txt for that and the tests.
# Exact versions with hashes, no addresses. Needs tests/run.sh to have made .venv, or uv on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PWD/.venv/bin:$PATH
pin() {
    local output=$1
    shift
    uv pip compile --quiet --upgrade --universal --python-version=3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --no-annotate --custom-compile-command=tests/lock.sh \
        --all-extras --group=build "$@" --output-file="$output" pyproject.toml
}
pin deploy/requirements.txt
pin tests/requirements.txt --group=test --group=lock --constraint=deploy/requirements.txt
