//! States in LZ4: they come out as they went in, or not at all.

use consilience::codec::frame::{
    Envelope, Frame, MESSAGE_BYTES_MAX, Mark, Part, Scope, decode_frame, encode_frame,
    encode_packed, unpack,
};

use super::{frames, state};

/// A frame of many parts that are much alike, as they are where one run changed them all.
fn alike(parts: usize) -> Envelope {
    let mark = Some(Mark([0x22; 16]));
    let part = Part { state: state(), mark, scope: Scope::Fresh, hint: None };
    Envelope { frame: Frame::Parts(vec![part; parts]), ends_turn: true }
}

#[test]
fn states_that_are_alike_travel_packed_and_all_else_as_it_is() {
    let envelope = alike(100);
    let (packed, plain) = (encode_packed(&envelope), encode_frame(&envelope));
    assert!(packed.len() < plain.len() / 10);
    assert_eq!(decode_frame(&packed).and_then(unpack), Ok(envelope));
    let cells = Frame::Sketch { cells: vec![0; 1_000], strata: Vec::new() };
    let long = [("cells", cells), ("stubs", Frame::Find(vec![7; 100]))];
    for envelope in
        frames().into_iter().chain(long).map(|(_, frame)| Envelope { frame, ends_turn: true })
    {
        let is_packed = matches!(envelope.frame, Frame::Packed { .. });
        assert_eq!(encode_packed(&envelope), encode_frame(&envelope), "packed for nothing");
        assert!(is_packed || unpack(envelope.clone()) == Ok(envelope));
    }
}

#[test]
fn a_packed_frame_that_lies_about_its_length_its_turn_or_its_kind_is_refused() {
    let pack = |bytes: &[u8], length: usize, ends_turn| {
        let frame = Frame::Packed { length, block: lz4_flex::block::compress(bytes) };
        Envelope { frame, ends_turn }
    };
    let inner = encode_frame(&alike(9));
    assert_eq!(unpack(pack(&inner, inner.len(), true)), Ok(alike(9)));
    for length in [0, inner.len() - 1, inner.len() + 1, MESSAGE_BYTES_MAX] {
        assert!(unpack(pack(&inner, length, true)).is_err(), "{length} is not its length");
    }
    assert!(unpack(pack(&inner, inner.len(), false)).is_err());
    let fragment = Frame::Fragment { more: false, bytes: vec![0; 9] };
    for frame in [fragment, pack(&inner, inner.len(), true).frame] {
        let bytes = encode_frame(&Envelope { frame, ends_turn: true });
        assert!(unpack(pack(&bytes, bytes.len(), true)).is_err(), "it may not be packed");
    }
    let long = Frame::Packed { length: MESSAGE_BYTES_MAX + 1, block: vec![0; 9] };
    assert!(decode_frame(&encode_frame(&Envelope { frame: long, ends_turn: true })).is_err());
    let garbage = Frame::Packed { length: 300, block: vec![0xff; 40] };
    assert!(unpack(Envelope { frame: garbage, ends_turn: true }).is_err());
}
