//! The decoder on frames as a server sent them, and on damaged ones.

use super::*;
use proptest::prelude::*;

/// Frames as PostgreSQL 17 sent them for `UPDATE t SET v = 'two' WHERE id = 7` on `t(id int primary key, v text)`.
const RELATION: &[u8] =
    b"R\0\0\x40\x05public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff";
const UPDATE: &[u8] = b"U\0\0\x40\x05N\0\x02t\0\0\0\x017t\0\0\0\x03two";
const KEY_UPDATE: &[u8] = b"U\0\0\x40\x05K\0\x02t\0\0\0\x017nN\0\x02t\0\0\0\x018u";

#[test]
fn a_relation_names_its_columns() {
    let Ok(Message::Relation(relation)) = Message::parse(RELATION) else { panic!("no relation") };
    assert_eq!((relation.oid, relation.schema, relation.table, relation.identity), (0x4005, "public", "t", b'd'));
    let columns = relation.columns().unwrap();
    assert_eq!(columns[0], RelationColumn { key: true, name: "id", type_oid: 23, type_modifier: -1 });
    assert_eq!(columns[1], RelationColumn { key: false, name: "v", type_oid: 25, type_modifier: -1 });
}

#[test]
fn updates_hold_the_new_row_and_perhaps_the_old_key() {
    let Ok(Message::Update { relation: 0x4005, old: None, new }) = Message::parse(UPDATE) else { panic!("no update") };
    let fields: Vec<_> = new.fields().map(|field| field.unwrap()).collect();
    assert_eq!(fields, [Field::Text(b"7"), Field::Text(b"two")]);
    let Ok(Message::Update { old: Some(old), new, .. }) = Message::parse(KEY_UPDATE) else { panic!("no update") };
    assert!(!old.full);
    let fields: Vec<_> = old.tuple.fields().chain(new.fields()).map(|field| field.unwrap()).collect();
    assert_eq!(fields, [Field::Text(b"7"), Field::Null, Field::Text(b"8"), Field::Unchanged]);
}

#[test]
fn commits_say_where_to_resume() {
    let mut bytes = b"C\0".to_vec();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3]);
    bytes.extend([0; 8]);
    let commit = Message::Commit { commit: Lsn(0x1_0000_0002), end: Lsn(0x1_0000_0003) };
    assert_eq!(Message::parse(&bytes), Ok(commit));
}

#[test]
fn a_cut_message_is_malformed() {
    for message in [RELATION, UPDATE, KEY_UPDATE] {
        for length in 0..message.len() {
            let whole = match Message::parse(&message[..length]) {
                Ok(Message::Relation(relation)) => relation.columns().is_ok(),
                Ok(Message::Update { new, .. }) => new.fields().all(|field| field.is_ok()),
                Ok(_) => true,
                Err(_) => false,
            };
            assert!(!whole, "{length} bytes were taken");
        }
    }
}

/// Walks everything that a message offers.
fn walk(bytes: &[u8]) {
    if let Ok(Frame::Data { message: data, .. }) = Frame::parse(bytes) {
        walk(data);
    }
    if let Ok((_, _, rest)) = streamed(bytes) {
        assert!(rest.len() < bytes.len());
    }
    let count = |tuple: Tuple<'_>| assert!(tuple.fields().count() <= usize::from(tuple.columns));
    match Message::parse(bytes) {
        Ok(Message::Insert { new, .. }) => count(new),
        Ok(Message::Update { old, new, .. }) => {
            count(new);
            old.into_iter().for_each(|old| count(old.tuple));
        }
        Ok(Message::Delete { old, .. }) => count(old.tuple),
        Ok(Message::Relation(relation)) => {
            let columns = relation.columns();
            assert!(columns.is_err() || columns.is_ok_and(|columns| columns.len() <= bytes.len()));
        }
        Ok(Message::Truncate { relations }) => assert!(relations.iter().count() * 4 <= bytes.len()),
        Ok(_) | Err(_) => {}
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        walk(&bytes);
    }

    #[test]
    fn damaged_messages_are_survived(which in 0usize..3, at in 0usize..60, byte in any::<u8>()) {
        let mut bytes = [RELATION, UPDATE, KEY_UPDATE][which].to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        walk(&bytes);
    }
}
