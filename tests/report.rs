//! `simulate` and `report` as a user meets them: a trace, a verdict, and a page that draws it.

mod browser;

use std::path::Path;
use std::process::{Command, Output};

fn consilience(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_consilience")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const EIGHT: &str = "--nodes 8 --patterns 40 --diverge 50 --loss 10 --partition 3/5@1+2 --seed 7";

/// A trace of eight nodes, three of which are apart for two rounds, and its page.
fn traced(dir: &Path) -> (String, String) {
    traced_as(EIGHT, dir)
}

fn traced_as(setting: &str, dir: &Path) -> (String, String) {
    let (trace, page) = (dir.join("trace.jsonl"), dir.join("report.html"));
    let line = format!("simulate {setting} --format json -o");
    let mut arguments: Vec<&str> = line.split_whitespace().collect();
    arguments.push(trace.to_str().unwrap());
    let simulated = consilience(&arguments);
    assert_eq!(simulated.status.code(), Some(0), "{}", text(&simulated.stderr));
    assert!(text(&simulated.stderr).contains("round   0: "), "no progress was told");
    let (trace, page_name) = (trace.to_str().unwrap(), page.to_str().unwrap());
    let reported = consilience(&["report", trace, "-o", page_name, "--format", "json"]);
    assert_eq!(reported.status.code(), Some(0), "{}", text(&reported.stderr));
    (std::fs::read_to_string(trace).unwrap(), std::fs::read_to_string(page).unwrap())
}

#[test]
fn a_simulation_ends_with_a_verdict_and_the_line_that_runs_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let (trace, _) = traced(dir.path());
    let line = format!("simulate {EIGHT} --format json");
    let again = consilience(&line.split_whitespace().collect::<Vec<_>>());
    let row: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(row["equal"], true);
    let replay = row["replay"].as_str().unwrap();
    let mut asked: Vec<&str> = replay.split(' ').skip(1).collect();
    asked.extend(["--format", "json"]);
    assert_eq!(consilience(&asked).stdout, again.stdout, "{replay} is another run");
    let rows: Vec<serde_json::Value> =
        trace.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (first, last) = (&rows[0]["setting"], &rows[rows.len() - 1]["verdict"]);
    assert_eq!((&first["nodes"], &first["news"]), (&8.into(), &20.into()));
    assert_eq!((&last["equal"], &last["rounds"]), (&row["equal"], &row["rounds"]));
    let cut: Vec<bool> =
        rows[1..rows.len() - 1].iter().map(|row| row["round"]["cut"] == true).collect();
    assert_eq!(cut.iter().filter(|cut| **cut).count(), 2);
    assert!(cut[1] && cut[2]);
}

#[test]
fn a_simulation_that_makes_no_sense_is_refused_by_name() {
    for (line, why) in [
        ("simulate --nodes 1", "2 to 10000"),
        ("simulate --nodes 5 --partition 3/3@1+1", "part 3 nodes from 3"),
        ("simulate --nodes 10000 --patterns 1000000", "at most 400 patterns"),
        ("simulate --loss 100", "at most 99"),
        ("simulate --partition 3@1", "say it as"),
    ] {
        let refused = consilience(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(refused.status.code(), Some(2), "{line}");
        assert!(text(&refused.stderr).contains(why), "{line}: {}", text(&refused.stderr));
    }
}

#[test]
fn the_page_draws_every_node_in_every_round_and_asks_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (trace, page) = traced(dir.path());
    let rounds = trace.lines().count() - 2;
    assert_eq!(page.matches("<rect class=\"cell ").count(), 8 * rounds);
    assert_eq!(page.matches("<rect class=\"bar\"").count(), 8);
    assert_eq!(page.matches("<rect class=\"cut\"").count(), 1, "the partition is not boxed");
    assert_eq!(page.matches("class=\"floor\"").count(), 1);
    let points = page.split("class=\"roots\" points=\"").nth(1).unwrap();
    assert_eq!(points.split('"').next().unwrap().split_whitespace().count(), rounds);
    assert!(page.contains("prefers-color-scheme: dark"));
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
    let widths = page.split("width=\"").skip(1).filter_map(|rest| rest.split('"').next());
    assert!(widths.filter_map(|width| width.parse::<u32>().ok()).all(|width| width <= 1_240));
}
