#!/bin/bash
# pg_dump and pg_restore with --data-only --disable-triggers, which by the manual "temporarily disable triggers on the target
# tables", leave every trigger of these tables switched on: one that was off (DISABLE) fires from then on, and ENABLE ALWAYS and
# ENABLE REPLICA are gone. It is so where the definitions were restored from the same dump a moment before, with the right
# states, and where rows are loaded into the database that they came from. Both programs end with 0 and say nothing. They write
# "ENABLE TRIGGER ALL", which is not the contrary of "DISABLE TRIGGER ALL" unless all were plainly enabled.
#
# Seen with PostgreSQL 17.12. Expected by memory: definitions first and rows afterwards make the same database as both in one.
set -euo pipefail

packages=(postgresql-17=17.12-0+deb13u1)
work=$(mktemp -d)
trap 'umount --quiet --recursive "$work/root/proc" || true; rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
{
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror%/}-security trixie-security main"
} >"$work/sources.list"
apt-config dump --no-empty --format '%f "%v";%n' Acquire::http Acquire::https Acquire::Check-Valid-Until Acquire::Check-Date |
    sed '/^$/d' >"$work/apt.conf"
echo 'create_main_cluster = false' >"$work/createcluster.conf"
mmdebstrap --variant=minbase --mode=root --quiet --include="$(IFS=,; echo "${packages[*]}")" --aptopt="$work/apt.conf" \
    --essential-hook="install -D -m 0644 -t \"\$1/etc/postgresql-common\" $work/createcluster.conf" \
    trixie "$work/root" "$work/sources.list"

cat >"$work/root/try" <<'END'
set -euo pipefail
cd /tmp
bin=/usr/lib/postgresql/17/bin
as() { runuser -u postgres -- "$@"; }
sql() { as psql -h /tmp -p 6017 -XAtqc "$2" -d "$1"; }
as $bin/initdb -D /tmp/data --locale=C -U postgres >/log 2>&1
as $bin/pg_ctl -D /tmp/data -o "-h '' -k /tmp -p 6017" -l /tmp/server.log -w start >/log
sql postgres 'SHOW server_version'
for database in homeserver once twice; do sql postgres "CREATE DATABASE $database"; done
sql homeserver "CREATE TABLE rooms (id int, fired text DEFAULT '');
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN NEW.fired := NEW.fired || '' '' || TG_NAME; RETURN NEW; END';
    CREATE TRIGGER always BEFORE UPDATE ON rooms FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER off BEFORE UPDATE ON rooms FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER plain BEFORE UPDATE ON rooms FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER replica BEFORE UPDATE ON rooms FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE rooms ENABLE ALWAYS TRIGGER always, DISABLE TRIGGER off, ENABLE REPLICA TRIGGER replica;
    INSERT INTO rooms VALUES (1)"
states() {
    echo "$1: $(sql "$1" "SELECT string_agg(tgname || '=' || tgenabled::text, ', ' ORDER BY tgname) FROM pg_trigger" |
        sed 's/=A/ ALWAYS/; s/=D/ DISABLED/; s/=R/ REPLICA/; s/=O/ enabled/g')"
    echo "an update in $1 fires:$(sql "$1" 'BEGIN; UPDATE rooms SET id = 1 RETURNING fired; ROLLBACK')"
}
states homeserver
as pg_dump -h /tmp -p 6017 -Fc -f /tmp/dump homeserver
as pg_restore -h /tmp -p 6017 --exit-on-error -d once /tmp/dump
states once
as pg_restore -h /tmp -p 6017 --exit-on-error --schema-only -d twice /tmp/dump
as pg_restore -h /tmp -p 6017 --exit-on-error --data-only --disable-triggers -d twice /tmp/dump 2>&1 &&
    echo 'definitions first, then rows: exit status 0'
states twice
as pg_dump -h /tmp -p 6017 --data-only --disable-triggers -f /tmp/rows homeserver
grep TRIGGER /tmp/rows
sql homeserver 'DELETE FROM rooms'
as psql -h /tmp -p 6017 -Xq -v ON_ERROR_STOP=1 -f /tmp/rows -d homeserver >/log &&
    echo 'rows into where they came from: exit status 0'
states homeserver
as $bin/pg_ctl -D /tmp/data -w stop >/log
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='17.12 (Debian 17.12-0+deb13u1)
homeserver: always ALWAYS, off DISABLED, plain enabled, replica REPLICA
an update in homeserver fires: always plain
once: always ALWAYS, off DISABLED, plain enabled, replica REPLICA
an update in once fires: always plain
definitions first, then rows: exit status 0
twice: always enabled, off enabled, plain enabled, replica enabled
an update in twice fires: always off plain replica
ALTER TABLE public.rooms DISABLE TRIGGER ALL;
ALTER TABLE public.rooms ENABLE TRIGGER ALL;
rows into where they came from: exit status 0
homeserver: always enabled, off enabled, plain enabled, replica enabled
an update in homeserver fires: always off plain replica'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
