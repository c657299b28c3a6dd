//! Goal: no bytes on disk make a decoder panic. Method: the fuzz targets' own bodies over the committed corpus, and
//! over every file of it cut short and with each byte changed.

use std::path::Path;

#[path = "../../../fuzz/decoders.rs"]
mod decoders;

type Target = (&'static str, fn(&[u8]));

#[test]
fn the_fuzz_targets_hold_on_their_corpus_and_around_it() {
    let targets: [Target; 14] = [
        ("segment_header", decoders::segment_header),
        ("slot", decoders::slot),
        ("index_file", decoders::index),
        ("manifest", decoders::manifest),
        ("hot_keys", decoders::hot_keys),
        ("object", decoders::object),
        ("envelope", decoders::envelope),
        ("format", decoders::format),
        ("rows", decoders::rows),
        ("document", decoders::document),
        ("faiss_file", decoders::faiss_file),
        ("answer", decoders::answer),
        ("factory", decoders::factory),
        ("stream", decoders::stream),
    ];
    for (name, target) in targets {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files = 0;
        for file in fs_err::read_dir(corpus).unwrap() {
            let bytes = fs_err::read(file.unwrap().path()).unwrap();
            target(&bytes);
            for at in 0..bytes.len() {
                target(&bytes[..at]);
                for change in [0x01, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] ^= change;
                    target(&changed);
                }
            }
            files += 1;
        }
        assert!(files >= 4, "{name} has a corpus");
    }
}

/// An upstream says whatever it likes: what is stored of it is replayed word for word, in both forms.
#[test]
fn a_stream_of_any_shape_is_replayed_exactly_or_not_stored() {
    const STREAMS: usize = 20_000;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut stored = 0;
    for _ in 0..STREAMS {
        let script: Vec<u8> = (0..8 + random() % 120).map(|_| (random() >> 32) as u8).collect();
        stored += usize::from(decoders::streams::check(&script));
    }
    assert!(
        stored > STREAMS / 20 && stored < STREAMS,
        "{stored} of {STREAMS} are stored: the test shows nothing"
    );
}
