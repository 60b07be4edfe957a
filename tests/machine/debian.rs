//! Debian's cluster 15/main with the homeserver's database, beside the empty one that machines have.

use super::Machine;
use super::synapse::quote;

/// Its port.
pub const PORT: &str = "5433";

/// Where the homeserver's configuration has the `database:` block for it.
pub const BLOCK: &str = "/etc/matrix-synapse/conf.d/database.yaml";

/// As the documentation of Synapse says, but for the names.
const DATABASE: &str = "\
database:
  name: psycopg2
  args:
    user: synapse_user
    password: secret
    dbname: synapse
    host: 127.0.0.1
    port: 5433
";

/// The homeserver's role and database.
pub const MADE: [&str; 2] = [
    "CREATE ROLE synapse_user LOGIN PASSWORD 'secret'",
    "CREATE DATABASE synapse OWNER synapse_user TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'",
];

/// Makes role, database and block in a cluster that runs.
#[track_caller]
pub fn make_database(machine: &Machine) {
    for statement in MADE {
        as_postgres(machine, statement);
    }
    machine.ok("mkdir -p /etc/matrix-synapse/conf.d");
    machine.write(BLOCK, DATABASE);
}

/// A statement of the cluster's owner; what it returns.
#[track_caller]
pub fn as_postgres(machine: &Machine, sql: &str) -> String {
    let sql = quote(sql);
    machine.ok(&format!("cd / && runuser -u postgres -- psql -XAt -p {PORT} -c {sql}"))
}
