#!/bin/bash
# pgbackrest verify, which reads a whole repository back and compares checksums, ends with exit status 0 although it has found a
# file that is not what was stored: a script or a timer that goes by the status never learns of it. By default it prints nothing
# either; with --output=text it says "status: error", still with 0. A segment of the WAL that is gone between two others is found
# by neither.
#
# Seen with pgBackRest 2.55.1 and PostgreSQL 17.12. Expected by memory: as pg_verifybackup, restic check and borg check do, it
# ends with another status than 0 when it has found damage.
set -euo pipefail

packages=(postgresql-17=17.12-0+deb13u1 pgbackrest=2.55.1-1)
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
pgbackrest version
install -d -o postgres /tmp/repository /tmp/logs
printf '[global]\nrepo1-path=/tmp/repository\nlog-path=/tmp/logs\n[main]\npg1-path=/tmp/data\npg1-socket-path=/tmp\npg1-port=6017\n' >/etc/pgbackrest.conf
chmod 0644 /etc/pgbackrest.conf
as $bin/initdb -D /tmp/data --locale=C -U postgres >/log 2>&1
echo "archive_mode = on
archive_command = 'pgbackrest --stanza=main archive-push %p'" >>/tmp/data/postgresql.conf
as $bin/pg_ctl -D /tmp/data -o '-k /tmp -p 6017' -l /tmp/server.log -w start >/log
as pgbackrest --stanza=main --log-level-console=off stanza-create
as pgbackrest --stanza=main --log-level-console=off backup
for turn in 1 2 3 4; do as psql -h /tmp -p 6017 -XAtqc 'SELECT 1 FROM txid_current(), pg_switch_wal()' >/dev/null; done
as pgbackrest --stanza=main --log-level-console=off check
verify() {
    as pgbackrest --stanza=main --log-level-console=off --log-level-stderr=off "$@" verify >/said && status=0 || status=$?
    echo "exit status $status, says: $(grep -c . /said) lines, status: $(sed -n 's/^ *status: //p' /said | head -n 1)"
}
echo "whole: $(verify --output=text)"
# A segment is no longer there.
gone=$(ls /tmp/repository/archive/main/17-1/*/*-* | sed -n 3p)
mv "$gone" /tmp/gone
echo "without a segment between others: $(verify --output=text)"
mv /tmp/gone "$gone"
# One byte of a stored file is another.
file=$(find /tmp/repository/backup/main/*F -name '*.gz' -size +1 | sort | head -n 1)
printf '\377' | dd of="$file" bs=1 seek=300 conv=notrunc status=none
echo "with a changed byte: $(verify --output=text)"
echo "with a changed byte, by default: $(verify)"
as $bin/pg_ctl -D /tmp/data -m immediate stop >/log
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='pgBackRest 2.55.1
whole: exit status 0, says: 0 lines, status: 
without a segment between others: exit status 0, says: 0 lines, status: 
with a changed byte: exit status 0, says: 4 lines, status: error
with a changed byte, by default: exit status 0, says: 0 lines, status: '
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
