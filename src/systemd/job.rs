//! Jobs: what a start or a stop becomes in systemd's queue, and how it ended.
//!
//! systemd answers a call with the object of a job and tells of the job's end in a signal, which may come
//! before the answer. So the signals are listened to before the call and gathered while it is under way.
//! `done` is also said of a start that a condition skipped: what counts is the unit's state afterwards.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use zbus::OwnedObjectPath;
use zbus::export::futures_core::Stream as _;
use zruntime::SharedRuntime;

use super::bus::{self, JobRemovedStream};
use super::manager::{Manager, no_unit};
use super::unit::Unit;
use super::verb::{Patience, Verb};
use crate::error::{Error, Kind, Result};

/// How soon a signal to this process is noticed.
const TICK: Duration = Duration::from_millis(100);

/// How often it is looked whether what there is suffices.
const LOOK: Duration = Duration::from_millis(10);

impl Manager {
    /// Starts a unit and waits until that is done; a signal to this process ends the wait.
    ///
    /// Success means that the unit is active, or has done its work (a oneshot). A job that is not done in
    /// time goes on nevertheless.
    ///
    /// # Errors
    /// [`Kind::NoUnit`], [`Kind::UnitJob`] (failed, skipped by a condition, or not done within `timeout`),
    /// [`Kind::UnitRefused`], [`Kind::NoBus`], [`Kind::Interrupted`].
    pub fn start(&self, name: &str, timeout: Duration) -> Result<Unit> {
        self.carry_out(Verb::Start, name, timeout, Patience::UntilSignal)
    }

    /// Stops all of these, at the same time, and waits until that is done; a signal to this process ends the wait.
    /// `timeout` is for all of them together.
    ///
    /// # Errors
    /// As [`Manager::start`]: that of the first unit. Others may have been stopped.
    pub fn stop_all(&self, units: &[String], timeout: Duration) -> Result<()> {
        self.carry_out_all(Verb::Stop, units, timeout, Patience::UntilSignal)
            .into_iter()
            .try_for_each(|r| r.map(drop))
    }

    /// Starts all of these, queued in this order and then as their own `After=` orders them, and waits until that is
    /// done. All are tried. Not cut short by a signal to this process. One result for each, in the order of `units`.
    pub fn start_all(&self, units: &[String], timeout: Duration) -> Vec<Result<Unit>> {
        self.carry_out_all(Verb::Start, units, timeout, Patience::ToTheEnd)
    }

