#!/bin/sh
# Downloads a package of Debian and unpacks it into a folder without installing it, so that no root is needed.
#
#   scripts/debian.sh unpack PACKAGE FOLDER
#
# Exits with 3 if there is no apt to download it with.
set -eu

say() { echo "debian.sh: $*" >&2; }

unpack() {
    package=$1 target=$2
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        say "there is no apt to download $package with"
        exit 3
    fi
    say "fetching Debian's package $package"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # apt drops its rights to _apt for a download, and that user must reach the folder.
    chmod 755 "$folder"
    download() { (cd "$folder" && apt-get -q download "$package") >"$folder/log" 2>&1; }
    if ! download; then
        # A fresh container has no lists of packages, and only root can fetch them.
        [ "$(id -u)" = 0 ] && apt-get -q update >"$folder/log" 2>&1
        download || { say "apt-get failed: $(tail -n 1 "$folder/log")"; exit 1; }
    fi
    rm -rf "$target" "$target.partial"
    mkdir -p "$(dirname "$target")"
    dpkg-deb --extract "$folder/$package"_*.deb "$target.partial"
    mv "$target.partial" "$target"
}

case "${1:-} $#" in
"unpack 3") unpack "$2" "$3" ;;
*)
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
