# Read by other scripts (`. private-apt.sh`): an apt with lists and cache of its own. It asks the machine's own mirror for any
# release, verifies with the Debian archive keyring that is installed here, and touches nothing of the machine's own apt.

# private_apt WHO FOLDER ARCHIVES KINDS SUITE..: lists and state in FOLDER, packages in ARCHIVES; KINDS as "deb deb-src".
# Sets $mirror and $keyring. More lines for its configuration come on stdin.
private_apt() {
    apt_who=$1 apt_folder=$2 apt_archives=$3 apt_kinds=$4
    shift 4
    # The mirror that the machine itself uses for Debian's main archive.
    mirror=$(apt-get indextargets --format '$(SITE) $(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
        awk '$2 !~ /security|backports|google|nodesource/ && $2 ~ /debian/ { print $2; exit }')
    if [ -z "$mirror" ]; then
        echo "$apt_who: apt knows no mirror of Debian. Fix: apt-get update" >&2
        return 1
    fi
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ ! -s "$keyring" ]; then
        echo "$apt_who: $keyring is missing. Fix: apt-get install debian-archive-keyring" >&2
        return 1
    fi
    mkdir -p "$apt_folder/lists/partial" "$apt_folder/archives/partial" "$apt_folder/none" "$apt_archives/partial"
    # No package counts as installed, so that every dependency is fetched.
    : >"$apt_folder/status"
    for apt_suite in "$@"; do
        for apt_kind in $apt_kinds; do
            echo "$apt_kind [arch=amd64 signed-by=$keyring] $mirror $apt_suite main"
        done
    done >"$apt_folder/sources.list"
    {
        cat <<CONF
Dir::State "$apt_folder";
Dir::State::lists "$apt_folder/lists";
Dir::State::status "$apt_folder/status";
Dir::Cache "$apt_folder";
Dir::Cache::archives "$apt_archives";
Dir::Etc::sourcelist "$apt_folder/sources.list";
Dir::Etc::sourceparts "$apt_folder/none";
Dir::Etc::preferencesparts "$apt_folder/none";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "$apt_folder/none";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Update::Post-Invoke "";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
        cat
    } >"$apt_folder/apt.conf"
    private apt-get -q update
}

# A tool of the machine's apt, with that configuration read last.
private() {
    apt_tool=$1
    shift
    APT_CONFIG="$apt_folder/apt.conf" "$apt_tool" "$@"
}
