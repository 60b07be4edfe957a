//! Servers in containers: images without a registry, and an installation as the Ansible playbook for Matrix
//! (matrix-docker-ansible-deploy) lays it out.
//!
//! What is known of that, from its role for PostgreSQL (`ansible-role-postgres`, 2026-11):
//!
//! * everything is of a system user `matrix`, below `/matrix`; the cluster is `/matrix/postgres/data`, mode 0700
//! * `/etc/systemd/system/matrix-postgres.service`, so that a packaged unit of that name is shadowed: it creates a container
//!   `matrix-postgres` with `--rm`, `--user=UID:GID`, on the network `matrix`, with the cluster and `/etc/passwd` mounted, and
//!   waits for its end: `docker start --attach matrix-postgres`. `postmaster.pid` says `1` then. `Restart=always`
//! * the directory of the socket, `/matrix/postgres/run`, is mounted, too (since 2026-03; before, it was in the container only)
//! * `env-postgres-server` is for the container (`POSTGRES_USER` and so on), `env-postgres-psql` for clients (`PGUSER=matrix`,
//!   `PGPASSWORD`, `PGDATABASE`): files for docker's `--env-file`, which takes each line as it is
//! * other units, `matrix-synapse.service` first of all, have `Requires=` and `After=matrix-postgres.service`
//! * `/etc/systemd/system/matrix-postgres-backup.service`, where its own backups are wanted, is a container that never ends

use std::time::Duration;

use super::synapse::quote;
use super::{Machine, Synapse};

/// How long a daemon or a server may take to come up on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

/// Imports an image `$1:$2` (name, major) of the machine's own programs into `$3` (docker, podman), with those of major `$4`, if it is
/// given. What the official image's entrypoint does for a first start is done here in a few lines; STOPSIGNAL is its own, too.
const IMAGE: &str = r#"
name=$1 major=$2 program=$3 more=${4:-}
# Not every host has this control group's controller for machines; docker does without by itself.
mkdir -p /etc/containers/containers.conf.d
printf '[containers]\npids_limit = 0\n' >/etc/containers/containers.conf.d/machine.conf
files=$(mktemp -d)
mkdir -p "$files/usr/local/bin" "$files/var/lib/postgresql/data" "$files/var/run/postgresql" "$files/tmp" "$files/etc"
chmod 1777 "$files/var/lib/postgresql/data" "$files/var/run/postgresql" "$files/tmp"
cp /etc/passwd /etc/group /etc/nsswitch.conf "$files/etc/"
cat >"$files/usr/local/bin/docker-entrypoint.sh" <<'END'
#!/bin/bash
set -euo pipefail
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") --auth-local=trust --auth-host=scram-sha-256 \
        $POSTGRES_INITDB_ARGS --pgdata="$PGDATA" >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec "$@"
END
chmod 0755 "$files/usr/local/bin/docker-entrypoint.sh"
libraries=usr/lib/$(uname -m)-linux-gnu
cd /
present() { for path; do if [ -e "$path" ] || [ -L "$path" ]; then echo "$path"; fi; done; }
data=/var/lib/postgresql/data
[ "$major" -lt 18 ] || data=/var/lib/postgresql/$major/docker
tar --create --exclude='*libLLVM*' --exclude='*/perl*' --exclude='*/gconv/*' --exclude='*/python3*' \
    $(present bin lib lib64 sbin usr/bin/{bash,dash,sh,env,cat,ls,id,cp,rm,mkdir,chmod,sleep,head,tail,sed,grep} usr/lib64 "$libraries" "usr/lib/postgresql/$major" ${more:+"usr/lib/postgresql/$more"} usr/share/postgresql \
        usr/share/zoneinfo usr/lib/locale) \
    --directory="$files" usr/local var tmp etc |
    "$program" import --change "ENV PATH=/usr/lib/postgresql/$major/bin:/usr/local/bin:/usr/bin:/bin" \
        --change "ENV PGDATA=$data" --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]' \
        --change 'STOPSIGNAL SIGINT' - "$name:$major" >/dev/null
