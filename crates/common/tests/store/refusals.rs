//! What is not done: checks that fail, and values of another type than ours. Then nothing is.

use common::store::{Check, Committed, Op, Read, Store, StoreError, Txn};

use crate::{
    bytes, done, field, fields, items, key, member, on_every_backend, push, set, txn, value,
};

on_every_backend!(
    every_check_holds_and_fails_as_it_says,
    the_first_check_that_fails_is_named_and_nothing_is_done,
    a_wrong_type_changes_nothing,
    a_field_that_is_no_number_changes_nothing,
    checks_and_reads_of_another_type_are_corrupt,
    operations_that_are_repeated_do_no_harm,
);

async fn every_check_holds_and_fails_as_it_says(store: &Store) {
    done(store, [set("v", "x"), set("long", "xyz"), field("h", "f", "5")]).await;
    done(store, [field("h", "text", "no"), push("l", "i")]).await;
    let name = |name: &str| name.to_owned();
    let cases = [
        (Check::Absent(key("none")), true),
        (Check::Absent(key("v")), false),
        (Check::Absent(key("h")), false),
        (Check::Exists(key("l")), true),
        (Check::Exists(key("none")), false),
        (Check::Equals(key("v"), bytes("x")), true),
        (Check::Equals(key("v"), bytes("X")), false),
        (Check::Equals(key("none"), bytes("")), false),
        (Check::StartsWith(key("v"), bytes("x")), true),
        (Check::StartsWith(key("long"), bytes("xy")), true),
        (Check::StartsWith(key("long"), bytes("yz")), false),
        (Check::StartsWith(key("v"), bytes("xy")), false),
        (Check::StartsWith(key("none"), bytes("x")), false),
        (Check::FieldEquals(key("h"), name("f"), bytes("5")), true),
        (Check::FieldEquals(key("h"), name("f"), bytes("05")), false),
        (Check::FieldEquals(key("h"), name("none"), bytes("")), false),
        (Check::FieldEquals(key("none"), name("f"), bytes("")), false),
        (Check::FieldAbsent(key("h"), name("none")), true),
        (Check::FieldAbsent(key("h"), name("f")), false),
        (Check::FieldAbsent(key("none"), name("f")), true),
        (Check::FieldAtMost(key("h"), name("f"), 5), true),
        (Check::FieldAtMost(key("h"), name("f"), 4), false),
        (Check::FieldAtMost(key("h"), name("none"), 0), true),
        (Check::FieldAtMost(key("none"), name("f"), -1), false),
        (Check::LengthIs(key("l"), 1), true),
        (Check::LengthIs(key("l"), 2), false),
        (Check::LengthIs(key("none"), 0), true),
    ];
    for (check, holds) in cases {
        let answer = store.commit(Txn::relaxed().check(check.clone())).await.unwrap();
        let expected = if holds { Committed::Applied } else { Committed::Refused(0) };
        assert_eq!(answer, expected, "{check:?}");
    }
}

async fn the_first_check_that_fails_is_named_and_nothing_is_done(store: &Store) {
    let refused = txn([set("v", "no"), push("l", "no")])
        .check(Check::Absent(key("v")))
        .check(Check::Exists(key("v")))
        .check(Check::Exists(key("w")));
    assert_eq!(store.commit(refused).await.unwrap(), Committed::Refused(1));
    assert_eq!(value(store, "v").await, None);
    assert!(items(store, "l").await.is_empty());
}

async fn a_wrong_type_changes_nothing(store: &Store) {
    done(store, [set("v", "1"), push("l", "a"), field("h", "f", "1"), member("i", "m", 1)]).await;
    let wrong = [
        push("v", "x"),
        push("h", "x"),
        Op::PushExisting(key("h"), bytes("x")),
        Op::ItemSet(key("v"), 0, bytes("x")),
        Op::Pop(key("i")),
        field("l", "f", "x"),
        Op::FieldAdd(key("l"), "f".into(), 1),
        Op::FieldDelete(key("v"), "f".into()),
        member("h", "m", 2),
        Op::MemberDelete(key("l"), "m".into()),
        Op::MembersBelow(key("v"), 9),
    ];
    for op in wrong {
        let said = store.commit(txn([set("first", "no"), op.clone(), set("last", "no")])).await;
        assert!(matches!(said, Err(StoreError::Corrupt(_))), "{op:?}: {said:?}");
        let said = store.apply(vec![op.clone()]).await;
        assert!(matches!(said, Err(StoreError::Corrupt(_))), "{op:?}: {said:?}");
    }
    assert_eq!((value(store, "first").await, value(store, "last").await), (None, None));
    assert_eq!(value(store, "v").await.as_deref(), Some("1"));
    assert_eq!(items(store, "l").await, ["a"]);
}

