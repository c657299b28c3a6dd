//! The first bytes of redb's file: how it was closed, and its last two commits (`src/tree_store/page_store/header.rs` and
//! `xxh3.rs` of redb 4.6). redb takes a commit that does not verify for one that a crash has cut off and goes back to the
//! one before it, which was acknowledged; this module detects that case.

use std::ops::Range;

use crate::storage::le_bytes::{array_at, u64_at};

/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 320;
/// The first bytes of a file. redb writes them with the second flush of a new file.
const REDB_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
/// Where redb notes how its file was closed, and the bit that says it was not.
pub(crate) const CLOSED_AT: u64 = 9;
pub(crate) const NOT_CLOSED: u8 = 2;
/// Other bits of that byte: which slot redb reads first, and that it may not choose the other one.
const PRIMARY: u8 = 1;
const TWO_PHASE: u8 = 4;
/// The magic number; page size and sizes of regions, which never change.
const FIXED: [Range<usize>; 2] = [0..9, 12..24];
/// Where what is said of the whole file ends, and the slots of two commits begin.
const SLOTS_AT: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;
const TRANSACTION_AT: usize = 104;
const CHECKSUM_AT: usize = 112;

/// The header of a file.
pub(crate) type Header = [u8; HEADER_BYTES];

/// Whether a header is that of a file whose initialization was completed.
pub(crate) fn is_initialized(header: &Header) -> bool {
    header.starts_with(&REDB_MAGIC)
}

/// The number of the last commit whose slot verifies.
pub(crate) fn last_commit(header: &Header) -> Option<u64> {
    SLOTS_AT.iter().filter_map(|&at| commit_in(&header[at..at + SLOT_BYTES])).max()
}

/// Whether a slot of `found` does not verify and is not what it was in `copy`.
pub(crate) fn has_damaged_slot(found: &Header, copy: &Header) -> bool {
    SLOTS_AT.iter().map(|&at| at..at + SLOT_BYTES).any(|slot| {
        let is_as_it_was = found[slot.clone()] == copy[slot.clone()];
        !is_as_it_was && commit_in(&found[slot]).is_none()
    })
}

/// Whether two headers may be of one file.
pub(crate) fn is_same_file(a: &Header, b: &Header) -> bool {
    FIXED.into_iter().all(|part| a[part.clone()] == b[part])
}

/// The commits of one header in a file that another header describes, as if it had not been closed. redb reads the last
/// commit that verifies: what `description` says of its own slots is not true of these.
pub(crate) fn with_commits_of(description: &Header, commits: &Header) -> Header {
    let mut header = *description;
    header[SLOTS_AT[0]..].copy_from_slice(&commits[SLOTS_AT[0]..]);
    let [first, second] = SLOTS_AT.map(|at| commit_in(&header[at..at + SLOT_BYTES]));
    let flags = header[CLOSED_AT as usize] & !(PRIMARY | TWO_PHASE);
    header[CLOSED_AT as usize] = flags | NOT_CLOSED | if second > first { PRIMARY } else { 0 };
    header
}

fn commit_in(slot: &[u8]) -> Option<u64> {
    let checked = array_at::<CHECKSUM_AT>(slot, 0)?;
    let holds = array_at(slot, CHECKSUM_AT).map(u128::from_le_bytes) == Some(xxh3_of_slot(&checked));
    u64_at(slot, TRANSACTION_AT).filter(|_| holds)
}

/// The first half of the secret, and the primes, of XXH3 (xxHash 0.8, `xxhash.h`: `kSecret`, `PRIME64_n`).
const SECRET: [u8; 128] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde,
    0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79,
    0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46,
    0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb,
    0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2,
    0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c,
    0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59,
    0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
];
const PRIMES: [u64; 4] =
    [0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63];
const AVALANCHE: u64 = 0x1656_6791_9E37_79F9;

