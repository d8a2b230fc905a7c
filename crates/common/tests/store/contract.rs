//! What each read, check and operation does, on every backend.

use common::store::{
    Bytes, Check, Committed, Found, NewStore, Op, Read, Store, Txn, check_format, eviction_warning,
};

use crate::{
    bytes, done, field, fields, items, key, member, members, on_every_backend, one, push, set,
    value,
};

on_every_backend!(
    a_value_is_set_replaced_and_deleted,
    values_are_kept_byte_for_byte,
    a_set_replaces_a_key_of_any_type,
    a_hash_keeps_its_fields_and_is_absent_without_any,
    numbers_are_added_up_in_fields,
    a_list_is_appended_to_and_read_by_position,
    an_item_is_replaced_by_position,
    the_last_item_is_popped_and_an_empty_list_is_absent,
    pushing_to_an_existing_list_begins_none,
    operations_are_done_in_order,
    absent_keys_read_as_empty,
    all_reads_come_in_the_order_asked,
    independent_operations_say_whether_they_were_applied,
    long_transactions_are_whole,
    an_empty_call_is_fine,
    the_store_answers_a_ping,
    a_store_of_another_format_is_refused,
);

async fn a_value_is_set_replaced_and_deleted(store: &Store) {
    done(store, [set("v", "one")]).await;
    assert_eq!(value(store, "v").await.as_deref(), Some("one"));
    done(store, [set("v", "")]).await;
    assert_eq!(value(store, "v").await.as_deref(), Some(""));
    done(store, [Op::Delete(key("v"))]).await;
    assert_eq!(value(store, "v").await, None);
}

async fn values_are_kept_byte_for_byte(store: &Store) {
    let odd = Bytes::from((0u8..=255).cycle().take(70_000).collect::<Vec<_>>());
    let name = "\u{202e}*6\r\n$1\r\n \"'{}";
    done(
        store,
        [
            Op::Set { key: key("odd"), value: odd.clone(), ttl: None },
            Op::FieldSet(key("hash"), name.into(), odd.clone()),
            Op::Push(key("list"), odd.clone()),
            Op::MemberSet(key("index"), name.into(), -7),
        ],
    )
    .await;
    let reads = vec![
        Read::Value(key("odd")),
        Read::Fields(key("hash")),
        Read::Items { key: key("list"), start: 0, stop: 0 },
        Read::Since { key: key("index"), score: -7, limit: 9 },
    ];
    let mut read = store.read(reads).await.unwrap();
    assert_eq!(read.value(0).unwrap(), odd);
    assert_eq!(read.fields(1)[name], odd);
    assert_eq!(read.items(2), [odd]);
    assert_eq!(read.members(3), [(name.to_owned(), -7)]);
}

async fn a_set_replaces_a_key_of_any_type(store: &Store) {
    done(store, [push("a", "item"), field("b", "f", "1"), member("c", "m", 1)]).await;
    done(store, [set("a", "1"), set("b", "2"), set("c", "3")]).await;
    for (name, expected) in [("a", "1"), ("b", "2"), ("c", "3")] {
        assert_eq!(value(store, name).await.as_deref(), Some(expected));
    }
    // What was there before must not come back with a new life of the key.
    done(
        store,
        [Op::Delete(key("a")), push("a", "new"), Op::Delete(key("c")), member("c", "n", 2)],
    )
    .await;
    assert_eq!(items(store, "a").await, ["new"]);
    assert_eq!(members(store, "c").await, [("n".to_owned(), 2)]);
}

async fn a_hash_keeps_its_fields_and_is_absent_without_any(store: &Store) {
    done(store, [field("h", "a", "1"), field("h", "b", "2"), field("h", "a", "3")]).await;
    assert_eq!(fields(store, "h").await, [("a".into(), "3".into()), ("b".into(), "2".into())]);
    done(store, [Op::FieldDelete(key("h"), "a".into()), Op::FieldDelete(key("h"), "none".into())])
        .await;
    assert_eq!(fields(store, "h").await, [("b".into(), "2".into())]);
    done(store, [Op::FieldDelete(key("h"), "b".into())]).await;
    let gone = Txn::durable().check(Check::Absent(key("h"))).op(push("h", "now a list"));
    assert_eq!(store.commit(gone).await.unwrap(), Committed::Applied);
}

