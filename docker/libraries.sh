#!/bin/sh
# Copies the libraries of Debian that files are linked with into a folder, which becomes the root of an image, and the records of
# their packages, where scanners look for them in images without a package manager.
#
#   docker/libraries.sh FOLDER FILE…
set -eu
folder=$1
shift
# A library that is not found comes with the files themselves, or with the driver of the GPU.
ldd "$@" | sed -n 's/^\t\(.* => \)\{0,1\}\(\/[^ ]*\) .*/\2/p' | grep -E '^(/usr)?/lib' | sort -u | while read -r library; do
    install -D "$library" "$folder/usr/${library#/usr}"
    # Debian's records have the paths of before the merge of /lib into /usr/lib.
    package=$(dpkg-query -S "*/$(basename "$(readlink -f "$library")")" | head -n 1 | cut -d : -f 1)
    records=$folder/var/lib/dpkg/status.d
    [ ! -e "$records/$package" ] || continue
    mkdir -p "$records" "$folder/usr/share/doc/$package"
    dpkg-query -s "$package" >"$records/$package"
    # Some base images leave these files out.
    cp "/usr/share/doc/$package/copyright" "$folder/usr/share/doc/$package/" 2>/dev/null || true
done