    /// Starts a unit as [`Manager::start_all`] does, and waits until that is done or `suffices`, whichever is first. What is left
    /// of its job then goes on.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub fn start_until(
        &self,
        name: &str,
        timeout: Duration,
        suffices: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        self.carry_out_until(Verb::Start, name, timeout, Patience::ToTheEnd, suffices)
    }

    /// Stops a unit as [`Manager::stop_all`] does, and waits until that is done or `suffices`, whichever is first.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub fn stop_until(
        &self,
        name: &str,
        timeout: Duration,
        suffices: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        self.carry_out_until(Verb::Stop, name, timeout, Patience::UntilSignal, suffices)
    }

    fn carry_out_until(
        &self,
        verb: Verb,
        unit: &str,
        timeout: Duration,
        patience: Patience,
        suffices: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        patience.check()?;
        self.check(verb, unit)?;
        self.hold(&[unit]);
        let ended = zbus::block_on(self.job_until(verb, unit, timeout, patience, suffices));
        let result = ended.and_then(|ended| match ended {
            Some(result) => self.judge(verb, unit, &result).map(drop),
            None => Ok(()),
        });
        self.release(&[unit]);
        result
    }

    /// How the unit's job ended, in systemd's words; nothing if something else sufficed.
    async fn job_until(
        &self,
        verb: Verb,
        unit: &str,
        timeout: Duration,
        patience: Patience,
        suffices: &mut dyn FnMut() -> bool,
    ) -> Result<Option<String>> {
        let deadline = Instant::now() + timeout;
        let stream = self.listen().await;
        let stream = stream.map_err(|error| bus::failed(&format!("{} {unit}", verb.name()), unit, &error))?;
        let mut removed = Removed { stream, results: HashMap::new() };
        let job = removed.during(self.queue(verb, unit)).await?;
        loop {
            if suffices() {
                return Ok(None);
            }
            if let Some(result) = removed.wait(&job, deadline.min(Instant::now() + LOOK), patience).await? {
                return Ok(Some(result));
            }
            if Instant::now() >= deadline {
                return Err(timed_out(verb, unit, timeout));
            }
        }
    }

    /// Queues the start of a unit and does not wait for it.
    ///
    /// # Errors
    /// [`Kind::NoUnit`], [`Kind::UnitRefused`], [`Kind::NoBus`].
    pub fn queue_start(&self, name: &str) -> Result<()> {
        zbus::block_on(self.systemd.start_unit(name, "replace"))
            .map(drop)
            .map_err(|error| bus::failed(&format!("start {name}"), name, &error))
    }

    /// Starts or stops one unit.
    pub(super) fn carry_out(
        &self,
        verb: Verb,
        unit: &str,
        timeout: Duration,
        patience: Patience,
    ) -> Result<Unit> {
        let units = [unit.to_owned()];
        let mut results = self.carry_out_all(verb, &units, timeout, patience);
        results.pop().unwrap_or_else(|| Err(Error::new(Kind::Bug, "a job has no result")))
    }

    /// Starts or stops units at the same time, queued in this order, and waits until all are done. `timeout`
    /// is for all of them together. One result for each unit, in the order of `units`.
    pub(super) fn carry_out_all(
        &self,
        verb: Verb,
        units: &[String],
        timeout: Duration,
        patience: Patience,
    ) -> Vec<Result<Unit>> {
        let checks: Vec<_> =
            units.iter().map(|unit| patience.check().and_then(|()| self.check(verb, unit))).collect();
        let good = units.iter().zip(&checks).filter(|(_, check)| check.is_ok());
        let good: Vec<_> = good.map(|(unit, _)| unit.as_str()).collect();
        self.hold(&good);
        let mut ended = zbus::block_on(self.jobs(verb, &good, timeout, patience)).into_iter();
        let outcome = |(unit, check): (&String, Result<()>)| {
            check?;
            let result = ended.next().unwrap_or_else(|| Err(Error::new(Kind::Bug, "a job has no result")))?;
            self.judge(verb, unit, &result)
        };
        let results = units.iter().zip(checks).map(outcome).collect();
        self.release(&good);
        results
    }

    /// Keeps systemd from forgetting units that end, and how they did, before we have looked. It takes the
    /// right to manage them; without it, a oneshot that a condition skipped cannot be told from a done one.
    fn hold(&self, units: &[&str]) {
        zbus::block_on(async {
            for unit in units {
                if let Err(error) = self.systemd.ref_unit(unit).await {
                    log::debug!("could not take a reference on {unit}: {error}");
                }
            }
        });
    }

    fn release(&self, units: &[&str]) {
        zbus::block_on(async {
            for unit in units {
                // One that was not held, or not loaded, is released already.
                let _ = self.systemd.unref_unit(unit).await;
            }
        });
    }

    fn check(&self, verb: Verb, name: &str) -> Result<()> {
        let unit = self.unit(name)?;
        match verb {
            Verb::Start if !unit.exists() => Err(no_unit(name)),
            // A unit whose file was removed while it runs can still be stopped.
            Verb::Stop if !unit.exists() && !unit.is_wanted() => Err(no_unit(name)),
            _ => Ok(()),
        }
    }

    /// How each unit's job ended, in systemd's words.
    async fn jobs(
        &self,
        verb: Verb,
        units: &[&str],
        timeout: Duration,
        patience: Patience,
    ) -> Vec<Result<String>> {
        if units.is_empty() {
            return Vec::new();
        }
        let deadline = Instant::now() + timeout;
        let mut removed = match self.listen().await {
            Ok(stream) => Removed { stream, results: HashMap::new() },
            Err(error) => {
                let failed = |unit: &&str| Err(bus::failed(&format!("{} {unit}", verb.name()), unit, &error));
                return units.iter().map(failed).collect();
            }
        };
        let mut jobs = Vec::with_capacity(units.len());
        for unit in units {
            let job = match patience.check() {
                Ok(()) => removed.during(self.queue(verb, unit)).await,
                Err(error) => Err(error),
            };
            jobs.push(job);
        }
        let mut results = Vec::with_capacity(units.len());
        for (unit, job) in units.iter().zip(jobs) {
            results.push(match job {
                Ok(job) => removed
                    .wait(&job, deadline, patience)
                    .await
                    .and_then(|result| result.ok_or_else(|| timed_out(verb, unit, timeout))),
                Err(error) => Err(error),
            });
        }
        results
    }

    /// The rule for the signals is in place when this returns.
    async fn listen(&self) -> zbus::Result<JobRemovedStream> {
        let stream = self.systemd.receive_job_removed().await?;
        match self.systemd.subscribe().await {
            Err(error) if !bus::is(&error, "AlreadySubscribed") => Err(error),
            _ => Ok(stream),
        }
    }

    /// Queues the stop of a unit and does not wait for it.
    ///
    /// # Errors
    /// As [`Manager::queue_start`].
    pub fn queue_stop(&self, unit: &str) -> Result<()> {
        zbus::block_on(self.queue(Verb::Stop, unit)).map(drop)
    }

    async fn queue(&self, verb: Verb, unit: &str) -> Result<OwnedObjectPath> {
        // As systemctl does: a job that contradicts this one gives way.
        let queued = match verb {
            Verb::Start => self.systemd.start_unit(unit, "replace").await,
            Verb::Stop => self.systemd.stop_unit(unit, "replace").await,
        };
        queued.map_err(|error| bus::failed(&format!("{} {unit}", verb.name()), unit, &error))
    }

    /// What the end of the job means for the unit, by its state now.
    fn judge(&self, verb: Verb, name: &str, result: &str) -> Result<Unit> {
        let unit = self.unit(name)?;
        let problem = match (verb, result) {
            (Verb::Start, "done" | "skipped") if unit.is_active() => return Ok(unit),
            (Verb::Start, "done" | "skipped") if unit.active_state == "inactive" => {
                if unit.condition_met {
                    return Ok(unit);
                }
                "a condition of the unit is not met".to_owned()
            }
            (Verb::Stop, "done") if !unit.is_wanted() => return Ok(unit),
            (Verb::Stop, "done") => "it was started again meanwhile".to_owned(),
            (_, "done") => "it ended immediately".to_owned(),
            (_, result) => format!("systemd's job for it ended with \"{result}\""),
        };
        let message = format!("could not {} {name}: {problem}; it is {}", verb.name(), unit.describe());
        let error = Error::new(Kind::UnitJob, message).hint(journal(name));
        Err(match unit.said.filter(|_| unit.active_state == "failed") {
            Some(said) => error.because(said),
            None => error,
        })
    }
}

