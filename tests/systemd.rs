//! Units over D-Bus, against a stand-in for systemd on a bus of its own: `dbus-daemon` is all it takes.
//!
//! The stand-in answers in the orders that the real one may choose: the signal of a job's end before the
//! answer to the call, and the ends of other jobs in between.

#[path = "systemd/stand_in.rs"]
mod stand_in;

use std::process::Command;
use std::time::{Duration, Instant};

use matrix_postgres::Kind;
use matrix_postgres::runtime::interrupt;
use matrix_postgres::systemd::{Inhibitor, Manager, Started, Stopped, notify};
use stand_in::{Bus, Manner, lock};

/// Long enough for any answer.
const LONG: Duration = Duration::from_secs(20);

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn a_job_is_waited_for_whatever_the_order_of_signals_and_answers() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    for manner in [Manner::SignalFirst, Manner::AnswerFirst, Manner::Busy] {
        bus.unit("a.service", "inactive", |unit| (unit.start, unit.stop) = (manner, manner));
        let unit = manager.start("a.service", LONG).unwrap();
        assert!(unit.is_active(), "{manner:?}");
        assert_eq!(unit.main_pid, Some(4711));
        assert_eq!(unit.control_group.as_deref(), Some("/system.slice/a.service"));
        manager.stop_all(&names(&["a.service"]), LONG).unwrap();
        let unit = manager.unit("a.service").unwrap();
        assert_eq!((unit.active_state.as_str(), unit.main_pid), ("inactive", None), "{manner:?}");
    }
}

#[test]
fn a_failed_job_names_its_result_and_the_journal() {
    let Some(bus) = Bus::start() else { return };
    bus.unit("a.service", "inactive", |unit| unit.start = Manner::Ends("failed"));
    let error = bus.manager().start("a.service", LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::UnitJob);
    assert_eq!(
        error.report(),
        "could not start a.service: systemd's job for it ended with \"failed\"; \
         it is failed (inactive, result: exit-code)\n\
         HINT: journalctl -u a.service -e"
    );
}

#[test]
fn a_failed_job_comes_with_what_the_unit_has_said() {
    let Some(bus) = Bus::start() else { return };
    bus.unit("a.service", "inactive", |unit| {
        unit.start = Manner::Ends("failed");
        unit.said = "/d is in use by the container x".into();
    });
    let error = Started::ensure(&bus.manager(), "a.service", LONG).unwrap_err();
    assert!(error.report().contains("\n -> /d is in use by the container x\n"), "{}", error.report());
}

#[test]
fn a_unit_of_ours_that_is_shadowed_is_not_touched_unless_it_is_named() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    bus.unit("matrix-postgres.service", "active", |_| {});
    assert!(manager.shadowed(None).unwrap().is_empty());
    manager.require_ours("matrix-postgres.service", false).unwrap();
    bus.change("matrix-postgres.service", |unit| unit.directory = Some("/etc/systemd/system"));
    let shadowed = manager.shadowed(None).unwrap();
    assert_eq!(shadowed.len(), 1);
    assert_eq!(
        shadowed[0].to_string(),
        "matrix-postgres.service is overridden by /etc/systemd/system/matrix-postgres.service, which is not part of matrix-postgres"
    );
    let error = manager.require_ours("matrix-postgres.service", false).unwrap_err();
    assert_eq!(error.kind(), Kind::UnitRefused);
    assert!(error.to_string().contains("it is neither started nor stopped"), "{error}");
    manager.require_ours("matrix-postgres.service", true).unwrap();
}

#[test]
fn a_job_that_is_done_is_not_believed_without_a_look_at_the_unit() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    bus.unit("a.service", "inactive", |unit| unit.start = Manner::ConditionFails);
    let error = manager.start("a.service", LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::UnitJob);
    assert!(error.to_string().contains("a condition of the unit is not met"), "{error}");
    bus.unit("oneshot.service", "inactive", |unit| unit.start = Manner::Oneshot);
    assert_eq!(manager.start("oneshot.service", LONG).unwrap().active_state, "inactive");
    let error = Started::ensure(&manager, "oneshot.service", LONG).unwrap_err();
    assert_eq!(
        error.to_string(),
        "oneshot.service was started and ended immediately; it is inactive (inactive)"
    );
    bus.unit("b.service", "active", |unit| unit.stop = Manner::Returns);
    let error = manager.stop_all(&names(&["b.service"]), LONG).unwrap_err();
    assert!(error.to_string().contains("it was started again meanwhile"), "{error}");
}

#[test]
fn a_job_that_never_ends_ends_the_wait_in_time() {
    let Some(bus) = Bus::start() else { return };
    bus.unit("a.service", "inactive", |unit| unit.start = Manner::Hangs);
    let clock = Instant::now();
    let error = bus.manager().start("a.service", Duration::from_millis(250)).unwrap_err();
    assert!(clock.elapsed() < Duration::from_secs(10));
    assert_eq!(error.kind(), Kind::UnitJob);
    assert_eq!(error.report(), "could not start a.service within 0.25 s\nHINT: journalctl -u a.service -e");
}

