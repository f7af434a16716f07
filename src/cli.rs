//! The command line: verbs over one store, wherever it is. Stdout is data, stderr is narration.
//! It must never compute an answer; `store` does, here or in the process that holds the store.
//!
//! Exit codes: 0 yes; 1 no (differs, not found, damaged); 2 usage; 3 input or output failed; 10 no
//! store there; 11 locked and no socket; 12 another format; 13 peer unreachable; 14 refused.

#[cfg(feature = "net")]
mod admission;
mod believe;
mod change;
mod compact;
mod compare;
#[cfg(feature = "net")]
mod demo;
mod look;
mod map;
mod merkle;
mod migrate;
mod output;
mod repair;
mod report;
#[cfg(feature = "net")]
mod serve;
mod simulate;
mod source;
#[cfg(feature = "net")]
mod sync;
mod table;
mod transfer;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::store::{Fault, Verdict};
use output::Output;

/// A replicated store for semantic patterns that converges without a coordinator.
#[derive(Parser)]
#[command(name = "consilience", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 yes; 1 the answer is no (differs, not found, damaged); 2 usage; 3 input or output \
failed; 10 no store there; 11 locked by a process that does not answer; 12 another format; \
13 peer unreachable; 14 refused, nothing changed.";

/// What every verb understands.
#[derive(clap::Args)]
struct Common {
    /// The store: a directory; to read, also a dump file or - for a dump on stdin.
    #[arg(long, global = true, env = "CONSILIENCE_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    /// The space [default: default, or the one a dump is of].
    #[arg(long, global = true, value_name = "ID")]
    space: Vec<String>,
    /// How rows are printed [default: table on a terminal, json otherwise].
    #[arg(long, global = true, value_name = "FORMAT")]
    format: Option<Format>,
}

/// How rows are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: numbers are rounded.
    Table,
    /// For programs: one JSON object a line, numbers are exact.
    Json,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve the store to its peers, and to this command in other terminals, until SIGTERM.
    #[cfg(feature = "net")]
    Serve(serve::ServeArguments),
    /// Run one session with a peer in each space, or in the one named.
    #[cfg(feature = "net")]
    Sync(sync::SyncArguments),
    /// Make a space, and choose how its embeddings are kept.
    Create(change::CreateArguments),
    /// Join dumps into the store, or take plain consolidation lines as observations.
    Load(transfer::LoadArguments),
    /// Write a space as JSON lines.
    Dump(transfer::DumpArguments),
    /// Print patterns by id, or by a prefix that fits one.
    Get(look::GetArguments),
    /// List patterns by id.
    Ls(look::ListArguments),
    /// List what several patterns say together: the same on every replica that holds the same.
    Beliefs(believe::BeliefsArguments),
    /// List what is not settled, or how one pattern stands to others, and why.
    Conflicts(believe::ConflictsArguments),
    /// Print the events a pattern stands on: who said what, and who had not seen whom.
    History(believe::HistoryArguments),
    /// Print the root of a space: equal iff the live patterns are.
    Root(look::SourceArgument),
    /// Print what stands in the trie of a space, or where another one differs and what a session
    /// would exchange.
    Merkle(merkle::MerkleArguments),
    /// Print what there is: spaces, roots, sizes, peers.
    Status(look::SourceArgument),
    /// Compare a space in two sources, pattern by pattern.
    Diff(compare::DiffArguments),
    /// Recompute every digest and compare it with the index.
    Verify(look::SourceArgument),
    /// Bring a stopped store to this release's disk format, as opening it does.
    Migrate(migrate::MigrateArguments),
    /// Rewrite the store so that it takes less space.
    Compact(compact::CompactArguments),
    /// Repair a stopped store: what cannot be read is marked, and comes back from peers.
    Repair(repair::RepairArguments),
    /// Take back citations of a pattern.
    Retract(change::RetractArguments),
    /// Remove patterns.
    Remove(change::RemoveArguments),
    /// Simulate a cluster in this process, and how news spreads in it.
    Simulate(simulate::SimulateArguments),
    /// Make a page of what `simulate -o` wrote.
    Report(report::ReportArguments),
    /// List the peers of the running node.
    #[cfg(feature = "net")]
    Peers,
    /// Print a ticket that lets another machine in; --rotate makes a new key first.
    #[cfg(feature = "net")]
    Invite(admission::InviteArguments),
    /// Enter a cluster with a ticket; serve does the rest.
    #[cfg(feature = "net")]
    Join(admission::JoinArguments),
    /// Let peers in by name, say whom the key alone lets in, or list who may enter.
    #[cfg(feature = "net")]
    Admit(admission::AdmitArguments),
    /// Keep peers out for good: their connections close at once.
    #[cfg(feature = "net")]
    Revoke(admission::RevokeArguments),
    /// Make the running node drop and refuse just these peers; none heals.
    #[cfg(feature = "net")]
    #[command(hide = true)]
    Isolate(sync::IsolateArguments),
    /// Show three nodes learn alone, part, lose one, and agree.
    #[cfg(feature = "net")]
    Demo(demo::DemoArguments),
}

