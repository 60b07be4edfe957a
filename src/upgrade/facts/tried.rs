//! What an empty cluster of the target has shown.

use serde::{Deserialize, Serialize};

/// Why a method is not possible, or none is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// A sentence, lower case.
    pub message: String,
    /// What to do about it, and what that costs.
    pub hint: Option<String>,
}

/// What empty clusters of the target have shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// What is refused whatever the method.
    pub refused: Vec<Obstacle>,
    /// What is in the way of method `dump`.
    pub dump: Vec<Obstacle>,
    /// What is in the way of method `online`.
    pub online: Vec<Obstacle>,
    /// Databases whose definitions were not tried: they may run functions of owners who are no superusers.
    #[serde(default)]
    pub untried: Vec<String>,
    /// Rows of which it is not known whether they can be loaded from a dump, a sentence each.
    #[serde(default)]
    pub unknown: Vec<String>,
}

impl Tried {
    /// What both methods refuse is in the way of any.
    pub(in crate::upgrade) fn sorted(mut self) -> Self {
        let both = |obstacle: &Obstacle| self.online.contains(obstacle);
        let (common, dump): (Vec<_>, Vec<_>) = self.dump.into_iter().partition(both);
        self.online.retain(|obstacle| !common.contains(obstacle));
        self.dump = dump;
        self.refused.extend(common);
        self.untried.sort();
        self.untried.dedup();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_methods_refuse_is_no_matter_of_the_method() {
        let obstacle = |text: &str| Obstacle { message: text.into(), hint: None };
        let tried = Tried {
            refused: vec![],
            dump: vec![obstacle("both"), obstacle("dump")],
            online: vec![obstacle("online"), obstacle("both")],
            untried: vec!["b".into(), "a".into(), "b".into()],
            unknown: vec![],
        };
        assert_eq!(
            tried.sorted(),
            Tried {
                refused: vec![obstacle("both")],
                dump: vec![obstacle("dump")],
                online: vec![obstacle("online")],
                untried: vec!["a".into(), "b".into()],
                unknown: vec![],
            }
        );
    }
}
