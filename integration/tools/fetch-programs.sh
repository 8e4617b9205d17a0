#!/bin/sh
# Makes the images' layers of `make test-programs` out of Debian packages: each program with all that it depends on, unpacked
# beside the tests and packed as one layer. Nothing is installed; run again, it is quick: what is there is kept by version.
#
#   .cache/programs/<name>.tar.gz     the layer
#   .cache/programs/<name>.packages   package, version and sha256 of each .deb in it
#   .cache/programs/debs/             the packages as they were downloaded
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cache="$root/.cache/programs"
files="$root/integration/tests/programs/files"
apt="$cache/apt"
suite=trixie
mkdir -p "$cache/debs"

# Layer, and the packages in it; what those depend on comes along. dash and coreutils, where a shell starts the program.
wanted='nginx nginx-light
redis redis-server
postgres postgresql dash coreutils
jvm openjdk-21-jre-headless
node nodejs
python python3-minimal python3-grpcio
go docker-registry
exporter prometheus-node-exporter
istio iptables dash
musl musl
static busybox-static'

# Raised by whoever changes how a layer is made.
recipe=1

key() { # of a layer: recipe, packages, and the files that are laid over them
    { echo "$recipe $suite $2"; find "$files/$1" -type f -exec sha256sum {} + 2>/dev/null | sed "s|$root||" | sort; } |
        sha256sum | cut -d' ' -f1
}

missing=$(echo "$wanted" | while read -r name packages; do
    [ -f "$cache/$name.tar.gz" ] && [ "$(cat "$cache/$name.key" 2>/dev/null)" = "$(key "$name" "$packages")" ] || echo "$name"
done)
if [ -z "$missing" ]; then
    exit 0
fi

. "$root/integration/tools/private-apt.sh"
private_apt fetch-programs "$apt" "$cache/debs" 'deb deb-src' "$suite" <<'CONF'
APT::Install-Recommends "false";
APT::Keep-Downloaded-Packages "true";
CONF

# Packages that set a system up and are no part of a program that is started by itself.
skip=' adduser debconf dpkg init-system-helpers sysvinit-utils systemd systemd-sysv perl perl-base perl-modules-5.40 libperl5.40 logrotate cron passwd ucf sensible-utils '

layer() { # name packages..
    name=$1
    shift
    tree="$cache/$name.tree"
    rm -rf "$tree"
    mkdir -p "$tree"
    for folder in bin sbin lib lib64; do
        mkdir -p "$tree/usr/$folder"
        ln -s "usr/$folder" "$tree/$folder"
    done
    : >"$cache/$name.packages.new"
    private apt-get -q -y --download-only install "$@" </dev/null >"$cache/$name.log" 2>&1 || { cat "$cache/$name.log" >&2; return 1; }
    private apt-get -q -y --print-uris --no-download install "$@" >"$cache/$name.uris" 2>/dev/null || true
    private apt-get -q -s install "$@" | sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1 \2/p' | while read -r package version; do
        case $skip in *" $package "*) continue ;; esac
        escaped=$(echo "$version" | sed 's/:/%3a/')
        deb=$(ls "$cache/debs/${package}_${escaped}"_*.deb)
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tree" --keep-directory-symlink --no-same-owner \
            --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./usr/share/lintian
        echo "$package $version $(sha256sum "$deb" | cut -d' ' -f1)" >>"$cache/$name.packages.new"
    done
    over "$name" "$tree"
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=posix \
        --pax-option=delete=atime,delete=ctime -cf "$cache/$name.tar" -C "$tree" .
    gzip -n -f -1 "$cache/$name.tar"
    rm -rf "$tree" "$cache/$name.uris" "$cache/$name.log"
    mv "$cache/$name.packages.new" "$cache/$name.packages"
}

# What an image has beside its packages: names of users, mount points, our own small files.
over() {
    mkdir -p "$2/etc" "$2/proc" "$2/sys" "$2/dev" "$2/tmp" "$2/run" "$2/data" "$2/srv"
    chmod 1777 "$2/tmp"
    printf 'root:x:0:0::/:\napp:x:65532:65532::/data:\n' >"$2/etc/passwd"
    printf 'root:x:0:\napp:x:65532:\n' >"$2/etc/group"
    if [ -d "$files/$1" ]; then
        cp -R "$files/$1/." "$2/"
    fi
    case $1 in
    postgres) ln -sf dash "$2/bin/sh" ;;
    istio) ln -sf dash "$2/bin/sh"; ln -sf xtables-legacy-multi "$2/usr/sbin/iptables" ;;
    static) for applet in sh httpd tail cat; do ln -sf busybox "$2/bin/$applet"; done ;;
    musl) civetweb "$2" ;;
    esac
}

# No package of Debian's is linked against musl: civetweb, by musl-gcc from Debian's source. Its loader is the one of Debian's
# package musl, in the image. (--tar-only: the tar by its digest in the signed list of sources.)
civetweb() {
    source="$cache/source"
    rm -rf "$source"
    mkdir -p "$source"
    (cd "$source" && private apt-get -q --tar-only --download-only source civetweb >/dev/null && tar -xf civetweb_*.orig.tar.*)
    (cd "$source"/civetweb-* && musl-gcc -O2 -w -DNO_SSL -DNO_CGI -DNDEBUG -Iinclude -o "$1/usr/bin/civetweb" src/main.c src/civetweb.c -lpthread)
    rm -rf "$source"
}

echo "$wanted" | while read -r name packages; do
    echo "$missing" | grep -qx "$name" || continue
    # shellcheck disable=SC2086
    layer "$name" $packages
    key "$name" "$packages" >"$cache/$name.key"
    echo "programs: $name, $(wc -l <"$cache/$name.packages") packages, $(du -h "$cache/$name.tar.gz" | cut -f1)"
done
