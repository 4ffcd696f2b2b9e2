#!/bin/sh
# Prints the path of Chromium; installs Debian's package on first use where this is allowed.
#
#   scripts/browser.sh where
#
# Exits with 3 if there is none and it cannot be installed.
set -eu

case "${1:-}" in
where) ;;
*)
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
for program in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$program" ] && command -v "$program" >/dev/null; then
        command -v "$program"
        exit 0
    fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "browser.sh: there is no Chromium, and only root can install Debian's (apt-get install chromium)" >&2
    exit 3
fi
echo "browser.sh: installing Debian's package chromium" >&2
log=$(mktemp)
install() { DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install chromium >"$log" 2>&1; }
# A fresh container has no lists of packages.
install || { apt-get -q update >"$log" 2>&1 && install; } || {
    echo "browser.sh: apt-get failed: $(tail -n 1 "$log")" >&2
    exit 3
}
command -v chromium
