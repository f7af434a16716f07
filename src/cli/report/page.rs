//! The page itself: a heat map, a line and some bars, drawn as SVG by hand, light and dark.
//! It must never ask the network for anything, nor need its script to be readable.

use std::fmt::Write as _;

use super::Trace;

/// The drawings are this wide, so that a window of 1,280 pixels shows all of them.
const WIDTH: usize = 1_180;
/// Left of each drawing stand its labels.
const LEFT: usize = 70;
/// A round is at most this wide, so that a short run fills the page too.
const ROUND_WIDTH_MAX: usize = 160;
/// Rows of the heat map and bars: more nodes share a row.
const ROWS_MAX: usize = 100;
/// Shades of how far behind a node is; 0 is not at all.
const SHADES: u64 = 8;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fff; --faint: #d7dde5;
  --line: #0b63c4; --cut: #c2410c; --full: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ef; --paper: #12171f;
  --faint: #2c3644; --line: #6cb2ff; --cut: #fb923c; --full: #f87171; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  width: 1180px; margin: 24px auto; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 4px; }
p { margin: 4px 0; } code { font-size: 13px; } svg { display: block; }
svg text { fill: var(--ink); font-size: 11px; } .axis { stroke: var(--faint); fill: none; }
.cell { fill: var(--full); stroke: none; } .s0 { fill: var(--faint); fill-opacity: .45; }
.cut { fill: none; stroke: var(--ink); stroke-width: 2; stroke-dasharray: 6 4; }
.roots { fill: none; stroke: var(--line); stroke-width: 2; } .bar { fill: var(--line); }
.floor { stroke: var(--cut); stroke-width: 2; } #said { min-height: 1.5em; }
";

const SCRIPT: &str = "
const said = document.getElementById('said');
document.querySelectorAll('[data-say]').forEach(function (one) {
  one.addEventListener('mouseenter', function () { said.textContent = one.dataset.say; });
});
document.body.dataset.cells = document.querySelectorAll('rect.cell').length;
document.body.dataset.bars = document.querySelectorAll('rect.bar').length;
";

/// The whole page.
pub(super) fn page(trace: &Trace) -> String {
    let setting = &trace.setting;
    let verdict = if trace.verdict.equal { "all equal" } else { "not equal" };
    let mut page = String::new();
    let mut shades = String::new();
    for shade in 1..=SHADES {
        put(&mut shades, format_args!(".s{shade} {{ fill-opacity: .{}; }}\n", 20 + shade * 9));
    }
    put(
        &mut page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <title>consilience simulate</title>\n<style>{STYLE}{shades}</style>\n<body>\n\
             <h1>{} nodes, {} news: {verdict} after {} rounds</h1>\n\
             <p>{} patterns, {} % of the sessions cut, seed {}</p>\n\
             <p><code>{}</code></p>\n",
            setting.nodes,
            setting.news,
            trace.verdict.rounds,
            setting.patterns,
            setting.loss_percent,
            setting.seed,
            escaped(&setting.replay),
        ),
    );
    heat_map(&mut page, trace);
    roots(&mut page, trace);
    bars(&mut page, trace);
    put(&mut page, format_args!("<script>{SCRIPT}</script>\n</body>\n</html>\n"));
    page
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes all that is written to it");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// The nodes of each row.
fn bands(nodes: usize) -> Vec<std::ops::Range<usize>> {
    let size = nodes.div_ceil(ROWS_MAX).max(1);
    (0..nodes).step_by(size).map(|from| from..nodes.min(from + size)).collect()
}

fn name(band: &std::ops::Range<usize>) -> String {
    if band.len() == 1 {
        format!("node {}", band.start)
    } else {
        format!("nodes {} to {}", band.start, band.end - 1)
    }
}

/// As `name`, in the 70 pixels beside a drawing.
fn label(band: &std::ops::Range<usize>) -> String {
    if band.len() == 1 { name(band) } else { format!("{}…{}", band.start, band.end - 1) }
}

fn heat_map(page: &mut String, trace: &Trace) {
    let bands = bands(trace.setting.nodes);
    let wide = ((WIDTH - LEFT) / trace.rounds.len()).clamp(2, ROUND_WIDTH_MAX);
    let high = (600 / bands.len()).clamp(5, 18);
    let height = bands.len() * high;
    put(
        page,
        format_args!(
            "<h2>How far behind: node by round</h2>\n<p id=\"said\">Red is behind{}; point at a \
             cell to read it.</p>\n\
             <svg id=\"heat\" width=\"{WIDTH}\" height=\"{}\" role=\"img\">\n",
            apart(trace),
            height + 24
        ),
    );
    for (row, band) in bands.iter().enumerate() {
        for (column, round) in trace.rounds.iter().enumerate() {
            let all: u64 = round.behind[band.clone()].iter().sum();
            let behind = all.div_ceil(band.len() as u64);
            let news = (trace.setting.news as u64).max(1);
            let shade = (behind * SHADES).div_ceil(news).min(SHADES);
            put(
                page,
                format_args!(
                    "<rect class=\"cell s{shade}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" \
                     data-say=\"{}, round {}: {behind} of {news} news missing\"/>\n",
                    LEFT + column * wide,
                    row * high,
                    wide - 1,
                    high - 1,
                    name(band),
                    round.round,
                ),
            );
        }
    }
    partition_box(page, trace, (wide, height));
    for (column, round) in trace.rounds.iter().enumerate() {
        if column.is_multiple_of((60 / wide).max(1)) {
            let x = LEFT + column * wide;
            put(
                page,
                format_args!("<text x=\"{x}\" y=\"{}\">{}</text>\n", height + 14, round.round),
            );
        }
    }
    put(
        page,
        format_args!(
            "<text x=\"0\" y=\"12\">{}</text>\n<text x=\"0\" y=\"{}\">rounds</text>\n",
            label(&bands[0]),
            height + 14
        ),
    );
    if let Some(last) = bands.last().filter(|_| height > 30) {
        put(page, format_args!("<text x=\"0\" y=\"{}\">{}</text>\n", height - 4, label(last)));
    }
    put(page, format_args!("</svg>\n"));
}

