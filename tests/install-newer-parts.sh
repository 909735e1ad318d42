#!/usr/bin/env bash
# Fetches Prometheus and Alertmanager as Debian's unstable suite has them into .newer/, for the tests that try our
# rules on a newer Prometheus than this Debian's own. Nothing is installed; the mirror is the machine's own.
# Where that cannot be done it says so and goes on: those tests are then skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/.newer
packages=(prometheus promtool prometheus-alertmanager)
go_on() {
    echo "no newer Prometheus for the tests ($1); they are skipped without it" >&2
    rm -rf "$folder"
    exit 0
}
[ ! -x "$folder/usr/bin/prometheus" ] || exit 0
command -v apt-get >/dev/null || go_on "there is no apt-get to fetch it with"
mirror=$(apt-get indextargets 'Created-By: Packages' 'Label: Debian' --format '$(REPO_URI)' | head -n 1)
[ -n "$mirror" ] || go_on "apt knows no mirror of Debian"

rm -rf "$folder"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$folder/apt/sources.list"
options=(
    --quiet=2 -o "Dir::Etc::SourceList=$folder/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt" -o "Dir::Cache::Archives=$folder/apt/archives"
    -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none
)
echo "fetching for the tests with a newer Prometheus: ${packages[*]}"
apt-get "${options[@]}" update || go_on "apt-get update failed"
(cd "$folder/apt" && apt-get "${options[@]}" download "${packages[@]}") || go_on "apt-get download failed"
for package in "$folder"/apt/*.deb; do
    dpkg-deb --extract "$package" "$folder"
done
rm -rf "$folder/apt"
"$folder/usr/bin/prometheus" --version >/dev/null 2>&1 || go_on "it does not run here"
