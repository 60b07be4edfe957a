//! What `matrix-postgres.service` starts: the major version that the data directory holds, as the owner of
//! the data directory; an empty data directory is made into a cluster first.
//!
//! - [`plan`]: what was found → what is done
//! - [`initialise`]: a new cluster, which appears whole or not at all
//! - [`start`]: gives up root, becomes `postgres`
//! - `stop`: ends it
//! - `socket_directory`: whose the socket's directory is

pub mod initialise;
pub mod plan;
mod socket_directory;
mod start;
mod stop;

pub use plan::Plan;
pub use socket_directory::hand_back;
pub use start::start;
pub use stop::stop;
