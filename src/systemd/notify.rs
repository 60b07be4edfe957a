//! Messages to the service manager that started this process, sd_notify(3). Without one they go nowhere.

use std::time::Duration;

use sd_notify::NotifyState;

/// The longest time that the message can carry, in microseconds.
const LONGEST: u32 = u32::MAX;

/// The line that `systemctl status` shows; a text of several lines becomes one.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
}

/// The same, and the start may take `ahead` longer from now on, however long the unit's
/// `TimeoutStartSec=` is. It never becomes shorter by this.
pub fn alive(text: &str, ahead: Duration) {
    send(&[NotifyState::Status(&one_line(text)), extension(ahead)]);
}

/// The start is done (`Type=notify`).
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// From now on nobody of this unit is heard any more, whatever its `NotifyAccess=` (systemd 254 and later; an older one does not
/// know this).
pub fn end() {
    send(&[NotifyState::Custom("NOTIFYACCESS=none")]);
}

fn extension(ahead: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(ahead.as_micros()).unwrap_or(LONGEST))
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn send(states: &[NotifyState<'_>]) {
    // The work does not depend on anybody listening.
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("could not notify the service manager: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_in_another_message() {
        assert_eq!(one_line("dumping a\nREADY=1\r\n"), "dumping a; READY=1");
    }

    #[test]
    fn a_longer_time_than_the_message_can_carry_is_the_longest() {
        let text = extension(Duration::from_secs(86_400)).to_string();
        assert_eq!(text, format!("EXTEND_TIMEOUT_USEC={LONGEST}"));
    }
}
