//! Which backups go: pure in the list and the time, a plan that prints itself.
//!
//! Nothing goes while the newest backup is not verified, and never the newest verified one. What cannot be
//! read, what holds files of somebody else and what is of the future stays, and is reported. What is of the future
//! decides nothing about the others.

use std::fmt;

use jiff::ZonedDateTime;
use jiff::civil::Date;

use super::name::BackupName;
use crate::config::Keep;

/// A backup, as far as its removal is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: BackupName,
    /// What is known of it.
    pub state: State,
    /// What is in its directory and not of it, or why the directory is not ours at all.
    pub foreign: Option<String>,
}

/// What is known of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was read back whole and found good.
    Verified,
    /// It has not been read back.
    NotReadBack,
    /// It was found damaged.
    Damaged,
    /// Its manifest cannot be trusted.
    Unreadable,
}

/// A period of which the newest backup is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `keep.last`
    Last,
    /// `keep.daily`
    Daily,
    /// `keep.weekly`
    Weekly,
    /// `keep.monthly`
    Monthly,
    /// `keep.yearly`
    Yearly,
}

/// Why a backup stays, or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The newest one that was read back whole: it always stays.
    NewestVerified,
    /// It is the so-manieth of so many that this rule keeps.
    Rule(Rule, u32, u32),
    /// Nothing goes, because the newest backup is not verified.
    NewestNotVerified,
    /// It holds something that is not ours.
    Foreign(String),
    /// Its manifest cannot be trusted, so that nobody knows what it holds.
    Unreadable,
    /// It is not verified, and fewer newer ones are than would take its place.
    NotReplaced(State),
    /// It bears a time that is yet to come.
    Future,
    /// It is not verified, and enough newer ones are.
    Replaced(State),
    /// No rule keeps it.
    NoRule,
}

/// What happens to one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The backup.
    pub name: BackupName,
    /// Whether it stays.
    pub keep: bool,
    /// Why; at least one.
    pub reasons: Vec<Reason>,
}

/// What happens to all of them, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each backup.
    pub decisions: Vec<Decision>,
}

impl Plan {
    /// Those that go, oldest first.
    pub fn removed(&self) -> impl Iterator<Item = BackupName> {
        self.decisions.iter().rev().filter(|decision| !decision.keep).map(|decision| decision.name)
    }

    /// Those that stay although nothing wants them: somebody has to look.
    pub fn left(&self) -> impl Iterator<Item = &Decision> {
        let strange =
            |reason: &Reason| matches!(reason, Reason::Foreign(_) | Reason::Unreadable | Reason::Future);
        self.decisions.iter().filter(move |decision| decision.reasons.iter().any(strange))
    }
}

/// Decides about `backups`, in whatever order; days, weeks, months and years are those of `now`'s zone.
pub fn plan(backups: &[Candidate], keep: &Keep, now: &ZonedDateTime) -> Plan {
    let mut backups: Vec<_> = backups.iter().collect();
    backups.sort_by_key(|candidate| std::cmp::Reverse(candidate.name));
    let mut known = backups.iter().filter(|one| !one.name.is_future(now.timestamp())).peekable();
    let frozen = known.peek().is_some_and(|newest| newest.state != State::Verified);
    let newest_verified = known.find(|one| one.state == State::Verified).map(|one| one.name);
    let mut rules = Rules::new(keep);
    let mut verified = 0;
    let decide = |candidate: &Candidate| {
        let Candidate { name, state, ref foreign } = *candidate;
        let mut kept = Vec::new();
        if Some(name) == newest_verified {
            kept.push(Reason::NewestVerified);
        }
        if let Some(what) = foreign {
            kept.push(Reason::Foreign(what.clone()));
        }
        let mut otherwise = Reason::NoRule;
        if name.is_future(now.timestamp()) {
            // It takes no place in the rules: that is for those whose time is known.
            kept.push(Reason::Future);
        } else if state == State::Verified {
            verified += 1;
            kept.extend(rules.apply(name.time().to_zoned_datetime(now.time_zone().clone()).date()));
        } else if state == State::Unreadable {
            kept.push(Reason::Unreadable);
        } else if verified < keep.last.max(1) {
            kept.push(Reason::NotReplaced(state));
        } else {
            otherwise = Reason::Replaced(state);
        }
        if frozen && kept.is_empty() {
            kept.push(Reason::NewestNotVerified);
        }
        match kept.is_empty() {
            true => Decision { name, keep: false, reasons: vec![otherwise] },
            false => Decision { name, keep: true, reasons: kept },
        }
    };
    Plan { decisions: backups.into_iter().map(decide).collect() }
}

