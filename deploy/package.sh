#!/usr/bin/env bash
# Builds dist/wix-calendar-monitor_VERSION_ARCHITECTURE.deb for the distribution this machine runs: Debian 12 or
# later and its kin. Needs dpkg-deb, python3-venv and no root; needs the network the first time and whenever the pins
# have changed. Installing the package needs no network. The last line of its output is the package's path.
set -euo pipefail
cd "$(dirname "$0")/.."

name=wix-calendar-monitor
wheels=$PWD/.package/wheels
root=$PWD/.package/root
home=$root/opt/$name
share=$root/usr/share/$name

# The very interpreter that the package depends on: compiled packages fit one minor version of Python only.
python=/usr/bin/$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "/usr/bin/python3 must be 3.11 or later, as on Debian 12" >&2
    exit 1
}

# Two builds of one commit are equal to the byte: no file is newer than the commit.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat --format=%Y CHANGELOG.md)
fi
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8
umask 022

# The wheels that deploy/requirements.txt pins, each checked by its hash, and the tools to build ours.
fetch() {
    local stamp
    stamp=$(cksum <deploy/requirements.txt; "$python" -VV)
    if [ "$(cat "$wheels/.stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    echo "fetching the pinned packages for $("$python" -V) …"
    mkdir -p "$wheels"
    find "$wheels/" -mindepth 1 -delete
    "$python" -m venv "$wheels/tools" || {
        echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2
        return 1
    }
    "$wheels/tools/bin/pip" download -qq --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --requirement=deploy/requirements.txt --dest="$wheels"
    offline install hatchling
    echo "$stamp" >"$wheels/.stamp"
}

# pip over nothing but the fetched wheels, whatever this machine's own settings of pip add.
offline() {
    env PIP_CONFIG_FILE=/dev/null "$wheels/tools/bin/python" -m pip --isolated --disable-pip-version-check -qq "$@" \
        --no-index --find-links="$wheels"
}

# What the project needs to run, and the project, in a virtual environment that will lie in /opt.
put_environment() {
    "$python" -m venv --without-pip --symlinks "$home"
    rm -rf "$home"/bin/[Aa]ctivate* "$home/include" "$home/lib64"
    sed -i '/^command = /d' "$home/pyvenv.cfg"

    offline wheel --no-deps --no-build-isolation --wheel-dir="$root/ours" .
    offline --python="$home/bin/python3" install --no-compile --find-links="$root/ours" "${name}[uvloop,postgresql]==$version"
    rm -r "$root/ours"

    # pip's own scripts and records name the folder of this build. Without a record pip changes nothing here: dpkg does.
    find "$home/bin" -type f -delete
    rm "$home"/lib/*/site-packages/*.dist-info/RECORD
    install -m 755 deploy/debian/command "$home/bin/$name"

    # Compiled here, so that nothing is written under /opt later; by content, so that an edited source still counts.
    "$python" -m compileall -q -s "$root" -p / --invalidation-mode=checked-hash "$home/lib"
}

# The command, the units, their user, the sample of the configuration, the folder of secrets.
put_service() {
    install -d "$root/usr/bin"
    ln -s "/opt/$name/bin/$name" "$root/usr/bin/$name"
    install -D -m 644 "deploy/systemd/$name.service" "$root/usr/lib/systemd/system/$name.service"
    install -m 644 "deploy/systemd/$name@.service" "$root/usr/lib/systemd/system/$name@.service"
    install -D -m 644 deploy/systemd/sysusers.conf "$root/usr/lib/sysusers.d/$name.conf"
    install -D -m 644 config/monitor.yml "$root/etc/$name/monitor.yml.sample"
    install -d -m 700 "$root/etc/$name/secrets"
}

# Rules, dashboard, runbooks and documents, laid out as in the source: their links and commands hold there too.
put_documents() {
    local each
    install -d "$share" "$root/usr/share/doc/$name"
    while read -r each; do
        install -D -m 644 "$each" "$share/$each"
    done < <(
        find README.md CHANGELOG.md LICENSE config -type f
        find monitor -name '*.md'
        find deploy/README.md deploy/page.png deploy/web-config.yml deploy/alertmanager deploy/grafana deploy/prometheus deploy/runbooks deploy/systemd \
            -type f ! -name '*.pyc'
    )
    install -m 644 deploy/debian/copyright "$root/usr/share/doc/$name/copyright"
    ln -s "../../$name/README.md" "../../$name/CHANGELOG.md" "$root/usr/share/doc/$name/"
}

put_control() {
    local size
    size=$(du --summarize --apparent-size --block-size=1024 "$root" | cut -f 1)
    install -d "$root/DEBIAN"
    sed -e "s|@VERSION@|$debian_version|" -e "s|@ARCHITECTURE@|$architecture|" -e "s|@SIZE@|$size|" \
        -e "s|@PYTHON@|${python##*/}|" -e "s|@MAINTAINER@|${DEBFULLNAME:-$name} <${DEBEMAIL:-root@localhost}>|" \
        deploy/debian/control >"$root/DEBIAN/control"
    install -m 644 deploy/debian/conffiles "$root/DEBIAN/conffiles"
    install -m 755 deploy/debian/preinst deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$root/DEBIAN/"
}

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' monitor/__init__.py)
# 1.0rc1 comes before 1.0, which dpkg is told by a tilde.
debian_version=$(sed -E 's/(a|b|rc|\.dev)([0-9]+)/~\1\2/' <<<"$version")
architecture=$(dpkg --print-architecture)
package=dist/${name}_${debian_version}_$architecture.deb

fetch
rm -rf "$root"
put_environment
put_service
put_documents
put_control
mkdir -p dist
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zzstd --build "$root" "$package" >/dev/null
rm -r "$root"
echo "$package"