rm -r "$files"
"#;

/// The playbook's directories and files: `$1` the image, `$2` its unit. A cluster that is there keeps its owner.
const LAYOUT: &str = r#"
image=$1 unit=$2
id matrix >/dev/null 2>&1 || useradd --system --uid 791 --no-create-home --home-dir /matrix matrix
if [ ! -d /matrix/postgres/data ]; then
    install -d -o matrix -g matrix -m 0750 /matrix /matrix/postgres
    install -d -o matrix -g matrix -m 0700 /matrix/postgres/data
fi
user=$(stat --format %u:%g /matrix/postgres/data)
install -d -m 0750 /matrix/postgres/run
chown $user /matrix/postgres/run
umask 027
cat >/matrix/postgres/env-postgres-server <<'END'
POSTGRES_USER=matrix
POSTGRES_PASSWORD=it's "a" secret # \ 
POSTGRES_DB=matrix
POSTGRES_INITDB_ARGS=--lc-collate=C --lc-ctype=C --encoding=UTF8
END
cat >/matrix/postgres/env-postgres-psql <<'END'
PGUSER=matrix
PGPASSWORD=it's "a" secret # \ 
PGDATABASE=matrix
PSQL_HISTORY=/dev/null
END
chown matrix:matrix /matrix/postgres/env-postgres-*
umask 022
docker network inspect matrix >/dev/null 2>&1 || docker network create matrix >/dev/null
cat >/etc/systemd/system/$unit <<END
[Unit]
Description=Postgres server (matrix-postgres)
Requires=docker.service
After=docker.service
DefaultDependencies=no

[Service]
Type=simple
Environment="HOME=/root"
ExecStartPre=-/usr/bin/env sh -c '/usr/bin/env docker stop matrix-postgres 2>/dev/null || true; /usr/bin/env docker rm matrix-postgres 2>/dev/null || true'
ExecStartPre=/usr/bin/env docker create --rm --name matrix-postgres --log-driver=none --user=$user --cap-drop=ALL \
    --read-only --shm-size=256M --network=matrix --env-file=/matrix/postgres/env-postgres-server \
    --mount type=bind,src=/matrix/postgres/data,dst=/var/lib/postgresql/data \
    --mount type=bind,src=/matrix/postgres/run,dst=/var/run/postgresql \
    --mount type=bind,src=/etc/passwd,dst=/etc/passwd,ro --tmpfs=/tmp:rw,noexec,nosuid,size=100m \
    $image postgres -c max_connections=200
ExecStart=/usr/bin/env docker start --attach matrix-postgres
ExecStop=-/usr/bin/env sh -c '/usr/bin/env docker stop -t 60 matrix-postgres 2>/dev/null || true'
ExecStop=-/usr/bin/env sh -c '/usr/bin/env docker rm matrix-postgres 2>/dev/null || true'
Restart=always
RestartSec=30
SyslogIdentifier=matrix-postgres

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
"#;

/// What needs the playbook's server, as its homeserver does.
const CLIENT: &str = "\
[Unit]
Description=Synapse server
Requires=docker.service UNIT
After=docker.service UNIT

[Service]
ExecStart=/bin/sleep infinity

[Install]
WantedBy=multi-user.target
";

/// As the playbook writes it; the homeserver of these machines is in no container, and has a copy with an address.
const DATABASE: &str = "\
database:
  name: psycopg2
  args:
    user: synapse
    password: secret
    database: synapse
    host: HOST
";

/// Starts docker, which machines have, and do not start by themselves.
#[track_caller]
pub fn start_docker(machine: &Machine) {
    let started = machine.run("systemctl start docker.service");
    assert_eq!(
        started.status,
        0,
        "{started}\n{}",
        machine.run("journalctl --no-pager -u docker -u containerd")
    );
}

