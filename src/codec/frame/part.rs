//! Parts and what asks for them as bytes: how much of a state there is, its mark, its hint.
//! It must never know whether a mark fits its state.

use super::poison::Entry;
use super::{Ask, HINT_WORDS_MAX, Hint, MESSAGE_BYTES_MAX, Mark, Part, Scope, put_list, read_list};
use crate::codec::bytes::{DecodeError, Reader, put_bytes, put_varint};
use crate::codec::record::{decode_record, encode_record, record_id};
use crate::pattern::{DESCRIPTIONS_MAX, EPISODES_MAX, KeyHash, OPINIONS_MAX};

/// Live entries that a part may leave out.
const LIVE_ENTRIES_MAX: usize = EPISODES_MAX + OPINIONS_MAX + DESCRIPTIONS_MAX;

pub(super) fn put_ask(out: &mut Vec<u8>, ask: &Ask) {
    out.extend_from_slice(&ask.key.0);
    out.push(scope_code(ask.scope));
}

pub(super) fn put_part(out: &mut Vec<u8>, part: &Part) {
    out.push(scope_code(part.scope) | (u8::from(part.mark.is_some()) << 1));
    part.mark.iter().for_each(|mark| out.extend_from_slice(&mark.0));
    part.hint.iter().for_each(|hint| {
        put_varint(out, hint.entries.into());
        put_list(out, &hint.sums, |out, sum| out.extend_from_slice(&sum.to_le_bytes()));
    });
    put_bytes(out, &encode_record(&part.state));
}

pub(super) fn read_part(reader: &mut Reader<'_>) -> Result<Entry<Part>, DecodeError> {
    let flags = reader.byte("part flags")?;
    let unknown = || DecodeError::Unknown { what: "part flags", value: flags.into() };
    let scope = read_scope(flags & !2).map_err(|_| unknown())?;
    let mark = if flags & 2 == 2 { Some(Mark(reader.array("a mark")?)) } else { None };
    let hint = match (scope, mark) {
        (Scope::Hinted, None) => return Err(unknown()),
        (Scope::Hinted, Some(_)) => Some(read_hint(reader)?),
        _ => None,
    };
    let record = reader.sized(MESSAGE_BYTES_MAX, "a record")?;
    let part = decode_record(record).map(|state| Part { state, mark, scope, hint });
    Ok(part.map_err(|error| (record_id(record), error)))
}

fn read_hint(reader: &mut Reader<'_>) -> Result<Hint, DecodeError> {
    let what = "a hint";
    let entries = reader.bounded(LIVE_ENTRIES_MAX, what)?;
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    let sums = read_list(reader, HINT_WORDS_MAX, what, |reader| {
        Ok(u32::from_le_bytes(reader.array(what)?))
    })?;
    let rule = "it says nothing";
    let says = entries > 0 && !sums.is_empty();
    says.then_some(Hint { entries, sums }).ok_or(DecodeError::Invalid { what, rule })
}

pub(super) fn read_ask(reader: &mut Reader<'_>) -> Result<Ask, DecodeError> {
    let key = KeyHash(reader.array("a key")?);
    Ok(Ask { key, scope: read_scope(reader.byte("a scope")?)? })
}

fn scope_code(scope: Scope) -> u8 {
    match scope {
        Scope::Fresh => 0,
        Scope::Whole => 1,
        Scope::Hinted => 4,
    }
}

fn read_scope(code: u8) -> Result<Scope, DecodeError> {
    match code {
        0 => Ok(Scope::Fresh),
        1 => Ok(Scope::Whole),
        4 => Ok(Scope::Hinted),
        _ => Err(DecodeError::Unknown { what: "a scope", value: code.into() }),
    }
}
