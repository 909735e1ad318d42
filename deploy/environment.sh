# Sourced by deploy/demo.sh and tests/run.sh: a virtual environment with exactly the pinned packages.

# make_environment FOLDER REQUIREMENTS: makes the environment, or brings it up to date, and installs this
# project into it. Nothing is done where nothing has changed since the last time.
make_environment() {
    local folder=$1 requirements=$2 python stamp
    python=$(find_python)
    stamp=$(cat "$requirements" pyproject.toml | cksum; "$python" -VV; pwd)
    if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    echo "making $folder with $("$python" -V) …"
    rm -rf "$folder"
    "$python" -m venv "$folder" || {
        echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2
        return 1
    }
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes -r "$requirements"
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
    echo "$stamp" >"$folder/.stamp"
}

# The newest Python on PATH that will do, or the one that $PYTHON names.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "Python 3.11 or later is needed; name yours: PYTHON=/path/to/python3 $0" >&2
    return 1
}