async fn numbers_are_added_up_in_fields(store: &Store) {
    let add = |by| Op::FieldAdd(key("n"), "count".into(), by);
    done(store, [add(5), add(-7)]).await;
    assert_eq!(fields(store, "n").await, [("count".into(), "-2".into())]);
    done(store, [field("n", "count", "40"), add(2)]).await;
    assert_eq!(fields(store, "n").await, [("count".into(), "42".into())]);
    done(store, [Op::FieldDelete(key("n"), "count".into()), add(999_999_999_999_998)]).await;
    done(store, [add(1)]).await;
    assert_eq!(fields(store, "n").await, [("count".into(), "999999999999999".into())]);
}

async fn a_list_is_appended_to_and_read_by_position(store: &Store) {
    done(store, ["a", "b", "c", "d", "e"].map(|item| push("l", item))).await;
    for (start, stop, expected) in [
        (0, -1, "abcde"),
        (1, 3, "bcd"),
        (-2, -1, "de"),
        (-100, 1, "ab"),
        (3, 100, "de"),
        (2, 1, ""),
        (5, 9, ""),
        (-3, -4, ""),
        (i64::MIN, i64::MAX, "abcde"),
    ] {
        let found = one(store, Read::Items { key: key("l"), start, stop }).await;
        let expected: Vec<_> = expected.chars().map(|c| bytes(&c.to_string())).collect();
        assert_eq!(found, Found::Items(expected), "from {start} to {stop}");
    }
    assert_eq!(one(store, Read::Length(key("l"))).await, Found::Count(5));
}

async fn an_item_is_replaced_by_position(store: &Store) {
    let replace = |at, item: &str| Op::ItemSet(key("l"), at, bytes(item));
    done(store, ["a", "b", "c"].map(|item| push("l", item))).await;
    done(store, [replace(0, "A"), replace(-1, "C"), replace(3, "no"), replace(-4, "no")]).await;
    assert_eq!(items(store, "l").await, ["A", "b", "C"]);
    done(store, [Op::ItemSet(key("none"), 0, bytes("no"))]).await;
    assert!(items(store, "none").await.is_empty());
}

async fn the_last_item_is_popped_and_an_empty_list_is_absent(store: &Store) {
    done(store, [push("l", "a"), push("l", "b"), Op::Pop(key("l"))]).await;
    assert_eq!(items(store, "l").await, ["a"]);
    done(store, [Op::Pop(key("l")), Op::Pop(key("l"))]).await;
    let gone = Txn::durable().check(Check::Absent(key("l"))).op(push("l", "c"));
    assert_eq!(store.commit(gone).await.unwrap(), Committed::Applied);
    assert_eq!(items(store, "l").await, ["c"]);
}

async fn pushing_to_an_existing_list_begins_none(store: &Store) {
    let push_existing = |item: &str| Op::PushExisting(key("l"), bytes(item));
    done(store, [push_existing("a")]).await;
    assert!(items(store, "l").await.is_empty());
    done(store, [push("l", "b"), push_existing("c")]).await;
    assert_eq!(items(store, "l").await, ["b", "c"]);
}

async fn operations_are_done_in_order(store: &Store) {
    done(
        store,
        [
            push("x", "a"),
            push("x", "b"),
            Op::ItemSet(key("x"), 0, bytes("c")),
            field("h", "f", "1"),
            field("h", "f", "2"),
            Op::Delete(key("h")),
            field("h", "g", "3"),
            Op::Pop(key("x")),
            push("x", "d"),
            member("i", "m", 1),
            member("i", "m", 2),
            member("i", "n", 1),
            Op::MemberDelete(key("i"), "n".into()),
        ],
    )
    .await;
    assert_eq!(items(store, "x").await, ["c", "d"]);
    assert_eq!(fields(store, "h").await, [("g".into(), "3".into())]);
    assert_eq!(members(store, "i").await, [("m".to_owned(), 2)]);
}

async fn absent_keys_read_as_empty(store: &Store) {
    let reads = vec![
        Read::Value(key("n")),
        Read::Fields(key("n")),
        Read::Items { key: key("n"), start: 0, stop: -1 },
        Read::Length(key("n")),
        Read::Newest { key: key("n"), before: None, limit: 5 },
        Read::Newest { key: key("n"), before: Some((3, "m".into())), limit: 5 },
        Read::Since { key: key("n"), score: 0, limit: 5 },
    ];
    let found = store.read(reads).await.unwrap().found;
    let none = Found::Members(Vec::new());
    let expected = [
        Found::Value(None),
        Found::Fields([].into()),
        Found::Items(Vec::new()),
        Found::Count(0),
        none.clone(),
        none.clone(),
        none,
    ];
    assert_eq!(found, expected);
}