/// What the dashed box is, where there is one.
fn apart(trace: &Trace) -> String {
    let cut = trace.rounds.iter().any(|round| round.cut);
    let parts = trace.setting.partition.filter(|_| cut);
    parts.map_or_else(String::new, |(side, _, _)| {
        let rest = trace.setting.nodes - side;
        format!("; in the dashed box {side} nodes are apart from {rest}")
    })
}

/// A box around the rounds of the partition, and a line between its sides.
fn partition_box(page: &mut String, trace: &Trace, (wide, height): (usize, usize)) {
    let Some(first) = trace.rounds.iter().position(|round| round.cut) else { return };
    let rounds = trace.rounds.iter().filter(|round| round.cut).count();
    let (x, width) = (LEFT + first * wide, rounds * wide);
    let side = trace.setting.partition.map_or(0, |(side, _, _)| side);
    let y = side * height / trace.setting.nodes;
    put(
        page,
        format_args!(
            "<rect class=\"cut\" x=\"{x}\" y=\"0\" width=\"{width}\" height=\"{height}\"/>\n\
             <line class=\"cut\" x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>\n",
            x + width
        ),
    );
}

fn roots(page: &mut String, trace: &Trace) {
    const HEIGHT: usize = 140;
    let most = trace.rounds.iter().map(|round| round.roots).max().unwrap_or(1).max(2);
    let wide = ((WIDTH - LEFT) / trace.rounds.len()).clamp(2, ROUND_WIDTH_MAX);
    put(
        page,
        format_args!(
            "<h2>Distinct roots</h2>\n<svg id=\"roots\" width=\"{WIDTH}\" height=\"{}\" \
             role=\"img\">\n<path class=\"axis\" d=\"M{LEFT} 0 V{HEIGHT} H{WIDTH}\"/>\n\
             <text x=\"0\" y=\"12\">{most}</text><text x=\"0\" y=\"{HEIGHT}\">1</text>\n\
             <polyline class=\"roots\" points=\"",
            HEIGHT + 10
        ),
    );
    for (column, round) in trace.rounds.iter().enumerate() {
        let down = (round.roots - 1) * (HEIGHT - 4) / (most - 1);
        put(page, format_args!("{},{} ", LEFT + column * wide + wide / 2, HEIGHT - 2 - down));
    }
    put(page, format_args!("\"/>\n</svg>\n"));
}

fn bars(page: &mut String, trace: &Trace) {
    const HEIGHT: u64 = 160;
    let bands = bands(trace.setting.nodes);
    let sent = |band: &std::ops::Range<usize>| {
        let rounds = trace.rounds.iter().map(|round| round.bytes[band.clone()].iter().sum::<u64>());
        rounds.sum::<u64>() / band.len() as u64
    };
    let floor = trace.setting.floor_bytes / trace.setting.nodes as u64;
    let most = bands.iter().map(sent).max().unwrap_or(0).max(floor).max(1);
    let wide = ((WIDTH - LEFT) / bands.len()).clamp(3, 60);
    put(
        page,
        format_args!(
            "<h2>Bytes each node sent</h2>\n<p>The line is the floor: every piece of news, whole, \
             once to every node that lacks it: {floor} bytes a node. \
             Below the bars stand the numbers of nodes.</p>\n\
             <svg id=\"bytes\" width=\"{WIDTH}\" height=\"{}\" role=\"img\">\n\
             <path class=\"axis\" d=\"M{LEFT} 0 V{HEIGHT} H{WIDTH}\"/>\n\
             <text x=\"0\" y=\"12\">{most}</text><text x=\"0\" y=\"{HEIGHT}\">0</text>\n",
            HEIGHT + 18
        ),
    );
    for (column, band) in bands.iter().enumerate() {
        let (bytes, x) = (sent(band), LEFT + column * wide);
        let high = bytes * (HEIGHT - 2) / most;
        put(
            page,
            format_args!(
                "<rect class=\"bar\" x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{high}\" \
                 data-say=\"{}: {bytes} bytes sent\"/>\n",
                HEIGHT - high,
                wide - 1,
                name(band),
            ),
        );
        if column.is_multiple_of((80 / wide).max(1)) {
            let label = HEIGHT + 14;
            put(page, format_args!("<text x=\"{x}\" y=\"{label}\">{}</text>\n", band.start));
        }
    }
    let y = HEIGHT - floor * (HEIGHT - 2) / most;
    put(
        page,
        format_args!(
            "<line class=\"floor\" x1=\"{LEFT}\" y1=\"{y}\" x2=\"{WIDTH}\" y2=\"{y}\"/>\n</svg>\n"
        ),
    );
}
