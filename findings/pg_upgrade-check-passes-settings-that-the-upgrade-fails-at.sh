#!/bin/bash
# pg_upgrade --check says "Clusters are compatible" and exits with 0, and the same pg_upgrade without --check, run at once on the
# same two clusters, fails: the old one has a role with a setting that 19 does not have any more.
#
# Seen with PostgreSQL 18.6 to 19~rc1. `ALTER ROLE ... SET standard_conforming_strings = off` and `... SET escape_string_warning =
# off` are legal in 18, and old applications have them. The dump of roles repeats them, and 19 refuses them; nothing looks
# at pg_db_role_setting before. Likewise `radius` in pg_hba.conf, which neither reads: the new server does not start with it.
# Expected by memory: what --check passes is not refused by reason of what is in the catalogs.
set -euo pipefail

packages=(postgresql-18=18.6-3 postgresql-19=19~rc1-1)
work=$(mktemp -d)
trap 'umount --quiet --recursive "$work/root/proc" || true; rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
for release in forky experimental; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main"
done >"$work/sources.list"
# Experimental offers nothing by itself.
printf 'Package: src:postgresql-19\nPin: release n=rc-buggy\nPin-Priority: 600\n' >"$work/preferences"
apt-config dump --no-empty --format '%f "%v";%n' Acquire::http Acquire::https Acquire::Check-Valid-Until Acquire::Check-Date |
    sed '/^$/d' >"$work/apt.conf"
echo 'create_main_cluster = false' >"$work/createcluster.conf"
mmdebstrap --variant=minbase --mode=root --quiet --include="$(IFS=,; echo "${packages[*]}")" --aptopt="$work/apt.conf" \
    --setup-hook="install -D -m 0644 $work/preferences \"\$1/etc/apt/preferences.d/experimental\"" \
    --essential-hook="install -D -m 0644 -t \"\$1/etc/postgresql-common\" $work/createcluster.conf" \
    forky "$work/root" "$work/sources.list"

cat >"$work/root/try" <<'END'
set -euo pipefail
cd /tmp
old=/usr/lib/postgresql/18/bin new=/usr/lib/postgresql/19/bin
as() { runuser -u postgres -- "$@"; }
for setting in 'standard_conforming_strings = off' 'escape_string_warning = off'; do
    as $old/initdb -D /tmp/old --locale=C -U postgres >/log 2>&1
    as $new/initdb -D /tmp/new --locale=C -U postgres >/log 2>&1
    as $old/pg_ctl -D /tmp/old -o '-k /tmp -p 6018' -l /tmp/server.log -w start >/log
    as $old/psql -h /tmp -p 6018 -XAtqc "CREATE ROLE app LOGIN; ALTER ROLE app SET $setting"
    as $old/pg_ctl -D /tmp/old -w stop >/log
    echo "18 has: ALTER ROLE app SET $setting"
    upgrade() { as $new/pg_upgrade -b $old -B $new -d /tmp/old -D /tmp/new -U postgres "$@" >/log 2>&1; }
    upgrade --check && status=0 || status=$?
    echo "pg_upgrade --check: exit status $status, it says: $(grep compatible /log)"
    upgrade && status=0 || status=$?
    echo "pg_upgrade: exit status $status, it says: $(grep -h ' ERROR: ' /tmp/new/pg_upgrade_output.d/*/log/* | sed 's/.*ERROR: *//' | head -n 1)"
    rm -r /tmp/old /tmp/new
done
END
seen=$(unshare --mount --pid --fork bash -c 'mount -t proc proc "$1/proc" && exec chroot "$1" bash /try' try "$work/root")
echo "$seen"
expected='18 has: ALTER ROLE app SET standard_conforming_strings = off
pg_upgrade --check: exit status 0, it says: *Clusters are compatible*
pg_upgrade: exit status 1, it says: non-standard string literals are not supported
18 has: ALTER ROLE app SET escape_string_warning = off
pg_upgrade --check: exit status 0, it says: *Clusters are compatible*
pg_upgrade: exit status 1, it says: unrecognized configuration parameter "escape_string_warning"'
[ "$seen" = "$expected" ] || { echo "this has changed; expected was:"; echo "$expected"; exit 1; }
