//! What an upgrade does, without an order.
//!
//! - `hold`: whether the data directory is ours to work on
//! - [`site`]: where it works, and with what
//! - [`work`]: what every step works with, its journal first of all
//! - [`clock`]: how long a step takes
//! - [`cluster`]: the new one, as initdb makes it
//! - [`servers`]: both clusters on private sockets
//! - [`copy`]: a copy that follows the homeserver
//! - [`cut`]: the end of the clients and of the server
//! - [`transfer`], [`dump_directory`]: by way of a dump
//! - [`login`]: who may log in to the new cluster until it is opened
//! - `registration`: what a cluster of Debian's has in /etc
//! - `stand_in`: what stands for the unit of a server that was replaced
//! - `unit_file`: files that are written for units of others
//! - `drop_in`: which image a playbook's unit runs
//! - `live`: the end, and the start, of a unit's server
//! - `container`: the same of a server in one
//! - [`exchange`]: two data directories change places
//! - [`keep`]: the old one goes to where it is kept
//! - `stanza`: that of pgBackRest becomes that of the cluster in place
//! - [`temporary`]: clusters to try something out, and their end

pub mod clock;
pub mod cluster;
mod container;
pub mod copy;
pub mod cut;
pub(in crate::upgrade) mod drop_in;
pub mod dump_directory;
pub mod exchange;
pub(in crate::upgrade) mod hold;
pub mod keep;
mod live;
pub mod login;
pub(in crate::upgrade) mod registration;
pub mod servers;
pub mod site;
pub(in crate::upgrade) mod stand_in;
pub(in crate::upgrade) mod stanza;
pub(in crate::upgrade) mod temporary;
pub mod transfer;
mod unit_file;
pub mod work;
