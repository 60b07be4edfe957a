#!/bin/bash
# A dump of a legal database that pg_restore --exit-on-error cannot restore, and that pg_upgrade fails at after its --check has
# passed: the triggers of a foreign key are switched off in one partition (`ALTER TABLE part DISABLE TRIGGER ALL`, as is done for
# loading rows). pg_dump says so of that partition, and names the trigger that the server has made, RI_ConstraintTrigger_c_ and
# its number; in the new database it has another one. Of a table that is no partition, pg_dump says nothing of the kind.
#
# Seen with PostgreSQL 17.12. Expected by memory: dumps do not speak of triggers that the server makes for keys.
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
numbers() { sed -E 's/_[0-9]+"/_N"/'; }
as $bin/initdb -D /tmp/old --locale=C -U postgres >/log 2>&1
as $bin/initdb -D /tmp/new --locale=C -U postgres >/log 2>&1
as $bin/pg_ctl -D /tmp/old -o '-k /tmp -p 6017' -l /tmp/server.log -w start >/log
sql() { as psql -h /tmp -p 6017 -XAtqc "$2" -d "$1"; }
sql postgres 'SHOW server_version'
sql postgres 'CREATE DATABASE homeserver'
sql postgres 'CREATE DATABASE again'
sql homeserver 'CREATE TABLE rooms (id int PRIMARY KEY);
    CREATE TABLE plain (room int REFERENCES rooms); ALTER TABLE plain DISABLE TRIGGER ALL;
    CREATE TABLE events (room int REFERENCES rooms) PARTITION BY LIST (room); CREATE TABLE part PARTITION OF events DEFAULT;
    ALTER TABLE part DISABLE TRIGGER ALL'
as pg_dump -h /tmp -p 6017 -Fc -f /tmp/dump homeserver
as pg_restore -f - /tmp/dump | grep 'TRIGGER "RI' | sort -u | numbers | uniq
as pg_restore -h /tmp -p 6017 --exit-on-error -d again /tmp/dump 2>/log && status=0 || status=$?
echo "pg_restore --exit-on-error: exit status $status, it says: $(sed -n 's/.*\(ERROR: .*\)/\1/p' /log | numbers)"
as $bin/pg_ctl -D /tmp/old -w stop >/log
upgrade() { as $bin/pg_upgrade -b $bin -B $bin -d /tmp/old -D /tmp/new -U postgres "$@" >/log 2>&1; }
upgrade --check && status=0 || status=$?
echo "pg_upgrade --check: exit status $status, it says: $(grep compatible /log)"
upgrade && status=0 || status=$?
echo "pg_upgrade: exit status $status, it says: $(grep -h ' ERROR: ' /tmp/new/pg_upgrade_output.d/*/log/* | sed 's/.*\(ERROR: .*\)/\1/' | head -n 1 | numbers)"
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='17.12 (Debian 17.12-0+deb13u1)
ALTER TABLE public.part DISABLE TRIGGER "RI_ConstraintTrigger_c_N";
pg_restore --exit-on-error: exit status 1, it says: ERROR:  trigger "RI_ConstraintTrigger_c_N" for table "part" does not exist
pg_upgrade --check: exit status 0, it says: *Clusters are compatible*
pg_upgrade: exit status 1, it says: ERROR:  trigger "RI_ConstraintTrigger_c_N" for table "part" does not exist'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
