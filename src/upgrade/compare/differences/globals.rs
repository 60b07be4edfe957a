//! Roles, memberships and settings.

use std::collections::BTreeSet;

use super::{Found, Rank};
use crate::upgrade::compare::globals::{Globals, Membership, Role};

impl Found {
    pub(super) fn globals(&mut self, old: &Globals, new: &Globals) {
        for (name, was) in &old.roles {
            match new.roles.get(name) {
                None => self.at(Rank::Roles, format!("role {name:?} is missing")),
                Some(is) => self.role(name, was, is),
            }
        }
        for name in new.roles.keys().filter(|name| !old.roles.contains_key(*name)) {
            self.at(Rank::Roles, format!("role {name:?} exists, and did not before"));
        }
        for was in &old.memberships - &new.memberships {
            let same = |is: &&Membership| is.role == was.role && is.member == was.member;
            let is = new.memberships.iter().filter(same).map(Membership::options).collect::<Vec<_>>();
            let who = format!("role {:?} is a member of {:?}", was.member, was.role);
            self.at(
                Rank::Roles,
                match is.is_empty() {
                    true => format!("role {:?} is no member of {:?}, and was before", was.member, was.role),
                    false => format!("{who} with {}, and was with {} before", is.join("; "), was.options()),
                },
            );
        }
        for is in &new.memberships - &old.memberships {
            let known = |was: &Membership| is.role == was.role && is.member == was.member;
            if !old.memberships.iter().any(known) {
                self.at(
                    Rank::Roles,
                    format!("role {:?} is a member of {:?}, and was not before", is.member, is.role),
                );
            }
        }
        self.statements("", Rank::Roles, &old.statements, &new.statements);
    }

    pub(super) fn role(&mut self, name: &str, was: &Role, is: &Role) {
        let words = |attributes: BTreeSet<String>| match attributes.is_empty() {
            true => "nothing".to_owned(),
            false => attributes.into_iter().collect::<Vec<_>>().join(", "),
        };
        if was.attributes != is.attributes {
            let (gone, come) = (&was.attributes - &is.attributes, &is.attributes - &was.attributes);
            self.at(
                Rank::Roles,
                format!("role {name:?} has {}, and had {} before", words(come), words(gone)),
            );
        }
        match (&was.password, &is.password) {
            (Some(_), None) => {
                self.at(Rank::Roles, format!("role {name:?} has no password, and had one before"));
            }
            (None, Some(_)) => {
                self.at(Rank::Roles, format!("role {name:?} has a password, and had none before"));
            }
            (was, is) if was != is => self.at(Rank::Roles, format!("role {name:?} has another password")),
            _ => {}
        }
    }
}