async fn all_reads_come_in_the_order_asked(store: &Store) {
    done(store, [set("a", "1"), set("b", "2"), member("i", "m", 7), push("l", "x")]).await;
    done(store, [field("h", "f", "3")]).await;
    let reads = vec![
        Read::Value(key("b")),
        Read::Newest { key: key("i"), before: Some((8, String::new())), limit: 5 },
        Read::Length(key("l")),
        Read::Value(key("a")),
        Read::Field(key("h"), "f"),
        Read::Field(key("h"), "none"),
        Read::Field(key("none"), "f"),
    ];
    let mut read = store.read(reads.clone()).await.unwrap();
    let each = store.read_each(reads).await.unwrap();
    assert_eq!(each.into_iter().map(Result::unwrap).collect::<Vec<_>>(), read.found);
    assert_eq!(read.value(0).unwrap(), "2");
    assert_eq!(read.members(1), [("m".to_owned(), 7)]);
    assert_eq!(read.count(2), 1);
    assert_eq!(read.value(3).unwrap(), "1");
    assert_eq!((read.value(4).unwrap(), read.value(5), read.value(6)), ("3".into(), None, None));
    assert!((read.now - common::clock::now_ms()).abs() < 10_000, "milliseconds since 1970");
}

async fn independent_operations_say_whether_they_were_applied(store: &Store) {
    let ttl = Some(std::time::Duration::from_secs(60));
    done(store, [push("l", "a"), set("v", "1")]).await;
    let other = |name: &str| format!("c:{{bob}}:0:{name}");
    let applied = store
        .apply(vec![
            Op::PushExisting(key("l"), bytes("b")),
            Op::PushExisting(other("l"), bytes("b")),
            Op::Expire(key("v"), ttl),
            Op::Expire(key("v"), None),
            Op::Expire(key("v"), None),
            Op::Expire(other("v"), ttl),
            Op::Expire(other("v"), None),
            Op::ItemSet(key("l"), 1, bytes("c")),
            Op::ItemSet(key("l"), 2, bytes("c")),
            Op::ItemSet(other("l"), 0, bytes("c")),
            Op::Delete(other("none")),
            Op::Push(other("m"), bytes("x")),
        ])
        .await
        .unwrap();
    let expected = [true, false, true, true, true, false, false, true, false, false, true, true];
    assert_eq!(applied, expected);
    assert_eq!(items(store, "l").await, ["a", "c"]);
}

async fn long_transactions_are_whole(store: &Store) {
    let ops = (0..5000)
        .map(|n| push("l", &n.to_string()))
        .chain((0..3000).map(|n| field("h", &n.to_string(), "x")));
    done(store, ops).await;
    assert_eq!(one(store, Read::Length(key("l"))).await, Found::Count(5000));
    assert_eq!(fields(store, "h").await.len(), 3000);
    assert_eq!(items(store, "l").await[4321], "4321");
}

async fn an_empty_call_is_fine(store: &Store) {
    assert_eq!(store.commit(Txn::durable()).await.unwrap(), Committed::Applied);
    assert_eq!(store.apply(Vec::new()).await.unwrap(), Vec::<bool>::new());
    assert!(store.read(Vec::new()).await.unwrap().found.is_empty());
}

async fn the_store_answers_a_ping(store: &Store) {
    store.ping().await.unwrap();
    assert_eq!(eviction_warning(store).await, None);
}

async fn a_store_of_another_format_is_refused(store: &Store) {
    let set = |value: &str| Op::Set { key: "i:format".into(), value: bytes(value), ttl: None };
    for _ in 0..2 {
        check_format(store, NewStore::Number).await.unwrap().expect("a new store is of our format");
    }
    done(store, [set("99")]).await;
    let wrong = check_format(store, NewStore::Number).await.unwrap().expect_err("it is newer");
    assert!(wrong.to_string().contains("format 99"), "{wrong}");
    // Older than the number.
    done(store, [Op::Delete("i:format".into())]).await;
    let account = Op::MemberSet("a:accounts".into(), "alice".into(), 1);
    done(store, [account]).await;
    let wrong = check_format(store, NewStore::Number).await.unwrap().expect_err("it is older");
    assert!(wrong.to_string().contains("format 1,"), "{wrong}");
}
