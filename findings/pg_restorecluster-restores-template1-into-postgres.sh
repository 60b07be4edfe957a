#!/bin/bash
# pg_restorecluster says "Restoring template1.dump to database template1" and restores it into the database postgres: what was in
# template1 is there afterwards, and template1 is empty. Where both have something of one name, that is an error which ends the
# restore, and the databases that come after template1 in the alphabet are never restored: of this cluster, a bridge's.
# pg_backupcluster, which made the backup, has reported a success; so has the first of the two restores.
#
# Seen with postgresql-common 278+deb13u1 and PostgreSQL 17.12. Expected by memory: each dump goes to the database that it is of,
# and what the one tool of Debian's backs up by default, the other restores.
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
sql() { runuser -u postgres -- psql --cluster 17/main -XAtqc "$2" -d "$1"; }
function_of() { sql "$1" "CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql AS 'SELECT lower(\$1)'"; }
names() { sql postgres "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname !~ '^template'"; }
for also in '' postgres; do
    pg_createcluster 17 main --start >/dev/null
    for database in template1 $also; do function_of "$database"; done
    sql postgres 'CREATE DATABASE homeserver'
    sql postgres 'CREATE DATABASE whatsapp'
    pg_backupcluster 17 main createdirectory
    pg_backupcluster 17 main dump
    echo "a function in: template1 $also; databases before: $(names)"
    pg_dropcluster --stop 17 main
    pg_restorecluster 17 main /var/backups/postgresql/17-main/*.dump --start >/log 2>&1 && status=0 || status=$?
    echo "exit status $status; $(sed -n 's/^Restoring .*\(template1.dump .*\)/\1/p' /log)"
    sed -n 's/.*\(ERROR: .*\)/\1/p' /log
    for database in template1 postgres; do
        echo "functions in $database: $(sql "$database" "SELECT count(*) FROM pg_proc WHERE proname = 'plain'")"
    done
    echo "databases after: $(names)"
    pg_dropcluster --stop 17 main
    rm -r /var/backups/postgresql
done
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='a function in: template1 ; databases before: homeserver postgres whatsapp
exit status 0; template1.dump to database template1 ...
functions in template1: 0
functions in postgres: 1
databases after: homeserver postgres whatsapp
a function in: template1 postgres; databases before: homeserver postgres whatsapp
exit status 1; template1.dump to database template1 ...
ERROR:  function "plain" already exists with same argument types
functions in template1: 0
functions in postgres: 1
databases after: homeserver postgres'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
