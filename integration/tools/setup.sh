#!/bin/sh
# Brings a Debian machine with a Rust toolchain to where everything here builds and runs. Run again, it is quick: what is
# there is kept. Needs root for the packages.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

# Why each: musl-tools (C compiler of ring for static musl), protobuf-compiler (gRPC bindings), containerd and runc (the
# other side, and what the bench compares with), crun (another peer of test-escape and the probe), binutils (strip, for small
# images), containernetworking-plugins (pods of the CRI), docker-registry, skopeo and busybox-static (images), swtpm and
# swtpm-tools (the test node's TPM), util-linux, iproute2, mount (the private machine), debian-archive-keyring and
# ca-certificates (newer packages, verified), openssl and cpio (the other side of what the tests make), erofs-utils, zstd (sealed images) and cryptsetup-bin (veritysetup: their trees, side by side).
packages='musl-tools protobuf-compiler containerd runc crun binutils containernetworking-plugins docker-registry skopeo busybox-static
swtpm swtpm-tools util-linux iproute2 mount procps tar gzip openssl cpio debian-archive-keyring ca-certificates
erofs-utils zstd cryptsetup-bin'

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "setup: installing$missing"
    # Services of these packages are not wanted: each test runs its own, in its own corner.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    # shellcheck disable=SC2086
    install() { DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing </dev/null; }
    install || { apt-get -q update && install; }
fi

# rust-toolchain.toml names the toolchain, its components and the target; rustup fetches what is missing.
target=x86_64-unknown-linux-musl
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    command -v rustup >/dev/null || { echo "setup: the Rust target $target is missing and there is no rustup" >&2; exit 1; }
    rustup target add "$target"
fi
for tool in rustfmt clippy-driver; do
    "$tool" --version >/dev/null 2>&1 || rustup component add clippy rustfmt
done

integration/tools/fetch-debs.sh