/// Makes an image `NAME:MAJOR` of the machine's own PostgreSQL; `program` is docker or podman.
#[track_caller]
pub fn make_image(machine: &Machine, program: &str, name: &str, major: u16) {
    machine.ok(&format!("set -- {name} {major} {program}\n{IMAGE}"));
}

/// The same of docker's, which has the programs of another major version, too.
#[track_caller]
pub fn make_image_of_both(machine: &Machine, name: &str, major: u16, more: u16) {
    machine.ok(&format!("set -- {name} {major} docker {more}\n{IMAGE}"));
}

/// An installation of the playbook, with its server.
pub struct Playbook<'a> {
    machine: &'a Machine,
    superuser: &'static str,
}

impl<'a> Playbook<'a> {
    /// Lays it out on a machine, with a server of this version, and starts everything. Its unit shadows the package's.
    #[track_caller]
    pub fn set_up(machine: &'a Machine, major: u16) -> Self {
        Self::start(machine, major, "matrix-postgres.service", "matrix")
    }

    /// The same by a unit of another name on the cluster of the package's server, which must be stopped.
    #[track_caller]
    pub fn on_ours(machine: &'a Machine, major: u16, unit: &str) -> Self {
        Self::start(machine, major, unit, "postgres")
    }

    fn start(machine: &'a Machine, major: u16, unit: &str, superuser: &'static str) -> Self {
        start_docker(machine);
        make_image(machine, "docker", "postgres", major);
        machine.ok(&format!("set -- postgres:{major} {unit}\n{LAYOUT}"));
        machine.write("/etc/systemd/system/matrix-synapse.service", &CLIENT.replace("UNIT", unit));
        machine.ok(&format!("systemctl daemon-reload && systemctl start {unit} matrix-synapse.service"));
        let playbook = Self { machine, superuser };
        playbook.wait();
        playbook
    }

    /// Waits until its server lets clients in.
    #[track_caller]
    pub fn wait(&self) {
        let ready = "docker exec matrix-postgres pg_isready --quiet --host=127.0.0.1 --username=matrix";
        self.machine.wait_for(&format!("{ready} || {{ journalctl --no-pager -n 30; false; }}"));
    }

    /// Role and database of the homeserver, and its configuration.
    #[track_caller]
    pub fn make_database(&self) {
        self.sql("CREATE ROLE synapse LOGIN PASSWORD 'secret'");
        self.sql("CREATE DATABASE synapse OWNER synapse TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'");
        self.machine.ok("mkdir -p /matrix/synapse/config");
        let block = DATABASE.replace("HOST", "matrix-postgres");
        self.machine.write("/matrix/synapse/config/homeserver.yaml", &block);
    }

    /// A homeserver whose database is in the container.
    #[track_caller]
    pub fn homeserver(&self) -> Synapse<'a> {
        let machine = self.machine;
        self.make_database();
        machine.ok("systemctl stop matrix-synapse.service");
        let address = machine.ok(
            "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' matrix-postgres",
        );
        machine.write("/root/database.yaml", &DATABASE.replace("HOST", &address));
        Synapse::set_up_on(machine, "matrix-postgres.service", "/root/database.yaml")
    }

    /// The command that reads statements for its superuser.
    pub fn psql(&self) -> String {
        format!("docker exec -i matrix-postgres psql -U {} -d postgres -XAt", self.superuser)
    }

    /// A statement, as its superuser.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        self.machine.ok(&format!("{} -qc {}", self.psql(), quote(statement)))
    }

    /// The number of its server's first process on the machine.
    #[track_caller]
    pub fn pid(&self) -> String {
        self.machine.ok("docker inspect --format '{{.State.Pid}}' matrix-postgres")
    }

    /// When its server has started: another one has another time.
    #[track_caller]
    pub fn started(&self) -> String {
        self.sql("SELECT pg_catalog.pg_postmaster_start_time()")
    }
}
