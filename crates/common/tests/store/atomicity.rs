//! Many at once: every transaction is whole, and its checks see no other writer in between.

use std::time::Duration;

use common::store::{Bucket, Check, Committed, Op, Quota, Read, Store, Txn};

use crate::{bytes, done, field, fields, items, key, on_every_backend, push, set, txn, value};

on_every_backend!(
    two_hundred_guarded_increments_all_count_once,
    additions_of_many_are_all_there,
    of_many_who_want_the_same_only_one_gets_it,
    a_reader_never_sees_half_a_transaction,
    relaxed_and_durable_writes_keep_their_order,
    what_another_family_says_decides_too,
    a_transaction_of_many_operations_is_done_in_their_order,
);

async fn together<F>(tasks: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut set = tokio::task::JoinSet::new();
    tasks.into_iter().for_each(|task| drop(set.spawn(task)));
    set.join_all().await
}

async fn two_hundred_guarded_increments_all_count_once(store: &Store) {
    done(store, [field("h", "n", "0")]).await;
    let increment = |store: Store| async move {
        loop {
            let held =
                store.read(vec![Read::Fields(key("h"))]).await.unwrap().fields(0)["n"].clone();
            let next = String::from_utf8(held.to_vec()).unwrap().parse::<u32>().unwrap() + 1;
            let raise = Txn::relaxed()
                .check(Check::FieldEquals(key("h"), "n".into(), held))
                .op(field("h", "n", &next.to_string()))
                .op(push("log", &next.to_string()));
            if store.commit(raise).await.unwrap() == Committed::Applied {
                return;
            }
        }
    };
    // Twenty at a time: each round of a crowd lets one through.
    for _ in 0..10 {
        together((0..20).map(|_| increment(store.clone()))).await;
    }
    assert_eq!(fields(store, "h").await, [("n".into(), "200".into())]);
    let expected: Vec<_> = (1..=200).map(|n| n.to_string()).collect();
    assert_eq!(items(store, "log").await, expected);
}

async fn additions_of_many_are_all_there(store: &Store) {
    let add = |store: Store, n: u32| async move {
        let txn = if n.is_multiple_of(2) { Txn::durable() } else { Txn::relaxed() };
        store
            .commit(txn.op(Op::FieldAdd(key("h"), "n".into(), 1)).op(push("l", "x")))
            .await
            .unwrap()
    };
    together((0..200).map(|n| add(store.clone(), n))).await;
    assert_eq!(fields(store, "h").await, [("n".into(), "200".into())]);
    assert_eq!(items(store, "l").await.len(), 200);
}

async fn of_many_who_want_the_same_only_one_gets_it(store: &Store) {
    let take = |store: Store, n: usize| async move {
        let txn = Txn::durable().check(Check::Absent(key("lease"))).op(Op::Set {
            key: key("lease"),
            value: bytes(&n.to_string()),
            ttl: None,
        });
        (n, store.commit(txn).await.unwrap())
    };
    let answers = together((0..100).map(|n| take(store.clone(), n))).await;
    let winners: Vec<_> =
        answers.iter().filter(|(_, answer)| *answer == Committed::Applied).collect();
    assert_eq!(winners.len(), 1);
    assert!(
        answers
            .iter()
            .all(|(_, answer)| matches!(answer, Committed::Applied | Committed::Refused(0)))
    );
    assert_eq!(value(store, "lease").await, Some(winners[0].0.to_string()));
}

async fn a_reader_never_sees_half_a_transaction(store: &Store) {
    let writer = store.clone();
    let writing = async move {
        for n in 0..200 {
            let text = n.to_string();
            done(&writer, [crate::set("a", &text), field("h", "f", &text), crate::set("z", &text)])
                .await;
        }
    };
    let reader = store.clone();
    let reading = async move {
        for _ in 0..300 {
            let reads = vec![Read::Value(key("z")), Read::Fields(key("h")), Read::Value(key("a"))];
            let mut read = reader.read(reads).await.unwrap();
            let (z, a) = (read.value(0), read.value(2));
            assert_eq!(z, a);
            assert_eq!(a, read.fields(1).remove("f"));
        }
    };
    tokio::join!(writing, reading);
}

