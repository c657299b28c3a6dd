//! The small records: what is written is found, also after a restart; a damaged file is a clear error.

use likewise::error::Kind;
use likewise::storage::Records;
use likewise::storage::records::{Change, RECORDS_NAME};

use super::{TempDir, wait};

#[test]
fn records_are_found_in_order_and_again_after_a_restart() {
    let dir = TempDir::new("records");
    for round in 0..2 {
        let records = Records::open(dir.path()).unwrap();
        if round == 0 {
            assert_eq!(records.get("jobs", b"a").unwrap(), None, "there is no such table yet");
            let change = |key: &[u8], value: Option<&[u8]>| Change {
                table: "jobs".into(),
                key: key.into(),
                value: value.map(Into::into),
            };
            wait(records.write(vec![change(b"b", Some(b"2")), change(b"a", Some(b"1")), change(b"b", None)]))
                .unwrap();
            wait(records.put("jobs", b"c", b"3")).unwrap();
            wait(records.put("tags", b"a", b"4")).unwrap();
            wait(records.delete("tags", b"missing")).unwrap();
        }
        assert_eq!(records.get("jobs", b"a").unwrap().unwrap(), b"1");
        assert_eq!(records.get("jobs", b"b").unwrap(), None);
        assert_eq!(records.range("jobs", b"", 10).unwrap().len(), 2);
        assert_eq!(records.range("jobs", b"b", 10).unwrap(), [(b"c".to_vec(), b"3".to_vec())]);
        assert_eq!(records.range("jobs", b"", 1).unwrap().len(), 1);
        assert_eq!(records.range("nothing", b"", 1).unwrap(), []);
    }
}

#[test]
fn many_writers_share_commits() {
    let dir = TempDir::new("records-many");
    let records = Records::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..16_u8 {
            let records = &records;
            scope.spawn(move || {
                for n in 0..8 {
                    wait(records.put("t", &[writer, n], &[n])).unwrap();
                    assert_eq!(records.get("t", &[writer, n]).unwrap().unwrap(), [n]);
                }
            });
        }
    });
    assert_eq!(records.range("t", b"", 1000).unwrap().len(), 128);
    records.shutdown();
    assert_eq!(wait(records.put("t", b"k", b"v")).unwrap_err().kind(), Kind::Unavailable);
}

#[test]
fn a_damaged_or_locked_file_is_a_clear_error() {
    let dir = TempDir::new("records-damaged");
    let records = Records::open(dir.path()).unwrap();
    assert_eq!(Records::open(dir.path()).unwrap_err().kind(), Kind::Locked);
    drop(records);
    fs_err::write(dir.path().join(RECORDS_NAME), [7; 9000]).unwrap();
    assert_eq!(Records::open(dir.path()).unwrap_err().kind(), Kind::Corrupt);
}
