//! The page of a trace in a real browser: what is drawn, that it fits, and what it asks for.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{EIGHT, traced, traced_as};

const BROWSERS: [&str; 5] =
    ["chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell"];
const QUIET: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1280,1600",
];
const DARK: &str = "--force-dark-mode";
/// How long a browser may take before the test gives up; no claim depends on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the page must be drawn as, measured where it was drawn.
const PROBE: &str = "<script>
window.probe = function () {
  const all = function (what) { return Array.from(document.querySelectorAll(what)); };
  const box = function (one) { return one.getBoundingClientRect(); };
  const seen = function (what) {
    return all(what).filter(function (one) {
      const b = box(one); return b.width + b.height > 0 && b.left >= 0 && b.right <= 1280;
    }).length;
  };
  const outside = all('body *').filter(function (one) { return box(one).right > 1280; });
  const texts = all('svg text').map(box);
  const meet = function (a, b) {
    return a.left < b.right && b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  };
  const drawn = texts.concat(all('rect.cell, rect.bar').map(box));
  const overlap = texts.filter(function (a) {
    return drawn.some(function (b) { return a !== b && meet(a, b); });
  });
  const style = getComputedStyle(document.body);
  return { window: innerWidth, scroll: document.documentElement.scrollWidth,
    cells: seen('#heat rect.cell'), boxes: seen('#heat rect.cut'), lines: seen('#heat line.cut'),
    points: document.querySelector('#roots polyline.roots').points.numberOfItems,
    bars: all('#bytes rect.bar').length, floor: seen('#bytes line.floor'),
    outside: outside.length, overlap: overlap.length, ink: style.color,
    paper: style.backgroundColor, fetched: performance.getEntriesByType('resource').length };
};
window.addEventListener('load', function () {
  document.body.dataset.probe = JSON.stringify(window.probe());
});
</script>
";

/// Counts the pixels of the picture in it that are not as the one in the corner.
const LOOK: &str = "<script>
window.addEventListener('load', function () {
  const image = document.querySelector('img');
  const canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const data = new Uint32Array(
    context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  let drawn = 0; const colours = new Set();
  data.forEach(function (one) { drawn += one === data[0] ? 0 : 1; colours.add(one); });
  document.body.dataset.probe = JSON.stringify({ width: canvas.width, height: canvas.height,
    drawn: drawn, colours: colours.size, corner: data[0] });
});
</script>
";

struct Browser {
    name: &'static str,
    dir: tempfile::TempDir,
    starts: std::cell::Cell<u32>,
}

impl Browser {
    /// The browser of this machine, if there is one.
    fn find() -> Option<Self> {
        let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
        let Some(name) = BROWSERS.iter().find(runs) else {
            eprintln!("SKIPPED: no browser is on this machine ({BROWSERS:?}): nothing was drawn");
            return None;
        };
        let (dir, starts) = (tempfile::tempdir().unwrap(), std::cell::Cell::new(0));
        Some(Self { name, dir, starts })
    }

    /// Runs it to its end, as somebody who was never there; returns what it printed, and said.
    fn run(&self, page: &Path, more: &[&str]) -> (String, String) {
        let start = self.starts.replace(self.starts.get() + 1);
        let at = |what: &str| self.dir.path().join(format!("{what}-{start}"));
        let (printed, said) = (at("out"), at("err"));
        let mut child = Command::new(self.name)
            .args(QUIET)
            .arg(format!("--user-data-dir={}", at("user").display()))
            .args(more)
            .arg(format!("file://{}", page.display()))
            .stdin(Stdio::null())
            .stdout(File::create(&printed).unwrap())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the browser does not come to an end");
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let read =
            |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        (read(&printed), read(&said))
    }

    /// What a page says of itself once it is drawn; nothing may be said on the console.
    fn probe(&self, html: &str, more: &[&str]) -> Value {
        let page = self.dir.path().join("probed.html");
        std::fs::write(&page, html).unwrap();
        let (dom, said) = self.run(&page, &[&["--dump-dom"], more].concat());
        assert!(!said.contains("CONSOLE"), "{said}");
        let probe = dom.split("data-probe=\"").nth(1).expect("the script ran");
        let probe = probe.split('"').next().unwrap().replace("&quot;", "\"");
        serde_json::from_str(&probe).unwrap()
    }

    /// The picture of a page.
    fn shot(&self, page: &Path, more: &[&str]) -> Value {
        let shot: PathBuf = self.dir.path().join("shot.png");
        let screenshot = format!("--screenshot={}", shot.display());
        let (_, said) = self.run(page, &[&[&*screenshot], more].concat());
        assert!(!said.contains("CONSOLE"), "{said}");
        let picture = base64(&std::fs::read(&shot).unwrap());
        let html = format!(
            "<!doctype html>{LOOK}<body><img src=\"data:image/png;base64,{picture}\"></body>"
        );
        self.probe(&html, &[])
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4_usize {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            let is_there = at <= group.len();
            text.write_char(if is_there { char::from(digit) } else { '=' }).unwrap();
        }
    }
    text
}

#[test]
fn a_browser_draws_all_of_a_page_in_1280_pixels_light_and_dark_and_asks_for_nothing() {
    let Some(browser) = Browser::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let many = "--nodes 130 --patterns 40 --diverge 50 --loss 10 --partition 30/100@1+2 --seed 7";
    // 130 nodes share 65 rows.
    for (setting, rows) in [(EIGHT, 8), (many, 65)] {
        let (trace, page) = traced_as(setting, dir.path());
        let rounds = trace.lines().count() - 2;
        let probed = page.replacen("<style>", &format!("{PROBE}<style>"), 1);
        let [light, dark] = [&[][..], &[DARK]].map(|more| browser.probe(&probed, more));
        for drawn in [&light, &dark] {
            let numbers = ["window", "scroll", "cells", "boxes", "lines", "points", "bars"];
            let numbers = numbers.map(|name| drawn[name].as_u64().unwrap());
            let expected = [1_280, 1_280, rows * rounds, 1, 1, rounds, rows];
            assert_eq!(numbers, expected.map(|number| number as u64), "{drawn}");
            let none = ["outside", "overlap", "fetched"].map(|name| drawn[name].as_u64().unwrap());
            assert_eq!((none, &drawn["floor"]), ([0; 3], &1.into()), "{drawn}");
            assert_ne!(drawn["ink"], drawn["paper"]);
        }
        assert_ne!(light["paper"], dark["paper"]);
        assert_ne!(light["ink"], dark["ink"]);
    }
}

#[test]
fn a_picture_of_the_page_shows_more_than_paper_in_either_light() {
    let Some(browser) = Browser::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    traced(dir.path());
    let page = dir.path().join("report.html");
    let [light, dark] = [&[][..], &[DARK]].map(|more| browser.shot(&page, more));
    for shot in [&light, &dark] {
        let number = |name: &str| shot[name].as_u64().unwrap();
        assert_eq!(number("width"), 1_280);
        let pixels = number("width") * number("height");
        // The heat map alone takes 144 of 1,600 lines, and most of each.
        assert!((pixels / 50..pixels / 2).contains(&number("drawn")), "{shot}");
        assert!(number("colours") > 16, "{shot}");
    }
    assert_ne!(light["corner"], dark["corner"]);
    let blank = dir.path().join("blank.html");
    std::fs::write(&blank, "<!doctype html><body></body>").unwrap();
    assert_eq!(browser.shot(&blank, &[])["drawn"], 0);
}

#[test]
fn base64_is_as_its_definition_says() {
    let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
    for (text, expected) in cases {
        assert_eq!(base64(text.as_bytes()), expected);
    }
}
