//! Expiry: absent means absent, whether or not anybody swept.

use std::time::Duration;

use common::store::{Check, Committed, Found, Op, Read, Store, Txn};

use crate::{
    bytes, done, field, items, key, member, members, on_every_backend, one, push, set, value,
    within,
};

on_every_backend!(
    an_expired_key_is_absent_for_reads_checks_and_operations,
    an_expiry_follows_the_stores_clock,
    writing_into_a_key_keeps_its_expiry_and_setting_it_does_not,
    an_expiry_can_be_moved_and_taken_away,
    a_time_to_live_of_nothing_or_of_ages_is_taken,
);

const SHORT: Duration = Duration::from_millis(60);

fn short(name: &str) -> Op {
    Op::Expire(key(name), Some(SHORT))
}

async fn gone(store: &Store, name: &str) {
    let absent = || async {
        let check = Txn::relaxed().check(Check::Absent(key(name)));
        store.commit(check).await.unwrap() == Committed::Applied
    };
    within(Duration::from_secs(2), "expired", absent).await;
}

async fn an_expired_key_is_absent_for_reads_checks_and_operations(store: &Store) {
    let fill = [set("v", "1"), push("l", "a"), field("h", "f", "1"), member("i", "m", 1)];
    done(store, fill.into_iter().chain(["v", "l", "h", "i"].map(short))).await;
    for name in ["v", "l", "h", "i"] {
        gone(store, name).await;
    }
    assert_eq!(value(store, "v").await, None);
    assert_eq!(one(store, Read::Length(key("l"))).await, Found::Count(0));
    let checks = Txn::durable()
        .check(Check::LengthIs(key("l"), 0))
        .check(Check::FieldAbsent(key("h"), "f".into()))
        .check(Check::FieldAtMost(key("h"), "f".into(), 0))
        .op(Op::PushExisting(key("l"), bytes("no")))
        .op(push("v", "another type now"))
        .op(member("i", "n", 2))
        .op(Op::FieldAdd(key("h"), "f".into(), 1));
    assert_eq!(store.commit(checks).await.unwrap(), Committed::Applied);
    assert!(items(store, "l").await.is_empty());
    assert_eq!(items(store, "v").await, ["another type now"]);
    assert_eq!(members(store, "i").await, [("n".to_owned(), 2)]);
    // The new ones do not inherit the old expiry.
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(items(store, "v").await, ["another type now"]);
    let applied = store.apply(vec![Op::Expire(key("l"), None)]).await.unwrap();
    assert_eq!(applied, [false]);
}

async fn an_expiry_follows_the_stores_clock(store: &Store) {
    let now = |snapshot: common::store::Snapshot| snapshot.now;
    let before = now(store.read(vec![Read::Value(key("v"))]).await.unwrap());
    done(
        store,
        [Op::Set { key: key("v"), value: bytes("x"), ttl: Some(Duration::from_millis(200)) }],
    )
    .await;
    loop {
        let mut read =
            store.read(vec![Read::Value(key("v")), Read::Length(key("none"))]).await.unwrap();
        if read.value(0).is_none() {
            assert!(read.now >= before + 200, "{} ms early", before + 200 - read.now);
            break;
        }
        assert!(read.now < before + 2000, "still there {} ms later", read.now - before);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn writing_into_a_key_keeps_its_expiry_and_setting_it_does_not(store: &Store) {
    done(store, [push("l", "a"), field("h", "f", "1"), member("i", "m", 1), set("v", "1")]).await;
    done(store, ["l", "h", "i", "v"].map(short)).await;
    let more = [
        push("l", "b"),
        field("h", "g", "1"),
        Op::FieldAdd(key("h"), "f".into(), 1),
        member("i", "n", 1),
    ];
    done(store, more.into_iter().chain([set("v", "2")])).await;
    for name in ["l", "h", "i"] {
        gone(store, name).await;
    }
    assert_eq!(value(store, "v").await.as_deref(), Some("2"));
}

async fn an_expiry_can_be_moved_and_taken_away(store: &Store) {
    done(store, [push("a", "x"), push("b", "x"), push("c", "x")]).await;
    done(store, ["a", "b", "c"].map(short)).await;
    done(store, [Op::Expire(key("a"), None), Op::Expire(key("b"), Some(Duration::from_secs(60)))])
        .await;
    gone(store, "c").await;
    assert_eq!(items(store, "a").await, ["x"]);
    assert_eq!(items(store, "b").await, ["x"]);
}

async fn a_time_to_live_of_nothing_or_of_ages_is_taken(store: &Store) {
    let with = |name: &str, ttl| Op::Set { key: key(name), value: bytes("x"), ttl: Some(ttl) };
    done(
        store,
        [with("zero", Duration::ZERO), with("ages", Duration::MAX), set("p", "x"), set("q", "x")],
    )
    .await;
    done(
        store,
        [Op::Expire(key("p"), Some(Duration::MAX)), Op::Expire(key("q"), Some(Duration::ZERO))],
    )
    .await;
    gone(store, "zero").await;
    gone(store, "q").await;
    assert_eq!(value(store, "ages").await.as_deref(), Some("x"));
    assert_eq!(value(store, "p").await.as_deref(), Some("x"));
}