#[test]
fn the_other_failures_are_told_apart() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    bus.unit("a.service", "active", |unit| unit.stop = Manner::Refuses);
    let error = manager.stop_all(&names(&["a.service"]), LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::UnitRefused);
    assert_eq!(
        error.report(),
        "could not stop a.service\n -> Permission denied\nHINT: run it as root, or let a polkit rule allow \
         org.freedesktop.systemd1.manage-units for this unit"
    );

    let error = Stopped::stop(&manager, &names(&["a.service"]), LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::UnitRefused);
    assert!(error.report().contains("\nnothing was stopped\n"), "{}", error.report());

    let error = manager.start("absent.service", LONG).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NoUnit, "unit absent.service not found"));
    assert_eq!(manager.start("nonsense", LONG).unwrap_err().kind(), Kind::NoUnit);
    assert!(!manager.unit("absent.service").unwrap().exists());
    assert_eq!(bus.calls(), ["stop a.service", "stop a.service"]);

    let error = Manager::connect_to("unix:path=/nonexistent/bus").unwrap_err();
    assert_eq!(error.kind(), Kind::NoBus);
    assert_eq!(Manager::connect_to("nonsense").unwrap_err().kind(), Kind::NoBus);
}

#[test]
fn a_bus_without_systemd_is_no_bus() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    assert!(zbus::block_on(bus.connection.release_name("org.freedesktop.systemd1")).unwrap());
    let error = manager.start("a.service", LONG).unwrap_err();
    assert_eq!(error.kind(), Kind::NoBus, "{}", error.report());
}

#[test]
fn exactly_what_ran_is_stopped_and_started_again_in_reverse() {
    let Some(bus) = Bus::start() else { return };
    bus.unit("matrix-bridge.service", "active", |_| {});
    bus.unit("matrix-worker.service", "inactive", |_| {});
    bus.unit("matrix-restarting.service", "activating", |_| {});
    bus.unit("own.service", "active", |_| {});
    bus.unit("dependent.service", "active", |_| {});
    bus.unit("idle-dependent.service", "inactive", |_| {});
    bus.unit("postgres.service", "active", |unit| {
        unit.required_by = names(&["dependent.service", "idle-dependent.service", "matrix-bridge.service"]);
    });
    bus.unit("alias-of-postgres.service", "active", |_| {});
    let list = names(&[
        "matrix-*",
        "own.service",
        "absent.service",
        "alias-of-postgres.service",
        "postgres.service",
        "nothing-*",
    ]);
    let stopped = Stopped::stop(&bus.manager(), &list, LONG).unwrap();
    let expected =
        ["matrix-bridge.service", "matrix-restarting.service", "dependent.service", "postgres.service"];
    assert_eq!(stopped.units(), expected);
    assert_eq!(bus.calls(), expected.map(|unit| format!("stop {unit}")));
    assert!(expected.iter().all(|unit| bus.state(unit) == "inactive"));
    stopped.start_again().unwrap();
    let mut again = expected.map(|unit| format!("start {unit}"));
    again.reverse();
    assert_eq!(bus.calls(), again);
    assert_eq!(bus.state("matrix-worker.service"), "inactive");
}

#[test]
fn units_run_again_when_the_value_is_dropped_or_one_of_them_does_not_stop() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    bus.unit("a.service", "active", |_| {});
    bus.unit("b.service", "active", |_| {});
    drop(Stopped::stop(&manager, &names(&["a.service", "b.service"]), LONG).unwrap());
    assert_eq!(bus.calls(), ["stop a.service", "stop b.service", "start b.service", "start a.service"]);

    bus.change("b.service", |unit| unit.stop = Manner::Hangs);
    let short = Duration::from_secs(1);
    let error = Stopped::stop(&manager, &names(&["a.service", "b.service"]), short).unwrap_err();
    assert_eq!(
        error.report(),
        "could not stop b.service within 1 s\n\
         the units that had been stopped run again\n\
         HINT: journalctl -u b.service -e"
    );
    assert_eq!(bus.calls(), ["stop a.service", "stop b.service", "start b.service", "start a.service"]);
    assert_eq!((bus.state("a.service"), bus.state("b.service")), ("active".into(), "active".into()));
}

#[test]
fn starting_again_tries_all_and_reports_every_failure() {
    let Some(bus) = Bus::start() else { return };
    for name in ["a.service", "b.service", "c.service"] {
        bus.unit(name, "active", |_| {});
    }
    let list = names(&["a.service", "b.service", "c.service"]);
    let stopped = Stopped::stop(&bus.manager(), &list, LONG).unwrap();
    bus.change("a.service", |unit| unit.start = Manner::Refuses);
    bus.change("c.service", |unit| unit.start = Manner::Ends("dependency"));
    let error = stopped.start_again().unwrap_err();
    assert_eq!(bus.state("b.service"), "active");
    assert_eq!(
        error.report(),
        "could not start 2 units again\n \
         -> could not start c.service: systemd's job for it ended with \"dependency\"; \
         it is failed (active, result: exit-code)\n \
         -> could not start a.service: Permission denied\n\
         these units were running before, and are not running now: c.service, a.service\n\
         HINT: systemctl start c.service a.service"
    );
}