/// Runs the command line of this process and returns its exit code.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("CONSILIENCE_LOG").unwrap_or_else(|_| "warn".into());
    // Somebody who embeds this function may have set a subscriber up already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    let on_terminal = std::io::stdout().is_terminal();
    let default = if on_terminal { Format::Table } else { Format::Json };
    let mut out = Output::stdout(arguments.common.format.unwrap_or(default));
    let verdict = arguments.verb.run(&arguments.common, &mut out);
    let flushed = out.finish();
    match verdict.and_then(|verdict| flushed.map(|()| verdict)) {
        // Whoever read has enough: that is success.
        _ if out.is_closed() => ExitCode::SUCCESS,
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(1),
        Err(fault) => {
            narrate(&format!("failed to {fault}"));
            ExitCode::from(fault.code())
        }
    }
}

impl Verb {
    fn run(&self, common: &Common, out: &mut Output) -> Result<Verdict, Fault> {
        match self {
            #[cfg(feature = "net")]
            Self::Serve(arguments) => serve::serve(common, arguments, out),
            #[cfg(feature = "net")]
            Self::Sync(arguments) => sync::sync(common, arguments, out),
            Self::Create(arguments) => change::create(common, arguments, out),
            Self::Load(arguments) => transfer::load(common, arguments, out),
            Self::Dump(arguments) => transfer::dump(common, arguments, out),
            Self::Get(arguments) => look::get(common, arguments, out),
            Self::Ls(arguments) => look::list(common, arguments, out),
            Self::Beliefs(arguments) => believe::beliefs(common, arguments, out),
            Self::Conflicts(arguments) => believe::conflicts(common, arguments, out),
            Self::History(arguments) => believe::history(common, arguments, out),
            Self::Root(source) => look::root(common, source, out),
            Self::Merkle(arguments) => merkle::merkle(common, arguments, out),
            Self::Status(source) => look::status(common, source, out),
            Self::Diff(arguments) => compare::diff(common, arguments, out),
            Self::Verify(source) => look::verify(common, source, out),
            Self::Migrate(arguments) => migrate::migrate(common, arguments, out),
            Self::Compact(arguments) => compact::compact(common, arguments, out),
            Self::Repair(arguments) => repair::repair(common, arguments, out),
            Self::Retract(arguments) => change::retract(common, arguments, out),
            Self::Remove(arguments) => change::remove(common, arguments, out),
            Self::Simulate(arguments) => simulate::simulate(arguments, out),
            Self::Report(arguments) => report::report(arguments, out),
            #[cfg(feature = "net")]
            Self::Peers => look::peers(common, out),
            #[cfg(feature = "net")]
            Self::Invite(arguments) => admission::invite(common, arguments, out),
            #[cfg(feature = "net")]
            Self::Join(arguments) => admission::join(common, arguments, out),
            #[cfg(feature = "net")]
            Self::Admit(arguments) => admission::admit(common, arguments, out),
            #[cfg(feature = "net")]
            Self::Revoke(arguments) => admission::revoke(common, arguments, out),
            #[cfg(feature = "net")]
            Self::Isolate(arguments) => sync::isolate(common, arguments, out),
            #[cfg(feature = "net")]
            Self::Demo(arguments) => demo::demo(arguments, out),
        }
    }
}

impl Common {
    fn store(&self) -> Result<&Path, Fault> {
        self.store.as_deref().ok_or_else(|| {
            Fault::Usage("choose a store: give --store DIR or set CONSILIENCE_STORE".to_owned())
        })
    }

    /// The space named, for verbs that take at most one.
    fn space(&self) -> Result<Option<&str>, Fault> {
        match &self.space[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Fault::Usage("choose a space: give --space once".to_owned())),
        }
    }
}

/// Says something to whoever watches; data goes to [`Output`] instead.
fn narrate(text: &str) {
    use std::io::Write as _;
    // There is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "consilience: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_all_verbs_holds_together() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_verb() {
        let line = "consilience ls a* --store s --space x --format json";
        let parsed = Arguments::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(parsed.common.store().unwrap(), Path::new("s"));
        assert_eq!(parsed.common.space().unwrap(), Some("x"));
        assert!(parsed.common.format == Some(Format::Json));
    }
}
