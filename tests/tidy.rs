//! The shape of the source, held as tests: which row imports which, and what may not be written.
//!
//! Every rule is a function of one path and its text, so a second test can show it failing. The
//! rules read words, not types: they never need to know what the code does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rows of `src/README.md`, lowest first. A module imports from rows strictly below its own.
const ROWS: [&[&str]; 12] = [
    &["lattice", "planted"],
    &["pattern"],
    &["codec", "belief"],
    &["index", "disk"],
    &["migrations", "port"],
    &["sync", "table"],
    &["replica"],
    &["host"],
    &["sim", "engine"],
    &["net"],
    &["store"],
    &["cli"],
];
/// Up to this row, and in sim, there is no clock, chance, thread, async or hash-ordered container.
const PURE_ROW_LAST: usize = 7;
const IMPURE: &str = "SystemTime Instant HashMap HashSet async getrandom";
/// The places that may name a crate.
const HOMES: [(&str, &[&str]); 6] = [
    ("tokio", &["src/net"]),
    ("libp2p", &["src/net"]),
    ("libp2p_gossipsub", &["src/net"]),
    ("libp2p_stream", &["src/net"]),
    ("sled", &["src/disk/sled"]),
    ("clap", &["src/cli", "src/main"]),
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

/// These words are cut in two, so that this file obeys its own rules.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const PRIVATE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

type Faults = Vec<String>;
type Rule = fn(&str, &str) -> Faults;
/// The folders whose Rust files a rule reads; `EVERYTHING` adds every other text of the package.
const PRODUCT: &[&str] = &["src", "migrations"];
const ALL_RUST: &[&str] = &["src", "migrations", "tests", "benches", "examples", "fuzz"];
const EVERYTHING: &[&str] = &["."];

fn modules_import_only_from_lower_rows(path: &str, text: &str) -> Faults {
    let Some(module) = module_of(path) else {
        return Vec::new();
    };
    let Some(row) = row_of(module) else {
        return vec![format!("{path}:1: module {module} has no row")];
    };
    let code = product_code(path, text);
    let depth = path.trim_start_matches("src/").trim_end_matches("/mod.rs").split('/').count();
    let mut names = names_from(&code, &"super::".repeat(depth));
    names.retain(|(_, name)| row_of(name).is_some());
    names.extend(names_from(&code, "crate::"));
    let mut faults = Vec::new();
    for (at, name) in names {
        let line = line_of(&code, at);
        let import = format!("{path}:{line}: {module} (row {row}) imports crate::{name}");
        match row_of(name) {
            Some(other) if other < row || name == module => {}
            Some(other) => faults.push(format!("{import} (row {other})")),
            None => faults.push(format!("{import}, which has no row: name its module")),
        }
    }
    faults
}

fn pure_rows_are_pure(path: &str, text: &str) -> Faults {
    let is_pure = |m| m == "sim" || row_of(m).is_some_and(|row| row <= PURE_ROW_LAST);
    if path.starts_with("src/disk/sled") || !module_of(path).is_some_and(is_pure) {
        return Vec::new();
    }
    let code = product_code(path, text);
    let words = IMPURE.split(' ').flat_map(|word| whole_words(&code, word));
    let mut std = names_from(&code, "std::");
    std.retain(|(_, name)| ["time", "thread", "*"].contains(name));
    let hits = words.chain(crate_named(&code, "rand")).chain(std.into_iter().map(|(at, _)| at));
    faults_at(path, text, hits, "no clock, chance, thread, async or hash order")
}

fn crates_stay_at_home(path: &str, text: &str) -> Faults {
    let code = product_code(path, text);
    let mut faults = Vec::new();
    for (name, homes) in HOMES {
        let inside = |home: &&str| {
            path.strip_prefix(home).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
        };
        if !homes.iter().any(inside) {
            let why = format!("{name} is named in {} only", homes.join(" and "));
            faults.extend(faults_at(path, text, crate_named(&code, name), &why));
        }
    }
    faults
}

fn nothing_unwraps(path: &str, text: &str) -> Faults {
    let code = product_code(path, text);
    let hits = code.match_indices(".unwrap()").map(|(at, _)| at);
    faults_at(path, text, hits, "unwrap is for tests: state the proof")
}

fn nothing_prints_for_debugging(path: &str, text: &str) -> Faults {
    let code = code_only(text);
    let hits = whole_words(&code, "dbg").filter(|at| code[at + 3..].starts_with('!'));
    faults_at(path, text, hits, "a debugging print is left in")
}

fn nothing_is_marked_unfinished(path: &str, text: &str) -> Faults {
    let hits = UNFINISHED.into_iter().flat_map(|mark| whole_words(text, mark));
    faults_at(path, text, hits, "finish it or open an issue")
}

fn no_path_of_one_machine(path: &str, text: &str) -> Faults {
    // After a word, `~` or `}` the slash continues a relative path; only a bare start is absolute.
    let continues = |c: char| is_word(c) || "-.~})>*".contains(c);
    let hits = PRIVATE_PATHS.into_iter().flat_map(|dir| text.match_indices(dir));
    let hits = hits.map(|(at, _)| at).filter(|at| !text[..*at].ends_with(continues));
    faults_at(path, text, hits, "this path exists on one machine")
}

fn files_are_short(path: &str, text: &str) -> Faults {
    let lines = text.lines().count();
    let fault = format!("{path}:{lines}: {lines} lines, over {FILE_LINES_MAX}");
    if lines > FILE_LINES_MAX { vec![fault] } else { Vec::new() }
}

fn lines_are_narrow(path: &str, text: &str) -> Faults {
    let columns = text.lines().map(|line| line.chars().count());
    let wide = (1..).zip(columns).filter(|(_, columns)| *columns > LINE_COLUMNS_MAX);
    wide.map(|(at, columns)| format!("{path}:{at}: {columns} columns, over {LINE_COLUMNS_MAX}"))
        .collect()
}

fn functions_are_short(path: &str, text: &str) -> Faults {
    let code = code_only(text);
    let mut faults = Vec::new();
    for at in whole_words(&code, "fn") {
        let (line, name) = (line_of(&code, at), word_at(&code, at + 3));
        let lines = code[at..item_end(&code, at)].lines().count();
        if !name.is_empty() && lines > FUNCTION_LINES_MAX {
            let limit = FUNCTION_LINES_MAX;
            faults.push(format!("{path}:{line}: fn {name} has {lines} lines, over {limit}"));
        }
    }
    faults
}

fn files_say_what_they_are(path: &str, text: &str) -> Faults {
    let fault = format!("{path}:1: does not start with a `//!` line");
    if text.starts_with("//!") { Vec::new() } else { vec![fault] }
}

/// The row-table name of a file; `None` for the crate roots, which may name everything.
fn module_of(path: &str) -> Option<&str> {
    match path {
        "src/lib.rs" | "src/main.rs" => None,
        _ if path.starts_with("migrations/") => Some("migrations"),
        _ => path.strip_prefix("src/")?.split(['/', '.']).next(),
    }
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// The text with comments and literals blanked, byte for byte: offsets keep their meaning.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    while let Some(next) = text[code.len()..].chars().next() {
        let rest = &text[code.len()..];
        let blank = blank_len(rest);
        if blank == 0 && next.is_ascii() {
            code.push(next);
        } else {
            let blanked = rest.bytes().take(blank.max(next.len_utf8()));
            code.extend(blanked.map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        }
    }
    code
}

/// How many bytes of comment or literal `rest` starts with.
fn blank_len(rest: &str) -> usize {
    let through = |from: usize, close: &str| {
        rest[from..].find(close).map_or(rest.len(), |at| from + at + close.len())
    };
    let hashes = rest.bytes().skip(1).take_while(|byte| *byte == b'#').count();
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        through(2, "*/")
    } else if rest.starts_with('r') && rest[1 + hashes..].starts_with('"') {
        through(2 + hashes, &format!("\"{}", "#".repeat(hashes)))
    } else if rest.starts_with('"') || rest.starts_with("'\\") {
        quoted_len(rest)
    } else if rest.starts_with('\'') && rest.chars().nth(2) == Some('\'') {
        through(1 + rest[1..].chars().next().map_or(0, char::len_utf8), "'")
    } else {
        0
    }
}

