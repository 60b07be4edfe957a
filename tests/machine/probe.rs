//! A client that belongs to no unit, and tries to log in and ask all the time: what a downtime is from outside.

use std::time::Duration;

use super::Machine;

/// Prints the longest time between two successes, in seconds, when it is told to end and has had another one.
const CLIENT: &str = r#"
import psycopg2, re, signal, sys, time
password = re.search(r'password: "?([^"\s]+)', open('/etc/matrix-synapse/database.yaml').read()).group(1)
ending = False
def end(*_):
    global ending
    ending = True
signal.signal(signal.SIGTERM, end)
longest, last = 0.0, None
while True:
    told = ending
    begun = time.monotonic()
    try:
        connection = psycopg2.connect(sys.argv[1] + ' user=synapse dbname=homeserver connect_timeout=2', password=password)
        cursor = connection.cursor()
        cursor.execute('SELECT 1')
        connection.close()
        now = time.monotonic()
        if last is None:
            open('/run/probe.up', 'w').close()
        else:
            longest = max(longest, now - last)
        last = now
        if told:
            open('/run/probe.new', 'w').write(f'{longest:.3f}')
            __import__('os').rename('/run/probe.new', '/run/probe.longest')
            sys.exit()
    except psycopg2.Error:
        pass
    time.sleep(max(0, begun + 0.02 - time.monotonic()))
"#;

/// One that runs; there is one in a machine at a time.
pub struct Probe<'a> {
    machine: &'a Machine,
}

impl<'a> Probe<'a> {
    /// Begins as Synapse's role, to the server at this part of a connection string, once it has been let in.
    #[track_caller]
    pub fn start(machine: &'a Machine, place: &str) -> Self {
        machine.write("/root/probe.py", CLIENT);
        machine.ok(&format!(
            "rm -f /run/probe.*; setsid --fork sh -c 'echo $$ >/run/probe.pid; exec python3 /root/probe.py \"{place}\"' \
             </dev/null >/run/probe.log 2>&1"
        ));
        machine.wait_for("test -e /run/probe.up");
        Self { machine }
    }

    /// The longest time, in seconds, in which nobody was let in.
    #[track_caller]
    pub fn end(self) -> f64 {
        self.machine.ok("kill -TERM $(cat /run/probe.pid)");
        self.machine.wait_for("test -e /run/probe.longest");
        self.machine.ok("cat /run/probe.longest").parse().expect("a number of seconds")
    }
}
