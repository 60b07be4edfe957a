#!/bin/bash
# vacuumdb --all --analyze-in-stages, the command that pg_upgrade tells users to run afterwards, ends at the first table that
# cannot be analyzed, in the first of its three stages: every database that comes later by name has no statistics at all.
# One legal table is enough: one that a foreign table inherits from whose wrapper has no handler, as after a move to a machine
# without the wrapper's library. (--skip-… options name no such tables, and there is no option to go on.)
#
# Seen with PostgreSQL 17.12. Expected by memory: every database is gone through, and a failure is told at the end.
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
cd /
pg_createcluster 17 main --locale C.UTF-8 --port 6001 --start >/dev/null
sql() { runuser -u postgres -- psql -p 6001 -XAtqc "$2" -d "$1"; }
sql postgres 'ALTER SYSTEM SET autovacuum = off'
sql postgres 'SELECT pg_reload_conf()' >/dev/null
for database in a_bridge homeserver; do
    sql postgres "CREATE DATABASE $database"
    sql "$database" 'CREATE TABLE messages AS SELECT n AS id FROM generate_series(1, 1000) n'
done
sql a_bridge 'CREATE FOREIGN DATA WRAPPER elsewhere;
    CREATE SERVER archive FOREIGN DATA WRAPPER elsewhere;
    CREATE TABLE archived (id int); CREATE FOREIGN TABLE far () INHERITS (archived) SERVER archive'
sql postgres 'SHOW server_version'
runuser -u postgres -- vacuumdb -p 6001 --all --analyze-in-stages >/log 2>&1 && status=0 || status=$?
grep ': error:' /log
echo "exit status $status; stages begun: $(grep -c 'minimal\|medium\|default' /log)"
echo "homeserver: $(sql homeserver "SELECT count(*) FROM pg_stats WHERE tablename = 'messages'") columns with statistics"
pg_ctlcluster 17 main stop
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='17.12 (Debian 17.12-0+deb13u1)
vacuumdb: error: processing of database "a_bridge" failed: ERROR:  foreign-data wrapper "elsewhere" has no handler
exit status 1; stages begun: 1
homeserver: 0 columns with statistics'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