/// XXH3 of 128 bits without seed, of the checked part of a slot: `XXH3_len_17to128_128b`.
fn xxh3_of_slot(data: &[u8; CHECKSUM_AT]) -> u128 {
    let word = |bytes: &[u8], at: usize| u64_at(bytes, at).unwrap_or_default();
    let mix_16 = |data_at: usize, secret_at: usize| {
        let low = word(data, data_at) ^ word(&SECRET, secret_at);
        let high = word(data, data_at + 8) ^ word(&SECRET, secret_at + 8);
        let product = u128::from(low) * u128::from(high);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let sum_16 = |at: usize| word(data, at).wrapping_add(word(data, at + 8));
    let bytes = CHECKSUM_AT as u64;
    let (mut low, mut high) = (PRIMES[0].wrapping_mul(bytes), 0_u64);
    for (front, secret) in [(48, 96), (32, 64), (16, 32), (0, 0)] {
        let back = CHECKSUM_AT - 16 - front;
        low = low.wrapping_add(mix_16(front, secret)) ^ sum_16(back);
        high = high.wrapping_add(mix_16(back, secret + 16)) ^ sum_16(front);
    }
    let avalanche = |mut hash: u64| {
        hash ^= hash >> 37;
        hash = hash.wrapping_mul(AVALANCHE);
        hash ^ (hash >> 32)
    };
    let upper = low
        .wrapping_mul(PRIMES[0])
        .wrapping_add(high.wrapping_mul(PRIMES[3]))
        .wrapping_add(bytes.wrapping_mul(PRIMES[1]));
    let lower = avalanche(low.wrapping_add(high));
    (u128::from(0_u64.wrapping_sub(avalanche(upper))) << 64) | u128::from(lower)
}

#[cfg(test)]
mod tests {
    use redb::{Database, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

    fn header_of(path: &std::path::Path) -> Header {
        fs_err::read(path).unwrap()[..HEADER_BYTES].try_into().unwrap()
    }

    #[test]
    fn the_commits_of_a_file_that_redb_wrote_verify_and_damaged_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let database = Database::create(&path).unwrap();
        let mut last = 0;
        for n in 0..5_u8 {
            let transaction = database.begin_write().unwrap();
            transaction.open_table(TABLE).unwrap().insert(&[n][..], &[n][..]).unwrap();
            transaction.commit().unwrap();
            let header = header_of(&path);
            let commit = last_commit(&header).unwrap();
            assert!(commit > last);
            last = commit;
        }
        let whole = header_of(&path);
        let commits = SLOTS_AT.map(|at| commit_in(&whole[at..at + SLOT_BYTES]).unwrap());
        assert_eq!(commits.iter().max(), Some(&last));
        for (slot, at) in SLOTS_AT.into_iter().enumerate() {
            for bit in 0..SLOT_BYTES * 8 {
                let mut damaged = whole;
                damaged[at + bit / 8] ^= 1 << (bit % 8);
                assert_eq!(last_commit(&damaged), Some(commits[1 - slot]), "bit {bit} of slot {slot}");
            }
        }
    }

    #[test]
    fn commits_of_another_header_are_read_from_the_last_that_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let database = Database::create(&path).unwrap();
        let mut headers = Vec::new();
        for n in 0..4_u8 {
            let transaction = database.begin_write().unwrap();
            transaction.open_table(TABLE).unwrap().insert(&[n][..], &[n][..]).unwrap();
            transaction.commit().unwrap();
            headers.push(header_of(&path));
        }
        for commits in &headers {
            for flags in 0..8 {
                let mut description = headers[0];
                description[CLOSED_AT as usize] = flags;
                let header = with_commits_of(&description, commits);
                let flags = header[CLOSED_AT as usize];
                let primary = SLOTS_AT[usize::from(flags & PRIMARY)];
                assert_eq!(commit_in(&header[primary..primary + SLOT_BYTES]), last_commit(commits));
                assert_eq!(flags & (NOT_CLOSED | TWO_PHASE), NOT_CLOSED);
            }
        }
    }
}