#[test]
fn a_unit_started_for_the_time_being_is_stopped_only_if_it_did_not_run() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    bus.unit("a.service", "inactive", |_| {});
    let started = Started::ensure(&manager, "a.service", LONG).unwrap();
    started.stop().unwrap();
    drop(Started::ensure(&manager, "a.service", LONG).unwrap());
    assert_eq!(bus.calls(), ["start a.service", "stop a.service", "start a.service", "stop a.service"]);

    bus.unit("b.service", "active", |_| {});
    let started = Started::ensure(&manager, "b.service", LONG).unwrap();
    started.stop().unwrap();
    assert_eq!(bus.calls(), [""; 0]);

    bus.change("a.service", |unit| unit.start = Manner::Hangs);
    let error = Started::ensure(&manager, "a.service", Duration::from_secs(1)).unwrap_err();
    assert_eq!(
        error.report(),
        "could not start a.service within 1 s\n\
         a.service was stopped again\n\
         HINT: journalctl -u a.service -e"
    );
    assert_eq!(bus.calls(), ["start a.service", "stop a.service"]);

    bus.change("a.service", |unit| unit.start = Manner::Refuses);
    assert_eq!(Started::ensure(&manager, "a.service", LONG).unwrap_err().kind(), Kind::UnitRefused);
    assert_eq!(bus.calls(), ["start a.service"]);
}

#[test]
fn a_timer_tells_its_next_run() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    let next: jiff::Timestamp = "2099-11-25T03:00:00Z".parse().unwrap();
    let timer = |active: &str, sub: &str| {
        bus.unit("backup.timer", active, |unit| {
            sub.clone_into(&mut unit.sub);
            unit.next_realtime = next.as_microsecond().cast_unsigned();
        });
        manager.timer("backup.timer").unwrap()
    };
    let waiting = timer("active", "waiting");
    assert_eq!((waiting.is_active(), waiting.next_run, waiting.last_run), (true, Some(next), None));
    let running = timer("active", "running");
    assert_eq!((running.is_running(), running.next_run), (true, None));
    let inactive = timer("inactive", "dead");
    assert_eq!((inactive.is_active(), inactive.next_run), (false, None));
    assert_eq!(manager.timer("absent.timer").unwrap_err().kind(), Kind::NoUnit);
}

#[test]
fn a_process_belongs_to_a_unit_or_to_none() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    bus.unit("own.service", "active", |_| {});
    assert_eq!(manager.unit_of(0).unwrap().as_deref(), Some("own.service"));
    assert_eq!(manager.unit_of(1).unwrap(), None);
}

#[test]
fn a_lock_that_logind_does_not_give_is_no_failure() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    assert!(Inhibitor::take(&manager, "upgrade").is_some());
    assert!(Inhibitor::take(&manager, "refused").is_none());
}

/// Runs one of the tests that change the whole process in a process of its own.
fn alone(test: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command
}

#[test]
fn a_signal_ends_a_wait_and_not_what_puts_things_back() {
    assert!(alone("process_that_gets_a_signal").status().unwrap().success());
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn process_that_gets_a_signal() {
    let Some(bus) = Bus::start() else { return };
    let manager = bus.manager();
    bus.unit("a.service", "active", |_| {});
    bus.unit("b.service", "inactive", |_| {});
    bus.unit("c.service", "inactive", |unit| unit.start = Manner::Hangs);
    let stopped = Stopped::stop(&manager, &names(&["a.service"]), LONG).unwrap();
    let started = Started::ensure(&manager, "b.service", LONG).unwrap();

    interrupt::listen().unwrap();
    let world = bus.world.clone();
    let signal = std::thread::spawn(move || {
        while lock(&world).calls.last().is_none_or(|call| call != "start c.service") {
            std::thread::yield_now();
        }
        nix::sys::signal::raise(nix::sys::signal::SIGTERM).unwrap();
    });
    let clock = Instant::now();
    let error = Started::ensure(&manager, "c.service", LONG).unwrap_err();
    signal.join().unwrap();
    assert!(clock.elapsed() < LONG / 2);
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(bus.calls().last().map(String::as_str), Some("stop c.service"));
    assert_eq!(manager.stop_all(&names(&["b.service"]), LONG).unwrap_err().kind(), Kind::Interrupted);

    started.stop().unwrap();
    stopped.start_again().unwrap();
    assert_eq!((bus.state("a.service"), bus.state("b.service")), ("active".into(), "inactive".into()));
}

#[test]
fn the_service_manager_gets_one_message_for_status_and_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    assert!(alone("process_that_notifies").env("NOTIFY_SOCKET", &path).status().unwrap().success());
    let mut message = [0; 200];
    for expected in ["STATUS=preparing\n", "STATUS=x: 43 %\nEXTEND_TIMEOUT_USEC=1800000000\n"] {
        let length = socket.recv(&mut message).unwrap();
        assert_eq!(std::str::from_utf8(&message[..length]).unwrap(), expected);
    }
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn process_that_notifies() {
    notify::status("preparing");
    notify::alive("x: 43 %", Duration::from_secs(1800));
}
