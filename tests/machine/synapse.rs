//! A homeserver in a machine, on the packaged database, and people who talk on it through the client API.

use serde_json::{Value, json};

use super::Machine;

/// `Type=notify`, as the packages of Synapse have it.
const UNIT: &str = "\
[Unit]
Description=Synapse Matrix homeserver
Wants=SERVER
After=SERVER

[Service]
Type=notify
User=synapse
WorkingDirectory=/var/lib/matrix-synapse
ExecStart=/opt/synapse/bin/python -m synapse.app.homeserver -c /etc/matrix-synapse/homeserver.yaml \
    -c /etc/matrix-synapse/database.yaml -c /etc/matrix-synapse/test.yaml
Restart=on-failure
RestartSec=1

[Install]
WantedBy=multi-user.target
";

/// For tests: anybody may register, nobody is slowed down, nobody else is asked.
const SETTINGS: &str = "\
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
trusted_key_servers: []
background_updates: {sleep_enabled: false}
rc_message: {per_second: 10000, burst_count: 10000}
rc_registration: {per_second: 10000, burst_count: 10000}
rc_joins: {local: {per_second: 10000, burst_count: 10000}}
rc_login: {address: {per_second: 10000, burst_count: 10000}, account: {per_second: 10000, burst_count: 10000}}
";

/// The `database:` block that the package writes goes in as it is.
const SET_UP: &str = "\
install -d -o synapse -g synapse /etc/matrix-synapse /var/lib/matrix-synapse
cd /var/lib/matrix-synapse
runuser -u synapse -- /opt/synapse/bin/python -m synapse.app.homeserver --generate-config --report-stats=no \
    --server-name test.local --config-path /etc/matrix-synapse/homeserver.yaml
install -o synapse -m 0600 BLOCK /etc/matrix-synapse/database.yaml
";

/// A script that fills Synapse's tables.
const VOLUME: &str = include_str!("volume.sql");

/// The homeserver of a machine.
pub struct Synapse<'a> {
    machine: &'a Machine,
}

/// Somebody who is logged in.
pub struct User {
    /// `@name:test.local`
    pub id: String,
    /// What the client sends along.
    pub token: String,
}

impl<'a> Synapse<'a> {
    /// Configures the homeserver on a database that `matrix-postgres.service` has initialised, and starts it.
    #[track_caller]
    pub fn set_up(machine: &'a Machine) -> Self {
        Self::set_up_on(machine, "matrix-postgres.service", "/matrix/postgres/synapse-database.yaml")
    }

    /// The same on another server, with the file that has the `database:` block for it.
    #[track_caller]
    pub fn set_up_on(machine: &'a Machine, server: &str, block: &str) -> Self {
        machine.ok(&SET_UP.replace("BLOCK", block));
        machine.write("/etc/matrix-synapse/test.yaml", SETTINGS);
        machine.write("/etc/systemd/system/matrix-synapse.service", &UNIT.replace("SERVER", server));
        machine.ok("systemctl daemon-reload && systemctl start matrix-synapse.service");
        Self { machine }
    }

    /// Waits until it has done what it does once after its first start, such as filling and dropping tables of its own: from
    /// then on, its database changes only when somebody talks.
    #[track_caller]
    pub fn settle(&self) {
        let left = "matrix-postgres-cli -XAtc 'SELECT count(*) FROM background_updates'";
        self.machine.wait_for(&format!("test \"$({left})\" = 0"));
    }

    /// The homeserver that is there already: after a power cut, say.
    pub fn of(machine: &'a Machine) -> Self {
        Self { machine }
    }

    /// A request of the client API; the answer must be a success.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, user: Option<&User>, body: Option<&Value>) -> Value {
        let mut words = vec!["--request".to_owned(), method.to_owned()];
        if let Some(user) = user {
            words.extend(["--header".to_owned(), format!("Authorization: Bearer {}", user.token)]);
        }
        if let Some(body) = body {
            words.extend(["--json".to_owned(), body.to_string()]);
        }
        words.push(format!("http://localhost:8008/_matrix/client/v3/{path}"));
        let words: Vec<_> = words.iter().map(|word| quote(word)).collect();
        let script = format!("curl --silent --show-error --fail-with-body {}", words.join(" "));
        serde_json::from_str(&self.machine.ok(&script)).expect("an answer should be JSON")
    }

    /// Registers somebody, whose password is the name.
    #[track_caller]
    pub fn register(&self, name: &str) -> User {
        let body = json!({"username": name, "password": name, "auth": {"type": "m.login.dummy"}});
        user(&self.request("POST", "register", None, Some(&body)))
    }

    /// Logs somebody in.
    #[track_caller]
    pub fn log_in(&self, name: &str) -> User {
        let identifier = json!({"type": "m.id.user", "user": name});
        let body = json!({"type": "m.login.password", "identifier": identifier, "password": name});
        user(&self.request("POST", "login", None, Some(&body)))
    }

    /// Makes a room that everybody may join; returns its id.
    #[track_caller]
    pub fn create_room(&self, user: &User, name: &str) -> String {
        let body = json!({"name": name, "preset": "public_chat"});
        text(&self.request("POST", "createRoom", Some(user), Some(&body))["room_id"])
    }

    /// Joins a room.
    #[track_caller]
    pub fn join(&self, user: &User, room: &str) {
        self.request("POST", &format!("join/{room}"), Some(user), Some(&json!({})));
    }

    /// Says something; returns the event's id. The same text of the same user is sent once only.
    #[track_caller]
    pub fn send(&self, user: &User, room: &str, message: &str) -> String {
        let transaction = format!("{:08x}", crc32fast::hash(message.as_bytes()));
        let body = json!({"msgtype": "m.text", "body": message});
        let path = format!("rooms/{room}/send/m.room.message/{transaction}");
        text(&self.request("PUT", &path, Some(user), Some(&body))["event_id"])
    }

    /// The newest 1000 messages of a room, oldest first: who said what.
    #[track_caller]
    pub fn messages(&self, user: &User, room: &str) -> Vec<(String, String)> {
        let answer =
            self.request("GET", &format!("rooms/{room}/messages?dir=b&limit=1000"), Some(user), None);
        let events = answer["chunk"].as_array().expect("a list of events");
        let messages = events.iter().rev().filter(|event| event["type"] == "m.room.message");
        messages.map(|event| (text(&event["sender"]), text(&event["content"]["body"]))).collect()
    }
}

/// Fills the tables of a Synapse that has made them with this many events: a million are 2.7 GB.
#[track_caller]
pub fn fill(machine: &Machine, events: u64) {
    machine.write("/root/volume.sql", VOLUME);
    machine.ok(&format!(
        "psql --quiet --no-psqlrc -h /run/matrix-postgres -U postgres -v events={events} -v seed=1 \
         -f /root/volume.sql homeserver >/dev/null"
    ));
}

/// A word of a shell script.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn user(answer: &Value) -> User {
    User { id: text(&answer["user_id"]), token: text(&answer["access_token"]) }
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
