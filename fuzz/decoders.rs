// What each fuzz target does with its bytes. The targets include this file, and so does a test that runs the
// committed corpus through it with the stable toolchain.

use likewise::cache::redis::{ClockOffset, Envelope};
use likewise::cache::{HotKey, entry_codec};
use likewise::dialects::chat_completions::{ChatCompletions, ChunkAssembler, parse, read_reply};
use likewise::dialects::choices::ChunkReplay;
use likewise::dialects::{Assembler as _, Replay as _};
use likewise::domain::{Key, NamespaceId, UnixSeconds};
use likewise::request_identity::{IdentityRules, Json, Normalization};
use likewise::search::{DocumentRef, Results, record};
use likewise::service::answers::StoredAnswer;
use likewise::sse::{Event, Events};
use likewise::storage::directory::decode_format;
use likewise::storage::objects::{Position, Record, decode_names};
use likewise::storage::vectors::index_file;
use likewise::storage::vectors::manifest::Manifest;
use likewise::storage::vectors::segment::{HEADER_BYTES, Header, Slot};
use likewise::storage::{HotKeysList, collections};
use likewise_index::{Graph, IndexSpec, SearchParams, Vectors, check_faiss_index};

#[path = "streams.rs"]
pub(crate) mod streams;

/// The header page, as it is and with a checksum that holds.
pub(crate) fn segment_header(data: &[u8]) {
    let _ = Header::decode(data);
    let mut page = data.to_vec();
    page.resize(HEADER_BYTES - 4, 0);
    if let Ok(header) = Header::decode(&with_trailer(page)) {
        assert!(Header::decode(&header.encode()).is_ok_and(|same| same == header));
        assert!(header.slots_in(header.file_bytes()) == header.slot_count);
        let _ = header.slots_in(u64::MAX);
        let _ = header.slot_offset(u32::MAX);
    }
}

/// A file of FAISS, from anywhere: its rows, and a search of its graph.
pub(crate) fn faiss_file(data: &[u8]) {
    if let Ok(vectors) = Vectors::read(data) {
        for row in 0..vectors.len().min(4) {
            assert!(vectors.row(row).len() == vectors.dim());
            let _ = vectors.id(row);
        }
    }
    let _ = check_faiss_index(data);
    if let Ok(graph) = Graph::open(data) {
        let params = SearchParams { ef: 8, candidates: 4 };
        let query = vec![0.5; graph.dim()];
        let found = graph.search(&query, params, Some(&|row| row % 2 == 0));
        assert!(found.iter().all(|&row| (row as usize) < graph.len() && row % 2 == 0));
    }
}

/// The name of an index: what is read of it is what FAISS is given, and costs something finite.
pub(crate) fn factory(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(spec) = IndexSpec::parse(text) else { return };
    let factory = spec.factory();
    let again = IndexSpec::parse(factory.trim_end_matches("np"));
    assert!(again.is_ok_and(|same| same == spec), "{text} became {factory}");
    for dim in [1, 8, 384, 8192] {
        let is_possible = spec.check(dim).is_ok();
        let cost = spec.cost(1 << 24, dim, 200, 8);
        assert!(cost.seconds >= 120 && cost.memory_bytes >= 512 << 20);
        assert!(!is_possible || spec.training_rows(1 << 24, dim) <= 1 << 18);
    }
}

/// A slot, as it is and with a checksum that holds. The first byte chooses the slot's number.
pub(crate) fn slot(data: &[u8]) {
    let header = segment();
    let number = data.first().copied().map_or(0, u32::from);
    let _ = header.decode_slot(number, data);
    let mut bytes = data.to_vec();
    bytes.resize(header.slot_bytes() as usize, 0);
    bytes[32..36].copy_from_slice(&number.to_le_bytes());
    header.write_checksum(&mut bytes);
    if let Slot::Good(stored) = header.decode_slot(number, &bytes) {
        let mut again = Vec::new();
        header.encode_slot(number, &stored.key, &stored.to_entry(UnixSeconds(0)), &mut again);
        assert!(matches!(header.decode_slot(number, &again), Slot::Good(same) if same == stored));
    }
}

/// An index file, as it is and with a checksum that holds.
pub(crate) fn index(data: &[u8]) {
    let header = segment();
    let _ = index_file::decode(data, &header);
    if let Ok(entries) = index_file::decode(&with_trailer(data.to_vec()), &header) {
        let again = index_file::encode(&header, &entries);
        assert!(index_file::decode(&again, &header).is_ok_and(|same| same == entries));
    }
}

/// A manifest, as it is and with a checksum that holds.
pub(crate) fn manifest(data: &[u8]) {
    let _ = Manifest::decode(data);
    if let Ok(manifest) = Manifest::decode(&with_trailer(data.to_vec())) {
        assert!(Manifest::decode(&manifest.encode()).is_ok_and(|same| same == manifest));
        let _ = manifest.find(7);
    }
}

