//! What makes backups, reads them back and restores them. The verbs, which say when and in which order, know an [`Engine`] only;
//! another one than PostgreSQL's own programs is another implementor.

use std::path::Path;
use std::sync::Arc;

use super::catalogue::Entry;
use super::companions::Bundle;
use super::create;
use super::manifest::Manifest;
use super::plan::Plan;
use super::read_back::{self, Findings};
use super::restore;
use super::store::Store;
use super::verify::record;
use crate::config::Settings;
use crate::error::Result;
use crate::postgres::Connection;
use crate::report::Progress;
use crate::runtime::Runtime;

/// Makes backups in a store, and brings them back.
pub trait Engine {
    /// Where the backups are.
    fn store(&self) -> &dyn Store;

    /// Makes the backup of the plan with these companions; it has its name then, and has not been read back yet.
    ///
    /// # Errors
    /// Whatever the programs or the store report. There is then no such backup, and all others are as they were.
    fn create(
        &self,
        connection: &Connection,
        plan: &Plan,
        companions: Bundle,
        progress: &mut dyn Progress,
    ) -> Result<Manifest>;

    /// Reads a backup's files back, decrypted with `identity` where it is needed, and changes nothing.
    ///
    /// # Errors
    /// [`crate::Kind::Damaged`]; [`crate::Kind::NoKey`] if the identity is the wrong one; and others when it could not be read.
    fn examine(
        &self,
        files: &dyn Store,
        manifest: &Manifest,
        identity: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Findings>;

    /// Restores a database by the plan; the caller holds the lock.
    ///
    /// # Errors
    /// Every kind. Until the new database has its name, those that there were are as they were.
    fn restore(
        &self,
        plan: &restore::Plan,
        request: &restore::RestoreRequest<'_>,
        progress: &mut dyn Progress,
    ) -> Result<restore::Outcome>;

    /// Brings back the roles of a backup that are not there; those that are stay as they are.
    ///
    /// # Errors
    /// [`crate::Kind::Damaged`], or [`crate::Kind::Server`] with the server's own words.
    fn restore_globals(&self, entry: &Entry, identity: Option<&Path>) -> Result<restore::Outcome>;

    /// Reads a backup's files back and records the result, good or bad, in its manifest. Of what is encrypted, whose content was
    /// read back before, that is the files' digests.
    ///
    /// # Errors
    /// As [`record`].
    fn verify(&self, files: &dyn Store, manifest: Manifest, progress: &mut dyn Progress) -> Result<Manifest> {
        let found = self.examine(files, &manifest, None, progress);
        record(files, manifest, found)
    }
}

/// PostgreSQL's own programs: pg_dump and pg_restore.
pub struct Dumps<'a> {
    settings: &'a Settings,
    runtime: &'a dyn Runtime,
    store: Arc<dyn Store>,
}

impl<'a> Dumps<'a> {
    /// Of the server and in the store that the settings name.
    pub fn new(settings: &'a Settings, runtime: &'a dyn Runtime) -> Self {
        Self { settings, runtime, store: super::store_of(&settings.backup) }
    }
}

impl Engine for Dumps<'_> {
    fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn create(
        &self,
        connection: &Connection,
        plan: &Plan,
        companions: Bundle,
        progress: &mut dyn Progress,
    ) -> Result<Manifest> {
        create::create(self.store(), self.settings, self.runtime, connection, plan, companions, progress)
    }

    fn examine(
        &self,
        files: &dyn Store,
        manifest: &Manifest,
        identity: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Findings> {
        read_back::examine(files, manifest, identity, self.runtime, progress)
    }

    fn restore(
        &self,
        plan: &restore::Plan,
        request: &restore::RestoreRequest<'_>,
        progress: &mut dyn Progress,
    ) -> Result<restore::Outcome> {
        restore::carry_out(self.settings, self.runtime, plan, request, progress)
    }

    fn restore_globals(&self, entry: &Entry, identity: Option<&Path>) -> Result<restore::Outcome> {
        restore::globals(self.settings, self.runtime, entry, identity)
    }
}