fn timed_out(verb: Verb, unit: &str, timeout: Duration) -> Error {
    let message = format!("could not {} {unit} within {} s", verb.name(), timeout.as_secs_f64());
    Error::new(Kind::UnitJob, message).hint(journal(unit))
}

pub(super) fn journal(unit: &str) -> String {
    format!("journalctl -u {unit} -e")
}

/// The jobs that have ended since we listen.
struct Removed {
    stream: JobRemovedStream,
    results: HashMap<OwnedObjectPath, String>,
}

impl Removed {
    /// Runs `call`, and gathers the signals meanwhile: were they left to queue up, the connection would come
    /// to a stop when the queue is full.
    async fn during<T>(&mut self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        poll_fn(|context| {
            let answer = call.as_mut().poll(context);
            if answer.is_pending() {
                self.gather(context);
            }
            answer
        })
        .await
    }

    /// How the job ended; nothing if it has not by the deadline.
    async fn wait(
        &mut self,
        job: &OwnedObjectPath,
        deadline: Instant,
        patience: Patience,
    ) -> Result<Option<String>> {
        let runtime = SharedRuntime::current()
            .map_err(|error| Error::new(Kind::Bug, "could not wait for a job").because(error))?;
        loop {
            let tick = deadline.min(Instant::now() + TICK);
            let ended = poll_fn(|context| {
                let open = self.gather(context);
                match self.results.remove(job) {
                    Some(result) => Poll::Ready(Some(result)),
                    None if open => Poll::Pending,
                    None => Poll::Ready(None),
                }
            });
            match runtime.timeout_at(tick, ended).await {
                Ok(Some(result)) => return Ok(Some(result)),
                Ok(None) => {
                    return Err(Error::new(Kind::NoBus, "the system bus closed the connection during a job")
                        .hint("systemctl list-jobs shows the running jobs"));
                }
                Err(_) => patience.check()?,
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Takes in every signal that has arrived; false once there will be no more.
    fn gather(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            match Pin::new(&mut self.stream).poll_next(context) {
                Poll::Ready(Some(signal)) => {
                    if let Ok(ended) = signal.args() {
                        self.results.insert(ended.job, ended.result);
                    }
                }
                Poll::Ready(None) => return false,
                Poll::Pending => return true,
            }
        }
    }
}
