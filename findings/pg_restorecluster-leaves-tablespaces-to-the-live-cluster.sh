#!/bin/bash
# pg_backupcluster's base backup of a cluster with a tablespace has the tablespace's files, and pg_restorecluster never unpacks
# them. What it restores points to the directory of the cluster that the backup was made of. Beside that cluster, as one does to
# try a backup, the restore ends with 0, and both servers read and write the same files; pg_dropcluster of the trial then removes
# them, without a warning, and the live cluster has lost its tables. Where the directory is empty, as on a new machine, the
# restored server starts, is online without the tables, and only the last step, the statistics, fails.
#
# Seen with postgresql-common 278+deb13u1 and PostgreSQL 17.12. Expected by memory: each of the backup's tar files is restored,
# and a cluster that is restored under a new name has its own files, or is refused.
set -euo pipefail

packages=(postgresql-common=278+deb13u1 postgresql-17=17.12-0+deb13u1)
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
cd /
sql() { runuser -u postgres -- psql --cluster "17/$1" -XAtqc "$3" -d "$2"; }
rows() { sql "$1" homeserver 'SELECT count(*) FROM events' 2>&1 | sed -E 's/"pg_tblspc.*"/"FILE"/'; }
restore() { pg_restorecluster 17 "$1" /var/backups/postgresql/17-main/*.backup --start >/log 2>&1 && status=0 || status=$?; }
pg_createcluster 17 main --start >/dev/null
sql main postgres 'SHOW server_version'
install -d -o postgres /srv/large
sql main postgres "CREATE TABLESPACE large LOCATION '/srv/large'"
sql main postgres 'CREATE DATABASE homeserver'
sql main homeserver 'CREATE TABLE events TABLESPACE large AS SELECT n id FROM generate_series(1, 1000) n'
pg_backupcluster 17 main createdirectory
pg_backupcluster 17 main basebackup >/log 2>&1 && status=0 || status=$?
echo "pg_backupcluster: exit status $status; tar files: $(cd /var/backups/postgresql/17-main/*.backup; ls *.tar.gz | sed 's/^[0-9]*\./NUMBER./' | xargs)"
restore trial
echo "pg_restorecluster beside main: exit status $status; rows in the trial: $(rows trial)"
for cluster in main trial; do
    echo "tablespace of $cluster: $(readlink /var/lib/postgresql/17/$cluster/pg_tblspc/*)"
done
pg_dropcluster --stop 17 trial >/log 2>&1 && status=0 || status=$?
echo "pg_dropcluster of the trial: exit status $status, says $(wc -l </log) lines; files in the tablespace: $(find /srv/large -type f | wc -l)"
pg_ctlcluster 17 main restart
echo "rows in main after a restart: $(rows main)"
pg_dropcluster --stop 17 main >/log 2>&1
restore main
echo "pg_restorecluster instead of main: exit status $status, says: $(sed -nE 's/.*(ERROR: .*)/\1/p' /log | sed -E 's/"pg_tblspc.*"/"FILE"/'); $(pg_lsclusters --no-header 17 main | awk '{ print $4 }')"
echo "rows in main: $(rows main)"
pg_dropcluster --stop 17 main >/log 2>&1
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='17.12 (Debian 17.12-0+deb13u1)
pg_backupcluster: exit status 0; tar files: NUMBER.tar.gz base.tar.gz config.tar.gz pg_wal.tar.gz
pg_restorecluster beside main: exit status 0; rows in the trial: 1000
tablespace of main: /srv/large
tablespace of trial: /srv/large
pg_dropcluster of the trial: exit status 0, says 0 lines; files in the tablespace: 0
rows in main after a restart: ERROR:  could not open file "FILE": No such file or directory
pg_restorecluster instead of main: exit status 1, says: ERROR:  could not open file "FILE": No such file or directory; online
rows in main: ERROR:  could not open file "FILE": No such file or directory'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
