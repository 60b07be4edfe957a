#!/bin/bash
# pg_upgradecluster --method=dump (the default, "slow, but safe" in its manual) says "Success", tells the user that the old
# cluster can be removed, and exits with 0, although pg_restore has failed and a table of the new cluster is empty.
#
# Seen with postgresql-common 278+deb13u1, PostgreSQL 15.18 to 17.12. The table's CHECK calls a function in SQL that calls
# another one by its unqualified name: legal, and it works in daily use. pg_restore loads rows under an empty search_path,
# so that the rows are refused; its exit status is not looked at, nor are the numbers of rows compared.
# Expected by memory: a failing pg_restore ends the upgrade, and the old cluster stays in its place.
set -euo pipefail

packages=(postgresql-common=278+deb13u1 postgresql-15=15.18-0+deb12u1 postgresql-17=17.12-0+deb13u1)
work=$(mktemp -d)
trap 'umount --quiet --recursive "$work/root/proc" || true; rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
for release in trixie bookworm; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror%/}-security $release-security main"
done >"$work/sources.list"
printf 'Package: *\nPin: release n=bookworm*\nPin-Priority: 100\n' >"$work/preferences"
apt-config dump --no-empty --format '%f "%v";%n' Acquire::http Acquire::https Acquire::Check-Valid-Until Acquire::Check-Date |
    sed '/^$/d' >"$work/apt.conf"
echo 'create_main_cluster = false' >"$work/createcluster.conf"
mmdebstrap --variant=minbase --mode=root --quiet --include="$(IFS=,; echo "${packages[*]}")" --aptopt="$work/apt.conf" \
    --setup-hook="install -D -m 0644 $work/preferences \"\$1/etc/apt/preferences.d/older\"" \
    --essential-hook="install -D -m 0644 -t \"\$1/etc/postgresql-common\" $work/createcluster.conf" \
    trixie "$work/root" "$work/sources.list"

cat >"$work/root/try" <<'END'
set -euo pipefail
cd /
pg_createcluster 15 main --locale C.UTF-8 --port 6001 --start >/dev/null
sql() { runuser -u postgres -- psql -p 6001 -XAtqc "$2" -d "$1"; }
sql postgres 'CREATE DATABASE homeserver'
sql homeserver "CREATE FUNCTION lowest_allowed() RETURNS int LANGUAGE sql AS 'SELECT 0';
    CREATE FUNCTION allowed(n int) RETURNS bool LANGUAGE sql AS 'SELECT n > lowest_allowed()';
    CREATE TABLE messages (id int CHECK (allowed(id)), body text);
    INSERT INTO messages SELECT n, 'message ' || n FROM generate_series(1, 1000) n"
echo "before: PostgreSQL $(sql homeserver 'SHOW server_version'), $(sql homeserver 'SELECT count(*) FROM messages') rows"
pg_upgradecluster -v 17 --method=dump 15 main >/log 2>&1 && status=0 || status=$?
echo "exit status $status; $(grep -c '^pg_restore: error' /log) error of pg_restore; it says:"
grep --after-context=2 '^Success' /log || true
echo "after: PostgreSQL $(sql homeserver 'SHOW server_version'), $(sql homeserver 'SELECT count(*) FROM messages') rows"
pg_ctlcluster 17 main stop
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='before: PostgreSQL 15.18 (Debian 15.18-0+deb12u1), 1000 rows
exit status 0; 1 error of pg_restore; it says:
Success. Please check that the upgraded cluster works. If it does,
you can remove the old cluster with
    pg_dropcluster 15 main
after: PostgreSQL 17.12 (Debian 17.12-0+deb13u1), 0 rows'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