fn quoted_len(rest: &str) -> usize {
    let quote = rest.as_bytes()[0];
    let mut is_escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        if byte == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    rest.len()
}

/// `code_only` without the items that exist in tests alone.
fn product_code(path: &str, text: &str) -> String {
    // A module of its own that only tests compile.
    let is_below = path.starts_with("src/") && path.contains("/tests/");
    if is_below || path.ends_with("/tests.rs") || path.ends_with("_tests.rs") {
        return String::new();
    }
    let mut code = code_only(text);
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = item_end(&code, start);
        let blank = code[start..end].replace(|c| c != '\n', " ");
        code.replace_range(start..end, &blank);
    }
    code
}

/// The end of the item that starts at `start`: its closing brace or its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        depth += i32::from(b"{([".contains(&byte)) - i32::from(b"})]".contains(&byte));
        if depth < 0 || depth == 0 && b"};".contains(&byte) {
            return at + 1;
        }
    }
    code.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn whole_words(code: &str, word: &'static str) -> impl Iterator<Item = usize> {
    code.match_indices(word).map(|(at, _)| at).filter(|at| {
        let after = &code[at + word.len()..];
        !code[..*at].ends_with(is_word) && !after.starts_with(is_word)
    })
}

/// Where `name` is the external crate and not a module of ours reached as `some::name`.
fn crate_named(code: &str, name: &'static str) -> impl Iterator<Item = usize> {
    whole_words(code, name).filter(|at| {
        let (before, after) = (&code[..*at], &code[at + name.len()..]);
        let is_ours = before.strip_suffix("::").is_some_and(|owner| owner.ends_with(is_word));
        !is_ours && (after.starts_with("::") || before.ends_with("use "))
    })
}

