//! The page of all errors, `docs/messages.md`, is that of the code: `MESSAGES_WRITE=1 cargo test --test messages` writes it anew.
//!
//! It reads the sources, and takes each `Error::new` with what is known of it there: its kind, its message, the state that it
//! tells, and its hint. What is put in when it happens is `…`.

#![allow(clippy::unwrap_used, reason = "a test that finds no value fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use matrix_postgres::{Error, Kind};
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall, ExprMethodCall, Lit, Local, Pat};

const PAGE: &str = "docs/messages.md";

const KINDS: [Kind; 20] = [
    Kind::Bug,
    Kind::Damaged,
    Kind::Config,
    Kind::File,
    Kind::NoSpace,
    Kind::NotInstalled,
    Kind::DataDirectory,
    Kind::Server,
    Kind::Program,
    Kind::Locked,
    Kind::NoBackup,
    Kind::NoUnit,
    Kind::UnitJob,
    Kind::UnitRefused,
    Kind::NoBus,
    Kind::NotWell,
    Kind::Interrupted,
    Kind::NotDelivered,
    Kind::NoKey,
    Kind::NotTaken,
];

#[test]
fn the_page_of_messages_is_that_of_the_code() {
    let mut messages = Messages::default();
    read(Path::new("src"), &mut messages);
    let page = messages.page();
    assert!(messages.found.len() > 150, "{} messages were found", messages.found.len());
    if std::env::var_os("MESSAGES_WRITE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page, "{PAGE} is not that of the code: MESSAGES_WRITE=1 cargo test --test messages");
}

fn read(directory: &Path, messages: &mut Messages) {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read(&path, messages);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
            messages.visit_file(&file);
        }
    }
}

/// One error, as far as it can be known before it happens.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    kind: String,
    text: String,
    state: Option<String>,
    hint: Option<String>,
}

#[derive(Default)]
struct Messages {
    found: BTreeSet<Message>,
    /// Texts that have a name in the function that is being read.
    named: BTreeMap<String, String>,
}

impl Messages {
    /// What a text is, if it is written there.
    fn text(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            Expr::Macro(call) if call.mac.path.is_ident("format") => {
                let first = call.mac.tokens.clone().into_iter().next()?;
                let literal: syn::LitStr = syn::parse2(first.into()).ok()?;
                Some(without_arguments(&literal.value()))
            }
            Expr::Path(path) => self.named.get(&path.path.get_ident()?.to_string()).cloned(),
            Expr::Reference(reference) => self.text(&reference.expr),
            _ => None,
        }
    }

    fn take(&mut self, call: &ExprCall, state: Option<String>, hint: Option<String>) -> bool {
        let Expr::Path(function) = &*call.func else { return false };
        let names: Vec<_> = function.path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names != ["Error", "new"] && names != ["Self", "new"] {
            return false;
        }
        let (Some(Expr::Path(kind)), Some(text)) =
            (call.args.first(), call.args.iter().nth(1).and_then(|text| self.text(text)))
        else {
            return false;
        };
        let parts: Vec<_> = kind.path.segments.iter().map(|part| part.ident.to_string()).collect();
        if let [.., owner, kind] = parts.as_slice()
            && owner == "Kind"
        {
            self.found.insert(Message { kind: kind.clone(), text, state, hint });
            return true;
        }
        false
    }

    fn page(&self) -> String {
        let mut page = "\
# Messages

Every error, by its exit status: what it says, the state that it reports, and what to do. `…` is what is put in when it happens. The
cause, in the words of the program or of the system, follows in lines that begin with `->`.
"
        .to_owned();
        let meanings = std::fs::read_to_string("docs/exit-statuses.md").unwrap();
        for kind in KINDS {
            let name = format!("{kind:?}");
            let of_kind: Vec<_> = self.found.iter().filter(|message| message.kind == name).collect();
            let told = Error::new(kind, "").told();
            let usual = told.split_once("HINT: ").map_or("", |(_, hint)| hint);
            let status = kind.exit_status();
            let meaning = meanings.lines().find_map(|line| line.strip_prefix(&format!("| {status} | ")));
            let meaning = meaning.unwrap_or_default().trim_end_matches(" |");
            let _ = write!(page, "\n## {status}\n\n{meaning}. Without a hint of its own: {}\n", cell(usual));
            if of_kind.is_empty() {
                continue;
            }
            page.push_str("\n| message | state | what to do |\n|---|---|---|\n");
            for message in of_kind {
                let or_nothing = |text: &Option<String>| text.as_deref().map(cell).unwrap_or_default();
                let (state, hint) = (or_nothing(&message.state), or_nothing(&message.hint));
                let _ = writeln!(page, "| {} | {state} | {hint} |", cell(&message.text));
            }
        }
        page
    }
}

/// In a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;").replace('*', "\\*")
}

/// Without what stands between braces.
fn without_arguments(format: &str) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let doubled = rest[at..].starts_with("{{") || rest[at..].starts_with("}}");
        rest = if doubled {
            text.push_str(&rest[at..=at]);
            &rest[at + 2..]
        } else {
            text.push('…');
            rest[at..].split_once('}').map_or("", |(_, rest)| rest)
        };
    }
    text + rest
}

impl<'ast> Visit<'ast> for Messages {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" && module.ident != "testing" {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let (Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && let Some(text) = self.text(&init.expr)
        {
            self.named.insert(name.ident.to_string(), text);
        }
        visit::visit_local(self, local);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.named.clear();
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.named.clear();
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let (mut state, mut hint) = (None, None);
        let mut at = call;
        loop {
            match at.method.to_string().as_str() {
                "state" => state = at.args.first().and_then(|text| self.text(text)).or(state),
                // The innermost is kept.
                "hint" => hint = at.args.first().and_then(|text| self.text(text)).or(hint),
                _ => {}
            }
            match &*at.receiver {
                Expr::MethodCall(below) => at = below,
                Expr::Call(call) if self.take(call, state.take(), hint.take()) => return,
                _ => break,
            }
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if !self.take(call, None, None) {
            visit::visit_expr_call(self, call);
        }
    }
}

#[test]
fn what_is_put_in_is_left_out() {
    assert_eq!(without_arguments("could not {action} {}: {{x}}, {:?}"), "could not … …: {x}, …");
}