async fn a_field_that_is_no_number_changes_nothing(store: &Store) {
    for text in
        ["", "x", "1.5", "007", "+1", " 1", "-0", "1e3", "9223372036854775807", "1000000000000000"]
    {
        done(store, [field("h", "f", text)]).await;
        let add = Op::FieldAdd(key("h"), "f".into(), 1);
        let said = store.commit(txn([set("first", "no"), add.clone()])).await;
        assert!(matches!(said, Err(StoreError::Corrupt(_))), "{text:?}: {said:?}");
        let check = Txn::relaxed()
            .check(Check::FieldAtMost(key("h"), "f".into(), 5))
            .op(set("first", "no"));
        assert!(matches!(store.commit(check).await, Err(StoreError::Corrupt(_))), "{text:?}");
        let said =
            store.commit(txn([set("first", "no"), field("g", "f", text), add_to("g")])).await;
        assert!(matches!(said, Err(StoreError::Corrupt(_))), "{text:?}: {said:?}");
        assert_eq!(fields(store, "h").await, [("f".to_owned(), text.to_owned())]);
    }
    let said =
        store.commit(txn([set("first", "no"), Op::FieldAdd(key("n"), "f".into(), i64::MAX)])).await;
    assert!(matches!(said, Err(StoreError::Corrupt(_))), "{said:?}");
    assert_eq!(value(store, "first").await, None);
}

fn add_to(name: &str) -> Op {
    Op::FieldAdd(key(name), "f".into(), 1)
}

async fn checks_and_reads_of_another_type_are_corrupt(store: &Store) {
    done(store, [set("v", "1"), push("l", "a")]).await;
    for check in [
        Check::Equals(key("l"), bytes("a")),
        Check::StartsWith(key("l"), bytes("a")),
        Check::FieldEquals(key("v"), "f".into(), bytes("a")),
        Check::FieldAbsent(key("l"), "f".into()),
        Check::FieldAtMost(key("l"), "f".into(), 1),
        Check::LengthIs(key("v"), 1),
    ] {
        let said = store.commit(Txn::relaxed().check(check.clone()).op(set("w", "no"))).await;
        assert!(matches!(said, Err(StoreError::Corrupt(_))), "{check:?}: {said:?}");
    }
    for read in [
        Read::Value(key("l")),
        Read::Fields(key("v")),
        Read::Items { key: key("v"), start: 0, stop: -1 },
        Read::Length(key("v")),
        Read::Since { key: key("l"), score: 0, limit: 1 },
        Read::Newest { key: key("v"), before: Some((1, "m".into())), limit: 1 },
    ] {
        let said = store.read(vec![read.clone(), Read::Value(key("v"))]).await;
        assert!(matches!(said, Err(StoreError::Corrupt(_))), "{read:?}: {said:?}");
        let said = store.read(vec![read.clone()]).await;
        assert!(matches!(said, Err(StoreError::Corrupt(_))), "{read:?}: {said:?}");
    }
    assert_eq!(value(store, "w").await, None);
}

async fn operations_that_are_repeated_do_no_harm(store: &Store) {
    let first = txn([push("l", "message 1"), field("h", "lease", "7")])
        .check(Check::FieldAbsent(key("h"), "lease".into()));
    assert_eq!(store.commit(first.clone()).await.unwrap(), Committed::Applied);
    assert_eq!(store.commit(first).await.unwrap(), Committed::Refused(0));
    assert_eq!(items(store, "l").await, ["message 1"]);
}
