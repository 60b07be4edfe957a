//! SQL that others wrote, taken apart as psql does it, and never by lines or by counting quotes.
//!
//! - [`lexer`]: where statements begin and end, and what is no statement
//! - [`guard`]: what may reach a server of a script that somebody else wrote

pub mod guard;
pub mod lexer;

pub use guard::{Guard, Refusal};
pub use lexer::{Event, Lexer};