fn word_at(code: &str, at: usize) -> &str {
    let rest = code.get(at..).unwrap_or("");
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    if rest.starts_with('*') { "*" } else { &rest[..end] }
}

/// The names that follow `root`, a path that ends in `::`.
fn names_from<'a>(code: &'a str, root: &str) -> Vec<(usize, &'a str)> {
    let starts = code.match_indices(root).filter(|(at, _)| !code[..*at].ends_with(is_word));
    starts.flat_map(|(at, _)| names_at(code, at + root.len())).collect()
}

/// The name at `start`, or the outermost names of the braces that open there.
fn names_at(code: &str, start: usize) -> Vec<(usize, &str)> {
    if !code[start..].starts_with('{') {
        return vec![(start, word_at(code, start))];
    }
    let mut depth = 0;
    let mut names = Vec::new();
    for (at, byte) in code.bytes().enumerate().skip(start) {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        if depth == 0 {
            break;
        }
        if depth == 1 && b"{,".contains(&byte) {
            let gap = code[at + 1..].find(|c: char| !c.is_whitespace()).unwrap_or(0);
            names.push((at + 1 + gap, word_at(code, at + 1 + gap)));
        }
    }
    names.retain(|(_, name)| !name.is_empty());
    names
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn faults_at(path: &str, text: &str, hits: impl Iterator<Item = usize>, why: &str) -> Faults {
    let lines: BTreeSet<usize> = hits.map(|at| line_of(text, at)).collect();
    let shown = |line: usize| text.lines().nth(line - 1).unwrap_or("").trim();
    lines.iter().map(|line| format!("{path}:{line}: `{}`: {why}", shown(*line))).collect()
}

fn assert_holds(roots: &[&str], rule: Rule) {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = roots.iter().map(|root| home.join(root)).collect();
    let (mut files, mut faults) = (0, Vec::new());
    while let Some(path) = paths.pop() {
        let name = path.strip_prefix(home).ok().and_then(Path::to_str).expect("below home, UTF-8");
        let last = name.rsplit('/').next().unwrap_or("");
        if path.is_dir() && last != ".git" && last.split('-').next() != Some("target") {
            let entries = fs::read_dir(&path).expect("a folder of this package is readable");
            paths.extend(entries.map(|entry| entry.expect("an entry is readable").path()));
        }
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        if path.is_file() && (is_rust || roots == EVERYTHING) {
            // What is not UTF-8 is a fixture or a corpus, not a text.
            let text = fs::read_to_string(&path).unwrap_or_default();
            faults.extend(rule(name, &text));
            files += 1;
        }
    }
    faults.sort();
    assert!(files > 0, "no file was read");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// `bad` ends in the place that must be reported.
fn assert_reports(rule: Rule, path: &str, bad: &str, fault: &str) {
    let faults = rule(path, bad);
    assert!(faults.iter().any(|f| f.starts_with(fault)), "{bad:?} gave {faults:?}");
}

/// Two tests for each rule: this tree obeys it, and a text that does not is reported.
macro_rules! rules {
    ($($rule:ident in $roots:ident { $($path:literal, $bad:expr => $fault:literal;)+ })+) => { $(
        mod $rule {
            #[test]
            fn in_this_tree() { super::assert_holds(super::$roots, super::$rule); }
            #[test]
            fn or_it_is_reported() {
                $(super::assert_reports(super::$rule, $path, &$bad, concat!($path, $fault));)+
            }
        }
    )+ };
}

rules! {
    modules_import_only_from_lower_rows in PRODUCT {
        "src/index.rs", "//é\nuse crate::sync;" => ":2: index (row 3) imports crate::sync (row 5)";
        "src/disk/a.rs", "use crate::{\n codec::A,\n index};" => ":3: disk (row 3) imports crate::";
        "src/disk/a.rs", "use super::super::table::A;" => ":1: disk (row 3) imports crate::table";
        "migrations/v1/mod.rs", "fn f(a: crate::host::A) {}" => ":1: migrations (row 4) imports";
        "src/table.rs", "use crate::Pattern;" => ":1: table (row 5) imports crate::Pattern, which";
        "src/helper.rs", "" => ":1: module helper has no row";
    }
    pure_rows_are_pure in PRODUCT {
        "src/table.rs", "\nuse std::time::Duration;" => ":2:";
        "src/table.rs", "use std::{fmt, thread};" => ":1:";
        "src/host.rs", "fn f(now: Instant) {}" => ":1:";
        "src/host.rs", "fn f(now: SystemTime) {}" => ":1:";
        "src/sim/fault.rs", "use std::collections::HashMap;" => ":1:";
        "src/disk.rs", "use std::collections::HashSet;" => ":1:";
        "src/sync.rs", "async fn f() {}" => ":1:";
        "src/replica.rs", "\nuse getrandom::fill;" => ":2:";
        "src/replica.rs", "fn f() { rand::random() }" => ":1:";
    }
    crates_stay_at_home in PRODUCT {
        "src/store.rs", "use tokio::sync;" => ":1:";
        "src/engine.rs", "fn f(peer: libp2p::PeerId) {}" => ":1:";
        "src/disk.rs", "fn f(db: sled::Db) {}" => ":1:";
        "src/store.rs", "use clap::Parser;" => ":1:";
    }
    nothing_unwraps in PRODUCT {
        "src/net.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { h().unwrap() }" => ":3:";
    }
    nothing_prints_for_debugging in ALL_RUST {
        "tests/main.rs", "fn f() { dbg!(1); }" => ":1:";
    }
    nothing_is_marked_unfinished in ALL_RUST {
        "src/net.rs", format!("\n// {}: later", super::UNFINISHED[0]) => ":2:";
        "src/net.rs", format!("// {}", super::UNFINISHED[1]) => ":1:";
        "src/net.rs", format!("// {}", super::UNFINISHED[2]) => ":1:";
    }
    no_path_of_one_machine in EVERYTHING {
        "README.md", format!("see {}notes", super::PRIVATE_PATHS[0]) => ":1:";
        ".ci/run", format!("cd \"{}x\"", super::PRIVATE_PATHS[1]) => ":1:";
    }
    files_are_short in ALL_RUST {
        "src/net.rs", "\n".repeat(501) => ":501:";
    }
    lines_are_narrow in ALL_RUST {
        "src/net.rs", format!("\n{}", "é".repeat(101)) => ":2: 101 columns";
    }
    functions_are_short in ALL_RUST {
        "src/net.rs", format!("\nfn f() {{{}}}", "\n".repeat(70)) => ":2: fn f has 71 lines";
    }
    files_say_what_they_are in PRODUCT {
        "src/net.rs", "use std::fmt;\n//! late" => ":1:";
    }
}

#[test]
fn comments_literals_and_tests_are_not_code() {
    let quiet = "// crate::cli\n/* crate::cli */ \"\\\"crate::cli\" r#\"\"crate::cli\"# '\"' '\\''\
                 \n#[cfg(test)]\nmod tests {\n use crate::cli; fn f() { a[0].unwrap() }\n}\nok";
    assert_eq!(product_code("src/a.rs", quiet).trim(), "ok");
    assert!(modules_import_only_from_lower_rows("src/disk.rs", quiet).is_empty());
    let lifetimes = "fn f<'a>(x: &'a str) {}";
    assert_eq!(code_only(lifetimes), lifetimes);
    assert!(crates_stay_at_home("src/store.rs", "use crate::disk::sled::A;").is_empty());
}