async fn relaxed_and_durable_writes_keep_their_order(store: &Store) {
    for n in 0..60u64 {
        let txn = if n.is_multiple_of(3) { Txn::durable() } else { Txn::relaxed() };
        let txn = txn.check(Check::LengthIs(key("l"), n)).op(push("l", "x"));
        assert_eq!(store.commit(txn).await.unwrap(), Committed::Applied);
    }
}

/// Keys of another family are not declared to Redis as those are that the transaction may write to.
async fn what_another_family_says_decides_too(store: &Store) {
    let state = || "i:{alice}:state".to_owned();
    let revision = |number: &str| Check::FieldEquals(state(), "n".into(), bytes(number));
    done(store, [Op::FieldSet(state(), "n".into(), bytes("5"))]).await;
    for (checks, expected) in [
        (vec![revision("4"), Check::Absent(key("l"))], Committed::Refused(0)),
        (vec![Check::Absent(key("l")), revision("4")], Committed::Refused(1)),
        (vec![revision("5"), Check::Exists(key("l")), revision("4")], Committed::Refused(1)),
        (vec![revision("5"), Check::Absent(key("l")), revision("5")], Committed::Applied),
        (vec![Check::FieldAbsent(state(), "n".into())], Committed::Refused(0)),
    ] {
        let txn = Txn { checks, ..txn([push("l", "x")]) };
        assert_eq!(store.commit(txn.clone()).await.unwrap(), expected, "{txn:?}");
    }
    let bucket =
        Bucket { key: key("rate"), quota: Quota { burst: 9, period: Duration::from_secs(60) } };
    let txn = Txn { checks: vec![revision("4")], ..txn([push("l", "x")]) };
    let (admission, committed) = store.admit_and_commit(&bucket, txn).await.unwrap();
    assert!(admission.allowed);
    assert_eq!(committed, Some(Committed::Refused(0)));
    assert_eq!(items(store, "l").await, ["x"]);
}

/// More operations of each kind than a short transaction has, with others behind them.
async fn a_transaction_of_many_operations_is_done_in_their_order(store: &Store) {
    for round in 1..=3_i64 {
        let add = |name: String, by| Op::FieldAdd(key("h"), name, by);
        let mut ops = vec![push("first", "x")];
        ops.extend((0..40).map(|n| set(&format!("old-{n}"), "x")));
        ops.extend((0..50).map(|n| push("l", &n.to_string())));
        ops.extend((0..9).map(|n| add(format!("n-{n}"), 1_000_000_000_000 + n)));
        ops.extend([add("twice".into(), 1), add("twice".into(), 2), set("between", "x")]);
        ops.extend((0..30).map(|n| Op::Delete(key(&format!("old-{n}")))));
        ops.extend([add("n-0".into(), -5), field("h", "text", "behind")]);
        ops.extend((30..40).map(|n| Op::Delete(key(&format!("old-{n}")))));
        ops.extend([add("twice".into(), 4), push("l", "end")]);
        let bucket = Bucket {
            key: key("rate"),
            quota: Quota { burst: 10, period: Duration::from_secs(3600) },
        };
        let txn = txn(ops).check(Check::FieldAtMost(key("h"), "n-1".into(), i64::MAX));
        let committed = match round {
            2 => store.admit_and_commit(&bucket, txn).await.unwrap().1,
            _ => Some(store.commit(txn).await.unwrap()),
        };
        assert_eq!(committed, Some(Committed::Applied));
        for n in 0..40 {
            assert_eq!(value(store, &format!("old-{n}")).await, None);
        }
        let list = items(store, "l").await;
        assert_eq!(list.len() as i64, 51 * round);
        assert_eq!(list[list.len() - 2..], ["49", "end"]);
        let mut expected: Vec<(String, String)> = (1..9)
            .map(|n| (format!("n-{n}"), (round * (1_000_000_000_000 + n)).to_string()))
            .collect();
        expected.insert(0, ("n-0".into(), (round * (1_000_000_000_000 - 5)).to_string()));
        expected
            .extend([("text".into(), "behind".into()), ("twice".into(), (7 * round).to_string())]);
        assert_eq!(fields(store, "h").await, expected);
    }
}
