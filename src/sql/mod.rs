//! SQL that others wrote, taken apart as psql does it, and never by lines or by counting quotes.
//!
//! - [`lexer`]: where statements begin and end, and what is no statement
//! - `statement`: one of them while it passes
//! - [`script`]: a whole script, part by part
//! - [`tokens`]: one statement, and which roles it is about
//! - [`output`]: what of it is handed on
//! - [`refusal`]: why it is not loaded
//! - [`guard`]: what may reach a server of a script that somebody else wrote

pub mod guard;
pub mod lexer;
pub mod output;
pub mod refusal;
pub mod script;
mod statement;
pub mod tokens;

pub use guard::Guard;
pub use lexer::{Event, Lexer};
pub use output::Output;
pub use refusal::Refusal;
pub use script::{Item, Script, Visitor};
pub use tokens::{Token, tokens};
