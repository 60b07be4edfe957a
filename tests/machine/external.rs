//! A server on another machine, which is a network namespace of this one: `db.test.local`, over TLS.

use super::Machine;
pub use super::debian::BLOCK;
use super::debian::MADE;
use super::synapse::quote;

/// The other machine: a network of its own, and a server that listens there for whoever has a password.
const OTHER_MACHINE: &str = r"
ip netns add db
ip link add db0 type veth peer name eth0 netns db
ip address add 10.77.0.1/24 dev db0 && ip link set db0 up
ip -n db address add 10.77.0.2/24 dev eth0 && ip -n db link set eth0 up && ip -n db link set lo up
echo '10.77.0.2 db.test.local' >>/etc/hosts
install -d -o postgres -g postgres -m 0711 /srv/db /srv/db/socket
cd /srv/db
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout authority.key -out authority.pem 2>&1
openssl req -newkey rsa:2048 -nodes -subj /CN=db.test.local -keyout server.key -out server.csr 2>&1
printf 'subjectAltName=DNS:db.test.local,IP:10.77.0.2\n' >extensions
openssl x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out server.pem 2>&1
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db.test.local -addext subjectAltName=DNS:db.test.local \
    -keyout other.key -out other.pem 2>&1
chmod 0644 authority.pem && chown postgres: server.* other.* && chmod 0600 server.key other.key
runuser -u postgres -- /usr/lib/postgresql/15/bin/initdb --pgdata=/srv/db/data --locale=C.UTF-8 --auth=reject >/dev/null
cat >>data/postgresql.conf <<END
listen_addresses = '10.77.0.2'
unix_socket_directories = '/srv/db/socket'
ssl = on
ssl_cert_file = '/srv/db/server.pem'
ssl_key_file = '/srv/db/server.key'
log_connections = on
END
cat >data/pg_hba.conf <<END
local all postgres peer
hostssl all all 10.77.0.0/24 scram-sha-256
END
cat >/etc/systemd/system/db.service <<END
[Service]
Type=notify
User=postgres
NetworkNamespacePath=/run/netns/db
ExecStart=/usr/lib/postgresql/15/bin/postgres -D /srv/db/data
ExecReload=/bin/kill -HUP \$MAINPID
KillSignal=SIGINT
END
systemctl daemon-reload && systemctl start db.service
";

const DATABASE: &str = "\
database:
  name: psycopg2
  args:
    user: synapse_user
    password: secret
    dbname: synapse
    host: db.test.local
    sslmode: verify-full
    sslrootcert: /srv/db/authority.pem
";

/// Lays it out, with the homeserver's role and database.
#[track_caller]
pub fn other_machine(machine: &Machine) {
    machine.ok(OTHER_MACHINE);
    for statement in MADE {
        there(machine, "postgres", statement);
    }
    machine.ok("mkdir -p /etc/matrix-synapse/conf.d /etc/matrix-postgres /etc/credstore");
    machine.write(BLOCK, DATABASE);
}

/// As the administrator of the other machine.
#[track_caller]
pub fn there(machine: &Machine, database: &str, sql: &str) -> String {
    let sql = quote(sql);
    machine.ok(&format!("cd / && runuser -u postgres -- psql -XAt -h /srv/db/socket -d {database} -c {sql}"))
}
