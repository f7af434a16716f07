//! The divergence map: 64 x 64 cells by the first twelve bits of the key hash, in 32 lines.
//! It must never know how the cells were counted.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};

/// Rows and columns.
const SIDE: u16 = 64;
/// Two rows of cells share a line, and every fourth line says where it begins.
const LABEL_EVERY: u16 = 4;

/// Who holds what differs in one cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    /// We alone.
    Here,
    /// The other side alone.
    There,
    /// Both, in different states.
    Differ,
    /// Several of these.
    Mixed,
}

/// Whether a terminal takes colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Paint {
    Plain,
    Colours,
}

impl Paint {
    /// Colours where people look, unless they do not want them (no-color.org).
    pub(super) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !unwanted { Self::Colours } else { Self::Plain }
    }
}

impl Mark {
    /// That of a cell in which so many are here alone, there alone, and in both but different.
    pub(super) fn of(counts: [u64; 3]) -> Option<Self> {
        match counts.map(|count| count > 0) {
            [false, false, false] => None,
            [true, false, false] => Some(Self::Here),
            [false, true, false] => Some(Self::There),
            [false, false, true] => Some(Self::Differ),
            _ => Some(Self::Mixed),
        }
    }

    /// The last digit of its colour, as terminals number them.
    const fn colour(self) -> u8 {
        match self {
            Self::Here => 2,
            Self::There => 4,
            Self::Differ => 1,
            Self::Mixed => 3,
        }
    }
}

/// Draws the cells that differ.
pub(super) fn draw(
    cells: &BTreeMap<u16, Mark>,
    paint: Paint,
    out: &mut dyn Write,
) -> io::Result<()> {
    for line in 0..SIDE / 2 {
        let first = line * 2 * SIDE;
        if line.is_multiple_of(LABEL_EVERY) {
            write!(out, "{first:03x} ")?;
        } else {
            write!(out, "    ")?;
        }
        for column in 0..SIDE {
            let above = cells.get(&(first + column)).copied();
            let below = cells.get(&(first + SIDE + column)).copied();
            out.write_all(character(above, below, paint).as_bytes())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What the colours mean.
pub(super) fn legend(paint: Paint) -> String {
    let words = [
        (Mark::Here, "only here"),
        (Mark::There, "only there"),
        (Mark::Differ, "in both"),
        (Mark::Mixed, "several"),
    ];
    match paint {
        Paint::Plain => "each block is a cell in which keys differ".to_owned(),
        Paint::Colours => {
            let word = |(mark, word): (Mark, &str)| {
                format!("{} {word}", character(Some(mark), Some(mark), paint))
            };
            words.map(word).join("  ")
        }
    }
}

fn character(above: Option<Mark>, below: Option<Mark>, paint: Paint) -> String {
    let block = match (above, below) {
        (None, None) => "·",
        (Some(_), None) => "▀",
        (None, Some(_)) => "▄",
        (Some(_), Some(_)) => "█",
    };
    match (paint, above, below) {
        (Paint::Plain, ..) => block.to_owned(),
        (_, None, None) => format!("\u{1b}[2m{block}\u{1b}[0m"),
        (_, Some(above), Some(below)) if above != below => {
            format!("\u{1b}[3{};4{}m▀\u{1b}[0m", above.colour(), below.colour())
        }
        (_, above, below) => {
            let colour = above.or(below).map_or(0, Mark::colour);
            format!("\u{1b}[3{colour}m{block}\u{1b}[0m")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(cells: &[(u16, Mark)], paint: Paint) -> Vec<String> {
        let mut out = Vec::new();
        draw(&cells.iter().copied().collect(), paint, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_cell_has_its_half_of_one_character_in_32_lines_of_64() {
        let nothing = drawn(&[], Paint::Plain);
        assert_eq!(nothing.len(), 32);
        assert!(nothing.iter().all(|line| line.chars().count() == 68));
        for cell in 0..4_096_u16 {
            let lines = drawn(&[(cell, Mark::Here)], Paint::Plain);
            let (row, column) = (usize::from(cell / 64), usize::from(cell % 64));
            let block = if row % 2 == 0 { '▀' } else { '▄' };
            assert_eq!(lines[row / 2].chars().nth(4 + column), Some(block), "{cell:03x}");
            let others = lines.concat().chars().filter(|c| "▀▄█".contains(*c)).count();
            assert_eq!(others, 1, "{cell:03x}");
        }
        let both = drawn(&[(0, Mark::Here), (64, Mark::Differ)], Paint::Plain);
        assert!(both[0].starts_with("000 █·"), "{}", both[0]);
        assert!(both[31].starts_with("    ·") && both[4].starts_with("200 ·"));
    }

    #[test]
    fn colours_tell_who_holds_what_and_are_left_out_where_they_are_not_wanted() {
        let cells = [(0, Mark::Here), (64, Mark::Differ), (1, Mark::There), (66, Mark::Mixed)];
        let line = &drawn(&cells, Paint::Colours)[0];
        let expected = "000 \u{1b}[32;41m▀\u{1b}[0m\u{1b}[34m▀\u{1b}[0m\u{1b}[33m▄\u{1b}[0m";
        assert!(line.starts_with(expected), "{line:?}");
        let plain = [drawn(&cells, Paint::Plain).concat(), legend(Paint::Plain)].concat();
        assert!(!plain.contains('\u{1b}') && legend(Paint::Colours).contains('\u{1b}'));
        assert_eq!(Mark::of([0; 3]), None);
        assert_eq!(Mark::of([1, 0, 1]), Some(Mark::Mixed));
    }
}
