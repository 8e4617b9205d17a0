#!/bin/sh
# Fetches tools that this Debian does not have, or has older: containerd 2.1, cosign 2.5 and 3.1, notation 1.3,
# sigstore-go 1.3, gVisor's runsc.
#
# A private apt (own lists, own cache) asks the machine's own mirror for newer releases; packages are verified with the
# Debian archive keyring that is installed here, downloaded and unpacked beside the tests. Nothing is installed and the
# machine's own apt is not touched. A tool that is already there with a version of at least its minimum is kept.
#
#   .cache/tools/<name>/          the unpacked package (usr/bin/...)
#   .cache/tools/VERSIONS         name, version, sha256 of the .deb, suite
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cache="$root/.cache"
tools="$cache/tools"
apt="$cache/apt"
mkdir -p "$tools" "$apt/debs"
touch "$tools/VERSIONS"

# folder, package, least version, first version that is too new, suites in the order to try. runsc of forky and sid is built
# with a Go that it does not know: it panics at the first call that waits.
wanted='containerd-2.1 containerd 2.1 2.3 sid forky
cosign-2.5 cosign 2.5 3 trixie
cosign-3.1 cosign 3.1 4 sid forky
notation-1.3 notation 1.3 2 sid forky
sigstore-go-1.3 sigstore-go 1.3 2 sid forky
runsc runsc 0.0~2024 1 trixie'

have() { # folder least: unpacked before, complete, new enough, and known by its digest
    line=$(grep "^$1 " "$tools/VERSIONS") || return 1
    version=$(echo "$line" | cut -d' ' -f2)
    [ -f "$tools/$1/.complete" ] && dpkg --compare-versions "$version" ge "$2"
}

missing=$(echo "$wanted" | while read -r folder package least below suites; do
    have "$folder" "$least" || echo "$folder"
done)
if [ -z "$missing" ]; then
    exit 0
fi

. "$root/integration/tools/private-apt.sh"
private_apt fetch-debs "$apt" "$apt/archives" deb trixie forky sid <<'CONF'
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF

echo "$wanted" | while read -r folder package least below suites; do
    have "$folder" "$least" && continue
    # The newest version within the bounds, of the suites named.
    best=
    for suite in $suites; do
        for version in $(private apt-cache madison "$package" | awk -F'|' -v s="$suite/" 'index($3, s) { gsub(/ /, "", $2); print $2 }'); do
            dpkg --compare-versions "$version" ge "$least" || continue
            dpkg --compare-versions "$version" lt "$below" || continue
            if [ -z "$best" ] || dpkg --compare-versions "$version" gt "$best"; then
                best=$version
                from=$suite
            fi
        done
        [ -n "$best" ] && break
    done
    if [ -z "$best" ]; then
        echo "fetch-debs: no $package >= $least and < $below in: $suites ($mirror)" >&2
        exit 1
    fi
    (cd "$apt/debs" && rm -f "${package}"_*.deb && private apt-get -q download "$package=$best")
    deb=$(ls "$apt/debs/${package}"_*.deb)
    digest=$(sha256sum "$deb" | cut -d' ' -f1)
    rm -rf "$tools/$folder" "$tools/$folder.new"
    dpkg-deb -x "$deb" "$tools/$folder.new"
    touch "$tools/$folder.new/.complete"
    mv "$tools/$folder.new" "$tools/$folder"
    grep -v "^$folder " "$tools/VERSIONS" >"$tools/VERSIONS.new" || true
    echo "$folder $best $digest $from" >>"$tools/VERSIONS.new"
    mv "$tools/VERSIONS.new" "$tools/VERSIONS"
    rm -f "$deb"
done
cat "$tools/VERSIONS"
