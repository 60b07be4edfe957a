#!/bin/bash
# A byte of a full backup changes on its disk. pg_combinebackup joins it with an incremental one, ends with 0, and writes a new
# backup_manifest with a checksum of the damaged file: pg_verifybackup, which finds the damage in the full backup, says of what
# was made of it "backup successfully verified". The server that is started on it cannot read the table. It is so where some
# pages of a table were changed between the two backups; a file without any changed page keeps its old checksum, and the same
# damage in it is found.
#
# Seen with PostgreSQL 17.12. Expected by memory: the files that are read are compared with the manifests that they came with,
# or at least the result of damaged input is not called verified.
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
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /tmp
bin=/usr/lib/postgresql/17/bin
as() { runuser -u postgres -- "$@"; }
start() { as $bin/pg_ctl -D "$1" -o '-k /tmp -p 6017' -l /tmp/server.log -w start >/log; }
sql() { as psql -h /tmp -p 6017 -XAtqc "$1" -d postgres; }
copy() { as $bin/pg_basebackup -h /tmp -p 6017 --checkpoint=fast "$@"; }
verify() { as $bin/pg_verifybackup "$1" 2>&1 | sed "s,$table,TABLE,; s,^pg_verifybackup: ,," || true; }
as $bin/initdb -D /tmp/data --locale=C -U postgres --data-checksums >/log 2>&1
echo 'summarize_wal = on' >>/tmp/data/postgresql.conf
start /tmp/data
sql 'SHOW server_version'
sql 'CREATE TABLE changed AS SELECT n id FROM generate_series(1, 100000) n'
sql 'CREATE TABLE unchanged AS TABLE changed'
sql 'VACUUM (FREEZE)'
sql 'CHECKPOINT'
copy -D /tmp/full
sql 'UPDATE changed SET id = 0 WHERE id = 1'
copy -D /tmp/incremental --incremental=/tmp/full/backup_manifest
files=$(sql "SELECT oid::regclass || '=' || pg_relation_filepath(oid) FROM pg_class WHERE relname IN ('changed', 'unchanged') ORDER BY 1")
as $bin/pg_ctl -D /tmp/data stop >/log
for pair in $files; do
    table=${pair#*=}
    as cp -a /tmp/full /tmp/damaged
    printf X | dd of="/tmp/damaged/$table" bs=1 seek=$((100 * 8192 + 6000)) conv=notrunc status=none
    echo "damage in the full backup, in the table ${pair%=*}"
    echo "the full backup: $(verify /tmp/damaged)"
    as $bin/pg_combinebackup -o /tmp/combined /tmp/damaged /tmp/incremental && status=0 || status=$?
    echo "pg_combinebackup: exit status $status; what it made: $(verify /tmp/combined)"
    start /tmp/combined
    echo "the table: $(sql "SELECT count(*) FROM ${pair%=*}" 2>&1 | sed -n "s,$table,TABLE,; s/^ERROR: *//p")"
    as $bin/pg_ctl -D /tmp/combined stop >/log
    rm -r /tmp/damaged /tmp/combined
done
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='17.12 (Debian 17.12-0+deb13u1)
damage in the full backup, in the table changed
the full backup: error: checksum mismatch for file "TABLE"
pg_combinebackup: exit status 0; what it made: backup successfully verified
the table: invalid page in block 100 of relation TABLE
damage in the full backup, in the table unchanged
the full backup: error: checksum mismatch for file "TABLE"
pg_combinebackup: exit status 0; what it made: error: checksum mismatch for file "TABLE"
the table: invalid page in block 100 of relation TABLE'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
