#!/bin/sh
# Installs the Debian packages of packages.txt that are missing, where there is apt and we are root: in CI. Anywhere else it
# does nothing, and tests that need them skip. Called by `make system-packages`, and so by `make test`.
set -eu
cd "$(dirname "$0")"
missing=""
for package in $(sed 's/#.*//' packages.txt); do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || state=""
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, so some tests will be skipped:$missing"
    exit 0
fi
echo "installing for tests:$missing"
export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086 # a list
    apt-get -o DPkg::Lock::Timeout=120 install --quiet=2 --yes --no-install-recommends $missing >/dev/null
}
# The lists of packages may be missing or old.
install 2>/dev/null || { apt-get update --quiet=2 >/dev/null && install; } || {
    echo "apt-get failed, so some tests will be skipped:$missing" >&2
    [ -z "${CI:-}" ]
}
