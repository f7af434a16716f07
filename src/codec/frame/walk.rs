//! Nodes of a trie as bytes: prefixes without their zeros, hashes as short as the walk shows them.
//! It must never know what a node is held against.

use super::{Frame, WALK_NODES_MAX, WalkBody, WalkNode, read_list};
use crate::codec::bytes::{DecodeError, Reader, put_varint};
use crate::pattern::{Digest, KeyHash};

pub(super) fn put_walk(out: &mut Vec<u8>, hash_bytes: u8, nodes: &[WalkNode]) {
    out.push(hash_bytes);
    let cut = usize::from(hash_bytes).min(32);
    put_varint(out, nodes.len() as u64);
    for node in nodes {
        out.push(node.depth);
        out.extend_from_slice(&node.prefix[..usize::from(node.depth).div_ceil(2).min(16)]);
        match &node.body {
            WalkBody::Leaf(entries) => {
                out.push(u8::try_from(entries.len()).unwrap_or(u8::MAX));
                for (key, digest) in entries {
                    out.extend_from_slice(&key.0);
                    out.extend_from_slice(&digest.0[..cut]);
                }
            }
            WalkBody::Inner(children) => {
                out.push(0x80);
                let mask = children.iter().fold(0_u16, |mask, (nibble, _)| mask | (1 << nibble));
                out.extend_from_slice(&mask.to_be_bytes());
                children.iter().for_each(|(_, hash)| out.extend_from_slice(&hash.0[..cut]));
            }
        }
    }
}

pub(super) fn read_walk(reader: &mut Reader<'_>) -> Result<Frame, DecodeError> {
    let hash_bytes = reader.byte("a hash length")?;
    if hash_bytes != 8 && hash_bytes != 32 {
        return Err(DecodeError::Unknown { what: "a hash length", value: hash_bytes.into() });
    }
    let nodes = read_list(reader, WALK_NODES_MAX, "walk nodes", |reader| {
        let depth = reader.byte("a depth")?;
        if depth > 32 {
            let what = "a depth";
            return Err(DecodeError::OverLimit { what, value: depth.into(), limit: 32 });
        }
        let mut prefix = [0; 16];
        let bytes = usize::from(depth).div_ceil(2);
        prefix[..bytes].copy_from_slice(reader.take(bytes, "a prefix")?);
        Ok(WalkNode { depth, prefix, body: read_walk_body(reader, usize::from(hash_bytes))? })
    })?;
    Ok(Frame::Walk { hash_bytes, nodes })
}

fn read_walk_body(reader: &mut Reader<'_>, cut: usize) -> Result<WalkBody, DecodeError> {
    let tag = reader.byte("a node tag")?;
    let hash = |reader: &mut Reader<'_>| {
        let mut digest = [0; 32];
        digest[..cut].copy_from_slice(reader.take(cut, "a hash")?);
        Ok::<_, DecodeError>(Digest(digest))
    };
    if tag == 0x80 {
        let mask = u16::from_be_bytes(reader.array("a child mask")?);
        let mut children = Vec::new();
        for nibble in (0..16_u8).filter(|nibble| mask & (1 << nibble) != 0) {
            children.push((nibble, hash(reader)?));
        }
        return Ok(WalkBody::Inner(children));
    }
    if tag > 16 {
        return Err(DecodeError::OverLimit { what: "a leaf", value: tag.into(), limit: 16 });
    }
    let mut entries = Vec::new();
    for _ in 0..tag {
        entries.push((KeyHash(reader.array("a key")?), hash(reader)?));
    }
    let sorted = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if sorted {
        Ok(WalkBody::Leaf(entries))
    } else {
        Err(DecodeError::NotCanonical { what: "a leaf" })
    }
}
