//! JSON rows as people read them: columns, or one block of fields a row.
//! It must never be read by a program; that is what `--format json` is for.

use std::io::{self, Write};

use serde_json::Value;

/// How rows look.
pub(super) enum Layout {
    /// One line a row, with these fields as columns.
    Columns(&'static [&'static str]),
    /// One block a row, with these fields as lines; a field of objects is a table of its own.
    Block(&'static [&'static str]),
}

/// The longest text of a cell, in characters; more is cut.
const CELL_CHARS_MAX: usize = 48;
/// The longest list that is shown whole.
const LIST_SHOWN_MAX: usize = 8;

/// The field that is a sentence: it is shown whole.
const SENTENCE: &str = "why";

/// Prints rows, which are JSON objects, one a line.
pub(super) fn write_table(rows: &[u8], layout: &Layout, out: &mut dyn Write) -> io::Result<()> {
    let parsed = || {
        let lines = rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(serde_json::from_slice::<Value>).collect::<Result<Vec<_>, _>>()
    };
    match layout {
        Layout::Columns(fields) => columns(&parsed()?, fields, "", out),
        Layout::Block(fields) => parsed()?.iter().try_for_each(|row| block(row, fields, "", out)),
    }
}

fn columns(rows: &[Value], fields: &[&str], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let cells = |row: &Value| fields.iter().map(|field| cell(&row[*field])).collect::<Vec<_>>();
    let heads = fields.iter().map(|field| field.replace('_', " ")).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..fields.len()).filter_map(width).collect();
    for line in &lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let text = padded.collect::<Vec<_>>().join("  ");
        writeln!(out, "{indent}{}", text.trim_end())?;
    }
    Ok(())
}

fn block(row: &Value, fields: &[&str], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    let width = fields.iter().map(|field| field.len()).max().unwrap_or(0);
    for field in fields {
        let (value, name) = (&row[*field], field.replace('_', " "));
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                writeln!(out, "{indent}{name}:")?;
                let names = names(&items[0]);
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                for item in items {
                    block(item, &names, &format!("{indent}  "), out)?;
                }
            }
            Value::Object(_) => {
                writeln!(out, "{indent}{name}:")?;
                let names = names(value);
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                block(value, &names, &format!("{indent}  "), out)?;
            }
            Value::String(text) if *field == SENTENCE => {
                writeln!(
                    out,
                    "{indent}{name:<width$}  {}",
                    text.replace(char::is_control, "\u{fffd}")
                )?;
            }
            value => writeln!(out, "{indent}{name:<width$}  {}", cell(value))?,
        }
    }
    writeln!(out)
}

fn names(value: &Value) -> Vec<String> {
    value.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) => {
            // A digest is only useful whole.
            text.clone()
        }
        Value::String(text) => cut(text),
        Value::Number(number) if number.is_f64() => {
            format!("{:.3}", number.as_f64().unwrap_or_default())
        }
        Value::Array(items) => {
            let shown: Vec<String> = items.iter().take(LIST_SHOWN_MAX).map(cell).collect();
            let more = items.len().saturating_sub(LIST_SHOWN_MAX);
            let rest = if more > 0 { format!(", … {more} more") } else { String::new() };
            format!("{}{rest}", shown.join(", "))
        }
        other => other.to_string(),
    }
}

fn cut(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(CELL_CHARS_MAX).map(clean).collect();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(rows: &str, layout: &Layout) -> String {
        let mut out = Vec::new();
        write_table(rows.as_bytes(), layout, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_are_rounded() {
        let rows = "{\"pattern\":\"a\",\"max\":0.123456}\n{\"pattern\":\"longer\",\"max\":null}\n";
        let expected = "pattern  max\na        0.123\nlonger   -\n";
        assert_eq!(printed(rows, &Layout::Columns(&["pattern", "max"])), expected);
        assert_eq!(printed("", &Layout::Columns(&["pattern"])), "");
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        let shown = printed("{\"label\":\"a\\u001b[2Jb\"}\n", &Layout::Columns(&["label"]));
        assert_eq!(shown, "label\na\u{fffd}[2Jb\n");
    }
}