/// An object's record, and its names, as they are and with checksums that hold.
pub(crate) fn object(data: &[u8]) {
    let key = Key([7; 32]);
    let decode = |bytes: &[u8]| entry_codec::decode(&Record::read(&key, bytes.to_vec())?);
    let _ = (entry_codec::decode_head(data), decode(data));
    let position = Position::of(NamespaceId::default(), &key);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(position.as_bytes()), data);
    let _ = decode_names(&position, data);
    let _ = decode_names(&position, &[data, &checksum.to_le_bytes()].concat());
    let mut record = data.to_vec();
    record.resize(record.len().max(40), 0);
    let count = |at: usize| usize::from(u16::from_le_bytes([record[at], record[at + 1]]));
    let head_end = 72 + 16 * count(36) + count(38);
    record.resize(record.len().max(head_end + 4), 0);
    let value = &record[head_end + 4..];
    let (value_bytes, value_checksum) = (value.len() as u32, crc32c::crc32c(value));
    record[28..32].copy_from_slice(&value_bytes.to_le_bytes());
    record[32..36].copy_from_slice(&value_checksum.to_le_bytes());
    let head_checksum = crc32c::crc32c_append(crc32c::crc32c(&key.0), &record[..head_end]);
    record[head_end..head_end + 4].copy_from_slice(&head_checksum.to_le_bytes());
    if let Some(entry) = decode(&record) {
        let again = entry_codec::encode(&key, &entry).expect("it fitted before");
        assert!(entry_codec::decode(&again).is_some_and(|same| same == entry));
    }
}

/// A list of hot keys, as it is and with a checksum that holds, and the keys in it.
pub(crate) fn hot_keys(data: &[u8]) {
    let _ = HotKeysList::decode(data);
    if let Ok(list) = HotKeysList::decode(&with_trailer(data.to_vec())) {
        assert!(HotKeysList::decode(&list.encode()).is_ok_and(|same| same == list));
        let keys = HotKey::decode(&list.keys);
        assert_eq!(HotKey::decode(&HotKey::encode(&keys)), keys);
    }
}

/// The manifest of a collection and the header of its segments, as they are and with a checksum that holds.
pub(crate) fn rows(data: &[u8]) {
    let _ = (collections::Manifest::decode(data), collections::Header::decode(data));
    let _ = collections::BuildRecord::decode(&with_trailer(data.to_vec()), &[7; 16]);
    if let Ok(manifest) = collections::Manifest::decode(&with_trailer(data.to_vec())) {
        assert!(collections::Manifest::decode(&manifest.encode()).is_ok_and(|same| same == manifest));
    }
    let mut page = data.to_vec();
    page.resize(collections::HEADER_BYTES - 4, 0);
    let _ = collections::Header::decode(&with_trailer(page));
}

/// A document, results, and a change of a collection.
pub(crate) fn document(data: &[u8]) {
    if let Some(document) = DocumentRef::decode(data) {
        let _ = document.to_document();
    }
    let _ = Results::from_bytes(data.into()).iter().count();
    if let Some((version, changes)) = record::decode(3, data) {
        assert!(record::decode(3, &record::encode(version, &changes)).is_some());
    }
}

/// A kept answer's record, a request, and an upstream's reply, whole and in events.
pub(crate) fn answer(data: &[u8]) {
    if let Some(record) = StoredAnswer::decode(data) {
        assert!(StoredAnswer::decode(&record.encode()) == Some(record));
    }
    for normalization in [Normalization::Minimal, Normalization::WordLists] {
        let rules = IdentityRules::new(normalization, &[]);
        let _ = parse(data, &rules).map(|request| request.question.map(|question| question.len()));
    }
    if let Ok(json) = Json::parse(data) {
        let canonical = json.canonical();
        assert!(Json::parse(&canonical).is_ok_and(|same| same.canonical() == canonical));
    }
    if let Some(answer) = read_reply(data) {
        let replay = ChunkReplay::new::<ChatCompletions>(&answer.json, UnixSeconds(5), true);
        let _ = replay.map(|mut replay| std::iter::from_fn(|| replay.next_bytes(100)).count());
    }
    let whole = events(data.chunks(data.len().max(1)));
    assert!(whole == events(data.chunks(1)), "the same events, however they are cut");
    let said = streams::data_of(&whole.0);
    let mut assembly = ChunkAssembler::default();
    said.iter().for_each(|data| _ = assembly.push_data(data));
    let answer = assembly.finish().ok().and_then(|json| read_reply(&json));
    if let Some(answer) = answer.filter(|answer| answer.unstorable.is_none()) {
        streams::check_replays(&answer, &streams::Received::read(&said));
    }
}

/// A stream of a model, generated from a script.
pub(crate) fn stream(data: &[u8]) {
    let _ = streams::check(data);
}

/// The events of a stream that comes in pieces, and what is left at its end.
fn events<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Vec<u8>) {
    let (mut stream, mut events) = (Events::default(), Vec::new());
    for piece in pieces {
        stream.push(piece);
        events.extend(std::iter::from_fn(|| stream.next_event()));
    }
    (events, stream.rest().to_vec())
}

/// A format file.
pub(crate) fn format(data: &[u8]) {
    let _ = decode_format(data);
}

fn segment() -> Header {
    Header { number: 7, salt: [9; 16], payload_bytes: 100, slot_count: 32, created: UnixSeconds(5) }
}

fn with_trailer(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// An entry of Redis, from anything that can write there: as it is, and with a checksum that holds.
pub(crate) fn envelope(data: &[u8]) {
    let (key, offset) = (Key([7; 32]), ClockOffset::from_micros(-3_000_000));
    let authenticated = Envelope::authenticated("a key of sixteen").expect("long enough");
    assert!(authenticated.open(&key, data, offset).is_none(), "a tag was forged");
    let plain = Envelope::unauthenticated();
    let sealed = [data, &checksum(&key, data)].concat();
    for bytes in [data, &sealed] {
        if let Some(read) = plain.open(&key, bytes, offset) {
            let again =
                plain.seal(&key, read.write_id, &read.entry, offset).expect("counts that were read fit");
            assert!(plain.open(&key, &again, offset) == Some(read));
        }
    }
}

/// That of an envelope without authentication.
fn checksum(key: &Key, data: &[u8]) -> [u8; 8] {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&key.0);
    hasher.update(data);
    hasher.digest().to_le_bytes()
}
