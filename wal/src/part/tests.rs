//! Round trips, and every refusal.

use super::*;
use crate::checksum::Checksum;
use crate::header::Salts;
use crate::id::{Epoch, Generation, Txid};
use crate::page::{BadPageSize, PageSize, StateHash};
use crate::position::{WalIdentity, WalPosition};

fn header() -> PartHeader {
    let generation = Generation { epoch: Epoch(3), random: 0x1234 };
    PartHeader {
        kind: PartKind::Segment,
        page_size: PageSize::new(4096).unwrap(),
        stamp: Stamp { generation, epoch: Epoch(4) },
        first: Txid(10),
        last: Txid(12),
        position: Some(WalPosition {
            identity: WalIdentity { salts: Salts([1; 8]), header_checksum: Checksum(2, 3) },
            frame: 4,
            checksum: Checksum(5, 6),
            change: 7,
            pages: 8,
        }),
        stored: Some(Txid(9)),
        before: StateHash(20),
        after: StateHash(21),
    }
}

fn encoded(header: &PartHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(header, payload, &mut bytes).unwrap();
    bytes
}

#[test]
fn round_trips_one_after_another() {
    let one = header();
    let (kind, position, stored) = (PartKind::Manifest, None, None);
    let two = PartHeader { kind, position, stored, ..one };
    let bytes = [encoded(&one, b"payload"), encoded(&two, b"")].concat();
    let mut reader = Reader::new(&bytes);
    let part = Part::decode(&mut reader).unwrap();
    assert_eq!((part.header, part.payload), (one, &b"payload"[..]));
    let part = Part::decode(&mut reader).unwrap();
    assert_eq!((part.header, part.payload), (two, &b""[..]));
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(stored_len(&bytes), Ok(PartHeader::LEN + 7 + 8 + TRAILER_LEN));
    assert_eq!(trailing_len(&bytes), Ok(PartHeader::LEN + TRAILER_LEN));
}

#[test]
fn every_flipped_byte_and_every_truncation_is_refused() {
    let good = encoded(&header(), b"payload");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        assert!(Part::decode(&mut Reader::new(&bad)).is_err(), "byte {at} flipped");
        assert!(Part::decode(&mut Reader::new(&good[..at])).is_err(), "cut at {at}");
    }
}

#[test]
fn a_wrong_length_at_the_end_is_refused() {
    let good = encoded(&header(), b"payload");
    let (payload_end, len) = (good.len() - TRAILER_LEN, u32::try_from(good.len()).unwrap());
    for wrong in [0, len - 1, len + 1, u32::MAX] {
        let mut bad = good[..payload_end].to_vec();
        bad.extend_from_slice(&wrong.to_le_bytes());
        bad.extend_from_slice(&crc32fast::hash(&bad).to_le_bytes());
        let decoded = Part::decode(&mut Reader::new(&bad));
        assert_eq!(decoded, Err(PartError::BadLength(wrong)));
    }
}

#[test]
fn the_end_of_an_object_tells_no_absurd_length() {
    let tail = |len: u32| [&len.to_le_bytes()[..], &[0; 4]].concat();
    for len in [104, 112 + MAX_PAYLOAD] {
        assert_eq!(trailing_len(&tail(len)), Ok(len as usize));
    }
    for len in [0, 103, 113 + MAX_PAYLOAD, u32::MAX] {
        assert_eq!(trailing_len(&tail(len)), Err(PartError::BadLength(len)));
    }
    assert!(matches!(trailing_len(&tail(104)[1..]), Err(PartError::Truncated(_))));
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let with = |at: usize, byte: u8| {
        let mut bytes = encoded(&header(), b"");
        bytes[at] = byte;
        Part::decode(&mut Reader::new(&bytes)).unwrap_err()
    };
    assert_eq!(with(0, b'X'), PartError::BadMagic);
    assert_eq!(with(4, 9), PartError::UnknownKind(9));
    assert_eq!(with(5, 2), PartError::UnknownVersion(2));
    assert_eq!(with(6, 3), PartError::UnknownFlags(3));
    assert_eq!(with(6, 5), PartError::UnknownFlags(5));
    assert_eq!(with(7, 40), PartError::BadPageSize(BadPageSize(0)));
    assert_eq!(with(95, 0xff), PartError::TooLong(0xff00_0000));
    assert_eq!(with(32, 0), PartError::BadRange);
    assert_eq!(with(6, 0), PartError::StrayPosition);
}

#[test]
fn no_part_tells_of_its_own_transactions_as_stored() {
    for stored in [10, 11, u64::MAX] {
        let bad = PartHeader { stored: Some(Txid(stored)), ..header() };
        assert_eq!(encode(&bad, b"payload", &mut Vec::new()), Err(PartError::StrayStored));
        let mut bytes = encoded(&header(), b"payload");
        let at = bytes.len() - TRAILER_LEN - 8;
        bytes[at..at + 8].copy_from_slice(&stored.to_le_bytes());
        let crc_at = bytes.len() - CRC_LEN;
        let crc = crc32fast::hash(&bytes[..crc_at]);
        bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
        let decoded = Part::decode(&mut Reader::new(&bytes));
        assert_eq!(decoded, Err(PartError::StrayStored));
    }
}

#[test]
fn packs_name_no_state_on_either_side() {
    let none = PartHeader {
        kind: PartKind::PackBlocks,
        first: Txid(0),
        last: Txid(0),
        position: None,
        stored: None,
        before: StateHash(0),
        ..header()
    };
    let footer = PartHeader { kind: PartKind::PackFooter, ..none };
    for good in [none, footer] {
        let part = Part::decode(&mut Reader::new(&encoded(&good, b"payload"))).unwrap().header;
        assert_eq!(part, good);
        let some = [
            PartHeader { last: Txid(1), ..good },
            PartHeader { position: header().position, ..good },
            PartHeader { before: StateHash(1), ..good },
        ];
        let mut bytes = encoded(&good, b"payload");
        bytes[6] |= 8;
        assert_eq!(Part::decode(&mut Reader::new(&bytes)), Err(PartError::StrayState));
        for bad in some {
            let refused = encode(&bad, b"", &mut Vec::new());
            assert_eq!(refused, Err(PartError::StrayState));
            let mut bytes = encoded(&PartHeader { kind: PartKind::Segment, ..bad }, b"");
            bytes[4] = good.kind.code();
            let refused = Part::decode(&mut Reader::new(&bytes));
            assert_eq!(refused, Err(PartError::StrayState));
        }
    }
}

#[test]
fn a_new_stamp_changes_the_stamp_alone() {
    let mut bytes = encoded(&header(), b"payload");
    let generation = Generation { epoch: Epoch(7), random: 0x99 };
    let stamp = Stamp { generation, epoch: Epoch(8) };
    restamp(&mut bytes, stamp).unwrap();
    let part = Part::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!(part.header, PartHeader { stamp, ..header() });
    assert_eq!(part.payload, b"payload");

    bytes.push(0);
    assert!(restamp(&mut bytes, stamp).is_err());
}
