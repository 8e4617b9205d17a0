#!/bin/sh
# Runs cargo-deny, built once into .cache/tools. Reads deny.toml.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
version=0.20.2
bin="$root/.cache/tools/cargo-deny-$version/bin/cargo-deny"
if [ ! -x "$bin" ]; then
    echo "building cargo-deny $version, once" >&2
    # The machine's own target: it is a tool, not part of what is shipped.
    (cd / && CARGO_TARGET_DIR="$root/.cache/cargo-deny" cargo install --quiet --locked \
        --profile dev --version "$version" --root "$root/.cache/tools/cargo-deny-$version" cargo-deny)
    rm -rf "$root/.cache/cargo-deny"
fi
cd "$root"
# `--offline` comes before the command.
offline=
if [ "${1:-}" = --offline ]; then
    offline=--offline
    shift
fi
# shellcheck disable=SC2086
exec "$bin" $offline "$@"
