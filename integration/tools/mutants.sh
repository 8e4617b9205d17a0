#!/bin/sh
# Changes the code that decides, one spot at a time, and demands that a unit test of its crate notices (cargo-mutants,
# built once into .cache/tools). See integration/mutants/README.md.
#
#   mutants.sh [PART..]           seal, rules, policy, mounts; without words all. Goes on where it was ended.
#   mutants.sh --fresh [PART..]   forgets what was found before
#   mutants.sh --list [PART..]    names the mutants and tries none
#   mutants.sh --summary [PART..] what was found so far
#
# MUTANTS_SHARD=0/4 tries a quarter of each part; shards may run at the same time.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
version=27.1.0
bin="$root/.cache/tools/cargo-mutants-$version/bin/cargo-mutants"
home="$root/target/mutants"
survivors=integration/mutants/survivors.txt
least=95
tab=$(printf '\t')

# What is mutated, and the tests that have to notice: those of its own crate.
part() {
    case $1 in
    seal) set -- --package boltseal-seal ;;
    rules)
        set -- --package boltseal-policy
        for file in 'rules/*' decide terms verdict standard pattern network; do
            set -- "$@" --file "runtime/policy/src/$file.rs"
        done
        ;;
    policy)
        # Not the fixture either: no program has it.
        set -- --package boltseal-policy
        for file in 'rules/*' decide terms verdict standard pattern network fixture; do
            set -- "$@" --exclude "runtime/policy/src/$file.rs"
        done
        ;;
    mounts)
        set -- --package boltseal-evidence --cargo-arg=--test=private_mounts
        for file in mounts origin sensitive overlay mountinfo rootfs spec_facts/mount; do
            set -- "$@" --file "runtime/evidence/src/$file.rs"
        done
        ;;
    *)
        echo "mutants.sh: no part $1; there are seal, rules, policy, mounts" >&2
        exit 2
        ;;
    esac
    echo "$*"
}

mutants() {
    part=$1
    shift
    # No word of `part` holds a space, and its patterns are not the shell's.
    # shellcheck disable=SC2046
    (
        set -f
        "$bin" mutants --config integration/mutants/mutants.toml --colors never --cargo-arg=--lib $(part "$part") "$@"
    )
}

# The files of the mutants in `list`, each with the sum of its code, without the tests below it: what was found about its
# mutants counts until that changes.
codes() {
    cut -d: -f1 "$1" | sort -u | while IFS= read -r file; do
        echo "$file$tab$(sed '/^#\[cfg(test)\]/,$d' "$file" | sha256sum | cut -c1-16)"
    done
}

# What a run in that folder found, one line each: outcome, code that was mutated, name.
found() {
    for outcome in caught missed timeout unviable; do
        [ -f "$1/mutants.out/$outcome.txt" ] || continue
        awk -F '\t' -v outcome=$outcome '
            FILENAME ~ /codes$/ { code[$1] = $2; next }
            { file = $0; sub(/:.*/, "", file); print outcome "\t" code[file] "\t" $0 }
        ' "$1/codes" "$1/mutants.out/$outcome.txt"
    done
}

# Keeps it. Of two lines about one mutant the later counts.
collect() {
    found "$1" >>"$1/../outcomes"
    rm -rf "$1/mutants.out" "$1/mutants.out.old" "$1/tmp"
}

# What is known of a part's mutants as they are now: outcome, name; `untried` where nothing is. Who ran into the time limit
# once may have met a busy machine: that counts from the second time on. Leaves `list`, `codes` and `found` in the second folder.
known() {
    mutants "$1" --list >"$2/list"
    codes "$2/list" >"$2/codes"
    {
        cat "$home/$1/outcomes"
        for run in "$home/$1"/*/; do found "$run"; done
    } >"$2/found"
    awk -F '\t' '
        FILENAME ~ /codes$/ { code[$1] = $2; next }
        FILENAME ~ /found$/ { file = $3; sub(/:.*/, "", file); if (code[file] == $2) { found[$3] = $1; if ($1 == "timeout") slow[$3]++ } next }
        { print ((($0 in found) && (found[$0] != "timeout" || slow[$0] > 1)) ? found[$0] : "untried") "\t" $0 }
    ' "$2/codes" "$2/found" "$2/list"
}

