//! Where an upgrade works, and with what: in earnest or not.

use crate::account::Account;
use crate::config::Settings;
use crate::postgres::Connection;
use crate::runtime::Runtime;
use crate::upgrade::plan::Plan;

/// What both a run and a rehearsal have.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Where PostgreSQL's programs run.
    pub runtime: &'a dyn Runtime,
    /// Who owns the cluster.
    pub account: &'a Account,
    /// What is to be done.
    pub plan: &'a Plan,
}

impl Site<'_> {
    /// How to reach the server that is upgraded.
    pub fn live(&self) -> Connection {
        self.settings.connection().to_server(self.plan.upgrade.from)
    }
}
