#!/bin/sh
# Fetches tools that are newer than this Debian: containerd 2.1, cosign 2.5 and 3.1, gVisor's runsc.
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
mkdir -p "$tools" "$apt/lists/partial" "$apt/archives/partial" "$apt/debs" "$apt/none"
touch "$tools/VERSIONS" "$apt/status"

# folder, package, least version, first version that is too new, suites in the order to try. runsc of forky and sid is built
# with a Go that it does not know: it panics at the first call that waits.
wanted='containerd-2.1 containerd 2.1 2.3 sid forky
cosign-2.5 cosign 2.5 3 trixie
cosign-3.1 cosign 3.1 4 sid forky
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

# The mirror that the machine itself uses for Debian's main archive.
mirror=$(apt-get indextargets --format '$(SITE) $(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 !~ /security|backports|google|nodesource/ && $2 ~ /debian/ { print $2; exit }')
if [ -z "$mirror" ]; then
    echo 'fetch-debs: apt knows no mirror of Debian. Fix: apt-get update' >&2
    exit 1
fi

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ ! -s "$keyring" ]; then
    echo "fetch-debs: $keyring is missing. Fix: apt-get install debian-archive-keyring" >&2
    exit 1
fi
for suite in trixie forky sid; do
    echo "deb [arch=amd64 signed-by=$keyring] $mirror $suite main"
done >"$apt/sources.list"

cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/none";
Dir::Etc::preferencesparts "$apt/none";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "$apt/none";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Update::Post-Invoke "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
CONF
# apt-get of the machine, with our configuration read last.
private() {
    tool=$1
    shift
    APT_CONFIG="$apt/apt.conf" "$tool" "$@"
}

private apt-get -q update

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