# Tries what is not known to be caught; as a second argument, `untried` or `missed|untried`. What it says is a line for each
# 25 mutants and for each that survives.
try() {
    name=$1
    which=$2
    shard=${MUTANTS_SHARD:-all}
    here="$home/$name/$(echo "$shard" | tr / -)"
    mkdir -p "$here"
    collect "$here"
    known "$name" "$here" >"$here/known"
    total=$(grep -cE "^($which)" "$here/known" || :)
    [ "$total" -gt 0 ] || return 0
    mkdir -p "$here/mutants.out" "$here/tmp"
    grep -vE "^($which)" "$here/known" | cut -f2 >"$here/mutants.out/previously_caught.txt" || :
    echo "$name: $total to try${MUTANTS_SHARD:+, in shards; this is $shard}"
    {
        code=0
        # Its own target folder, which stays: the next run starts warm. That a generated case fails is enough to know.
        CARGO_TARGET_DIR="$here/build" CARGO_PROFILE_DEV_DEBUG=0 TMPDIR="$here/tmp" PROPTEST_MAX_SHRINK_ITERS=0 \
            mutants "$name" ${MUTANTS_SHARD:+--shard="$shard"} --iterate --output "$here" --caught --unviable 2>&1 || code=$?
        echo $code >"$here/code"
    } | awk -v part="$name" -v total="$total" '
        /^(caught|unviable|MISSED|TIMEOUT) / { n++; if (n % 25 == 0) print part ": " n " of " total }
        !/^(caught|unviable|Found|ok) / { print part ": " $0 }
        { fflush() }
    '
    case $(cat "$here/code") in
    0 | 2 | 3) ;; # 2 and 3: some survived, or ran into the time limit
    *)
        echo "mutants.sh: cargo-mutants failed on $name; see $here/mutants.out/log" >&2
        exit 3
        ;;
    esac
    collect "$here"
}

# Compares the survivors with the list, in which each stands once for each time that it survives: a line is
# `file: what is changed # why no test can notice`, without the place in the file.
summary() {
    mkdir -p "$home/summary"
    for part in "$@"; do known "$part" "$home/summary"; done >"$home/all"
    awk -F '\t' -v least=$least -v shard="${MUTANTS_SHARD:-}" '
        FILENAME !~ /all$/ {
            if ($0 !~ /^(#|$)/) { line = $0; sub(/ +# .*/, "", line); listed[line]++; if ($0 !~ / # ./) { print "no reason: " line; bad = 1 } }
            next
        }
        $1 == "untried" { untried++; next }
        $1 == "unviable" { next }
        { tried++ }
        $1 != "missed" { caught++; next }
        {
            line = $2
            sub(/:[0-9]+:[0-9]+/, "", line)
            if (listed[line]-- > 0) known++
            else { unknown++; print "not listed: " $2 }
        }
        END {
            percent = tried ? 100 * caught / tried : 0
            if (untried) print untried " not tried"
            printf "mutants: %d tried, %d caught (%.1f %%), %d survivors listed, %d not listed\n", tried, caught, percent, known, unknown
            exit bad || percent < least || unknown > 0 || (untried && shard == "")
        }
    ' "$survivors" "$home/all"
}

what=run
case ${1:-} in
--fresh | --list | --summary)
    what=${1#--}
    shift
    ;;
-*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac
[ $# -gt 0 ] || set -- seal rules mounts policy
for part in "$@"; do part "$part" >/dev/null; done

if [ ! -x "$bin" ]; then
    echo "building cargo-mutants $version, once" >&2
    (cd / && CARGO_TARGET_DIR="$root/.cache/cargo-mutants" cargo install --quiet --locked \
        --profile dev --version "$version" --root "$root/.cache/tools/cargo-mutants-$version" cargo-mutants)
    rm -rf "$root/.cache/cargo-mutants"
fi
for part in "$@"; do
    [ $what != fresh ] || rm -rf "${home:?}/$part"
    mkdir -p "$home/$part"
    touch "$home/$part/outcomes"
done
case $what in
list) for part in "$@"; do mutants "$part" --list; done ;;
summary) summary "$@" ;;
*)
    for part in "$@"; do
        try "$part" 'missed|untried'
        [ -n "${MUTANTS_SHARD:-}" ] || try "$part" untried
    done
    summary "$@"
    ;;
esac