/// What the rules have kept so far, from the newest to the oldest.
struct Rules([Counter; 5]);

/// One rule.
struct Counter {
    rule: Rule,
    limit: u32,
    kept: u32,
    /// The period of the last one that it kept.
    period: Option<Period>,
}

impl Rules {
    fn new(keep: &Keep) -> Self {
        let counter = |rule, limit| Counter { rule, limit, kept: 0, period: None };
        Self([
            counter(Rule::Last, keep.last),
            counter(Rule::Daily, keep.daily),
            counter(Rule::Weekly, keep.weekly),
            counter(Rule::Monthly, keep.monthly),
            counter(Rule::Yearly, keep.yearly),
        ])
    }

    /// The rules that keep the next older one, of this day.
    fn apply(&mut self, date: Date) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for counter in &mut self.0 {
            let period = period(counter.rule, date);
            if counter.kept < counter.limit && (period.is_none() || counter.period != period) {
                counter.kept += 1;
                counter.period = period;
                reasons.push(Reason::Rule(counter.rule, counter.kept, counter.limit));
            }
        }
        reasons
    }
}

/// A year, and the number of the day, week or month in it.
type Period = (i16, i16);

/// The period of which a rule keeps one; it keeps each where there is none.
fn period(rule: Rule, date: Date) -> Option<Period> {
    Some(match rule {
        Rule::Last => return None,
        Rule::Daily => (date.year(), date.day_of_year()),
        Rule::Weekly => {
            let week = date.iso_week_date();
            (week.year(), week.week().into())
        }
        Rule::Monthly => (date.year(), date.month().into()),
        Rule::Yearly => (date.year(), 0),
    })
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "verified",
            Self::NotReadBack => "not read back",
            Self::Damaged => "damaged",
            Self::Unreadable => "not readable",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewestVerified => f.write_str("the newest verified backup"),
            Self::Rule(rule, place, of) => {
                let rule = match rule {
                    Rule::Last => "last",
                    Rule::Daily => "daily",
                    Rule::Weekly => "weekly",
                    Rule::Monthly => "monthly",
                    Rule::Yearly => "yearly",
                };
                write!(f, "{rule} {place} of {of}")
            }
            Self::NewestNotVerified => f.write_str("the newest backup is not verified"),
            Self::Foreign(what) => write!(f, "not ours: {what}"),
            Self::Unreadable => f.write_str("its manifest is not valid; check it"),
            Self::NotReplaced(state) => write!(f, "{state}, but too few newer backups are verified"),
            Self::Future => f.write_str("its time is in the future; check the clock"),
            Self::Replaced(state) => write!(f, "{state}, and newer backups are verified"),
            Self::NoRule => f.write_str("no retention rule keeps it"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Decision { name, keep, reasons }) in self.decisions.iter().enumerate() {
            let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
            let line_end = if position == 0 { "" } else { "\n" };
            let verb = if *keep { "keep" } else { "remove" };
            write!(f, "{line_end}{verb:<6}  {name}  {}", reasons.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Damaged, NotReadBack, Unreadable, Verified};
    use jiff::Timestamp;
    use jiff::ToSpan as _;
    use proptest::prelude::*;

    const NONE: Keep = Keep { last: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

    fn now() -> ZonedDateTime {
        "2026-11-24T09:00:00+00:00[UTC]".parse().unwrap()
    }

    fn candidate(name: &str, state: State) -> Candidate {
        Candidate { name: name.parse().unwrap(), state, foreign: None }
    }

    fn kept(backups: &[Candidate], keep: &Keep) -> Vec<String> {
        let plan = plan(backups, keep, &now());
        plan.decisions.iter().filter(|one| one.keep).map(|one| one.name.to_string()).collect()
    }

    /// One each night at 3, the newest today.
    fn nights(count: i64) -> Vec<Candidate> {
        let night = |back: i64| now().checked_sub(back.days()).unwrap().checked_sub(6.hours()).unwrap();
        (0..count)
            .map(|back| Candidate {
                name: BackupName::at(night(back).timestamp()),
                state: Verified,
                foreign: None,
            })
            .collect()
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        for (keep, expected) in [
            (Keep { last: 2, ..NONE }, vec!["20261124", "20261123"]),
            (Keep { daily: 3, ..NONE }, vec!["20261124", "20261123", "20261122"]),
            // The 24th is a Tuesday.
            (Keep { weekly: 3, ..NONE }, vec!["20261124", "20261122", "20261115"]),
            (Keep { monthly: 3, ..NONE }, vec!["20261124", "20261031", "20260930"]),
            (Keep { yearly: 2, ..NONE }, vec!["20261124", "20251231"]),
            (Keep { last: 1, weekly: 2, ..NONE }, vec!["20261124", "20261122"]),
        ] {
            let kept = kept(&nights(400), &keep);
            let days: Vec<_> = kept.iter().map(|name| &name[..8]).collect();
            assert_eq!(days, expected, "{keep:?}");
        }
    }

    #[test]
    fn a_plan_reads_like_this() {
        let mut backups = nights(5);
        backups[2].state = Damaged;
        backups[3].foreign = Some("notes.txt".into());
        let text = plan(&backups, &Keep { last: 1, daily: 2, ..NONE }, &now()).to_string();
        assert_eq!(
            text,
            "keep    20261124T030000Z  the newest verified backup, last 1 of 1, daily 1 of 2\n\
             keep    20261123T030000Z  daily 2 of 2\n\
             remove  20261122T030000Z  damaged, and newer backups are verified\n\
             keep    20261121T030000Z  not ours: notes.txt\n\
             remove  20261120T030000Z  no retention rule keeps it"
        );
    }

    #[test]
    fn nothing_goes_while_the_newest_is_not_verified() {
        for state in [NotReadBack, Damaged, Unreadable] {
            let mut backups = nights(20);
            backups[0].state = state;
            assert_eq!(kept(&backups, &Keep { last: 1, ..NONE }).len(), 20);
        }
    }

    #[test]
    fn what_is_not_verified_takes_no_place() {
        let backups = [
            candidate("20261124T030000Z", Verified),
            candidate("20261123T040000Z", Damaged),
            candidate("20261123T030000Z", Verified),
            candidate("20261122T030000Z", NotReadBack),
            candidate("20261121T030000Z", Unreadable),
        ];
        assert_eq!(
            kept(&backups, &Keep { last: 2, ..NONE }),
            ["20261124T030000Z", "20261123T040000Z", "20261123T030000Z", "20261121T030000Z"]
        );
    }

    #[test]
    fn a_clock_that_was_set_back_removes_nothing() {
        let mut backups = nights(3);
        backups.push(candidate("20301124T030000Z", Verified));
        backups.push(candidate("20301124T030001Z", Verified));
        let kept = kept(&backups, &Keep { last: 1, ..NONE });
        assert_eq!(kept, ["20301124T030001Z", "20301124T030000Z", "20261124T030000Z"]);
    }

    #[test]
    fn a_backup_of_the_future_freezes_nothing() {
        for state in [Verified, NotReadBack, Damaged, Unreadable] {
            let mut backups = nights(20);
            backups.push(candidate("20301124T030000Z", state));
            let keep = Keep { last: 1, ..NONE };
            assert_eq!(kept(&backups, &keep), ["20301124T030000Z", "20261124T030000Z"], "{state}");
            // Nor does it make up for the newest of today.
            backups[0].state = Damaged;
            assert_eq!(kept(&backups, &keep).len(), 21, "{state}");
        }
    }

    #[test]
    fn the_day_is_that_of_the_zone() {
        // 23:30 and 00:30 of one UTC day's border are the same day in New York.
        let backups = [candidate("20261124T003000Z", Verified), candidate("20261123T233000Z", Verified)];
        let keep = Keep { daily: 2, ..NONE };
        let new_york = jiff::tz::offset(-5).to_time_zone();
        assert_eq!(plan(&backups, &keep, &now()).removed().count(), 0);
        assert_eq!(plan(&backups, &keep, &now().with_time_zone(new_york)).removed().count(), 1);
    }

    fn any_state() -> impl Strategy<Value = State> {
        prop_oneof![6 => Just(Verified), 1 => Just(NotReadBack), 1 => Just(Damaged), 1 => Just(Unreadable)]
    }

    fn any_backups() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0i64..100_000_000, any_state(), proptest::bool::weighted(0.1));
        proptest::collection::vec(one, 0..60).prop_map(|list| {
            let mut list: Vec<_> = list
                .into_iter()
                .map(|(back, state, foreign)| Candidate {
                    name: BackupName::at(
                        Timestamp::from_second(now().timestamp().as_second() - back + 1_000_000).unwrap(),
                    ),
                    state,
                    foreign: foreign.then(|| "x".to_owned()),
                })
                .collect();
            list.sort_by_key(|candidate| candidate.name);
            list.dedup_by_key(|candidate| candidate.name);
            list
        })
    }

    fn any_keep() -> impl Strategy<Value = Keep> {
        (0u32..5, 0u32..9, 0u32..6, 0u32..8, 0u32..3)
            .prop_map(|(last, daily, weekly, monthly, yearly)| Keep { last, daily, weekly, monthly, yearly })
    }

    proptest! {
        #[test]
        fn what_must_stay_stays(backups in any_backups(), keep in any_keep()) {
            let plan = plan(&backups, &keep, &now());
            let removed: Vec<_> = plan.removed().collect();
            prop_assert_eq!(plan.decisions.len(), backups.len());
            prop_assert!(plan.decisions.iter().all(|decision| !decision.reasons.is_empty()));
            let of = |name| backups.iter().find(|candidate| candidate.name == name).unwrap();
            for &name in &removed {
                prop_assert!(of(name).foreign.is_none());
                prop_assert!(of(name).state != Unreadable);
                prop_assert!(!name.is_future(now().timestamp()));
            }
            let past = || backups.iter().rev().filter(|one| !one.name.is_future(now().timestamp()));
            let newest_verified = past().find(|one| one.state == Verified);
            prop_assert!(newest_verified.is_none_or(|newest| !removed.contains(&newest.name)));
            if past().next().is_some_and(|newest| newest.state != Verified) {
                prop_assert!(removed.is_empty());
            }
            // The last so many verified ones of the past.
            for last in past().filter(|one| one.state == Verified).take(keep.last as usize) {
                prop_assert!(!removed.contains(&last.name));
            }
        }

        #[test]
        fn a_second_prune_finds_nothing(backups in any_backups(), keep in any_keep()) {
            let first = plan(&backups, &keep, &now());
            let removed: Vec<_> = first.removed().collect();
            let rest: Vec<_> =
                backups.into_iter().filter(|candidate| !removed.contains(&candidate.name)).collect();
            prop_assert_eq!(plan(&rest, &keep, &now()).removed().count(), 0);
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(backups in any_backups(), keep in any_keep()) {
            let reversed: Vec<_> = backups.iter().rev().cloned().collect();
            prop_assert_eq!(plan(&backups, &keep, &now()), plan(&reversed, &keep, &now()));
        }
    }
}
