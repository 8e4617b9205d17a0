#!/bin/sh
# A cluster of its own in the volume, then the server in this process's place.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
[ -e /data/pg/PG_VERSION ] || "$bin/initdb" -D /data/pg -U app --auth=trust --locale=C.UTF-8
exec "$bin/postgres" -D /data/pg -h '*' -k /tmp
