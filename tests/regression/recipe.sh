#!/bin/bash
# PostgreSQL's own regression tests, those of 15, from Debian's source package; and what their database refers to in the
# servers of 15, 17 and 19: a library of functions in C.
# usage: recipe.sh DIRECTORY     as root, on a Debian with gcc. tests/machine/image.rs names it by the hash of this text.
set -euo pipefail
directory=$1

# The mirror, and how it is reached, are the host's own, as for the machines' root.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
apt-config dump --no-empty --format '%f "%v";%n' \
    Acquire::http Acquire::https Acquire::Check-Valid-Until Acquire::Check-Date | sed '/^$/d' >"$work/apt.conf"
signed="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
{
    printf "deb $signed $mirror %s main\n" bookworm trixie experimental
    echo "deb-src $signed $mirror bookworm main"
} >"$work/sources.list"
# Of the host nothing is changed, nor asked what it has.
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
cat >>"$work/apt.conf" <<END
Dir::State "$work/state";
Dir::State::status "/dev/null";
Dir::Cache "$work/cache";
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Sandbox::User "root";
Acquire::Languages "none";
END
export APT_CONFIG=$work/apt.conf
cd "$work"
apt-get --quiet=2 update
apt-get --quiet=2 source --download-only --only-source postgresql-15
apt-get --quiet=2 download postgresql-server-dev-{15,17,19} libpq-dev/trixie

mkdir "$directory"
tar --extract --file postgresql-15_*.orig.tar.* --strip-components=4 --directory "$directory" --wildcards \
    '*/src/test/regress/'{sql,data,parallel_schedule,regress.c}
for package in *.deb; do dpkg-deb --extract "$package" "$work/headers"; done
for major in 15 17 19; do
    # What headers of 15 include themselves, those of later majors leave to whoever includes them.
    gcc -O1 -fPIC -shared -w -o "$directory/regress-$major.so" -I"$work/headers/usr/include/postgresql/$major/server" \
        -I"$work/headers/usr/include/postgresql" -include postgres.h -include utils/array.h \
        -DNUM_SPINLOCK_SEMAPHORES=128 -DNUM_ATOMICS_SEMAPHORES=64 "$directory/regress.c"
done
