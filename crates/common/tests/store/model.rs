//! Whatever is done to them, Redis and the embedded store answer alike.

use common::store::{Bytes, Check, Op, Read, Store, StoreError, Txn};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::{in_memory, key, on_redis};

fn a_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["p", "q", "r"]).prop_map(key)
}

fn a_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "é"]).prop_map(str::to_owned)
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (-3i64..20).prop_map(|n| Bytes::from(n.to_string())),
        prop::sample::select(vec!["", "x", "007"]).prop_map(Bytes::from),
    ]
}

fn an_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (a_key(), some_bytes()).prop_map(|(key, value)| Op::Set { key, value, ttl: None }),
        a_key().prop_map(Op::Delete),
        a_key().prop_map(|key| Op::Expire(key, None)),
        (a_key(), a_name(), some_bytes())
            .prop_map(|(key, name, value)| Op::FieldSet(key, name, value)),
        (a_key(), a_name()).prop_map(|(key, name)| Op::FieldDelete(key, name)),
        (a_key(), a_name(), -5i64..5).prop_map(|(key, name, by)| Op::FieldAdd(key, name, by)),
        (a_key(), some_bytes()).prop_map(|(key, item)| Op::Push(key, item)),
        (a_key(), some_bytes()).prop_map(|(key, item)| Op::PushExisting(key, item)),
        (a_key(), -3i64..3, some_bytes()).prop_map(|(key, at, item)| Op::ItemSet(key, at, item)),
        a_key().prop_map(Op::Pop),
        (a_key(), a_name(), -2i64..3)
            .prop_map(|(key, name, score)| Op::MemberSet(key, name, score)),
        (a_key(), a_name()).prop_map(|(key, name)| Op::MemberDelete(key, name)),
        (a_key(), -2i64..3).prop_map(|(key, score)| Op::MembersBelow(key, score)),
    ]
}

fn a_check() -> impl Strategy<Value = Check> {
    prop_oneof![
        a_key().prop_map(Check::Absent),
        a_key().prop_map(Check::Exists),
        (a_key(), some_bytes()).prop_map(|(key, value)| Check::Equals(key, value)),
        (a_key(), some_bytes().prop_filter("not empty", |start| !start.is_empty()))
            .prop_map(|(key, start)| Check::StartsWith(key, start)),
        (a_key(), a_name(), some_bytes())
            .prop_map(|(key, name, value)| Check::FieldEquals(key, name, value)),
        (a_key(), a_name()).prop_map(|(key, name)| Check::FieldAbsent(key, name)),
        (a_key(), a_name(), -3i64..9)
            .prop_map(|(key, name, most)| Check::FieldAtMost(key, name, most)),
        (a_key(), 0u64..4).prop_map(|(key, length)| Check::LengthIs(key, length)),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Txn),
    Apply(Vec<Op>),
}

fn a_step() -> impl Strategy<Value = Step> {
    let txn = (
        prop::collection::vec(a_check(), 0..2),
        prop::collection::vec(an_op(), 0..5),
        any::<bool>(),
    );
    prop_oneof![
        4 => txn.prop_map(|(checks, ops, durable)| Step::Commit(Txn { checks, ops, durable })),
        1 => prop::collection::vec(an_op(), 1..3).prop_map(Step::Apply),
    ]
}

/// What a step answered; why a value is corrupt is each backend's own words.
fn said<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Ok(answer) => format!("{answer:?}"),
        Err(StoreError::Corrupt(_)) => "corrupt".into(),
        Err(error) => panic!("{error}"),
    }
}

async fn take(store: &Store, step: &Step) -> String {
    match step {
        Step::Commit(txn) => said(store.commit(txn.clone()).await),
        Step::Apply(ops) => said(store.apply(ops.clone()).await),
    }
}

/// Everything that can be read of a key, each read alone, since all but one are of another type.
async fn look(store: &Store, key: &str) -> Vec<String> {
    let key = || key.to_owned();
    let reads = [
        Read::Value(key()),
        Read::Fields(key()),
        Read::Field(key(), "a"),
        Read::Items { key: key(), start: -3, stop: 1 },
        Read::Items { key: key(), start: 0, stop: -1 },
        Read::Length(key()),
        Read::Newest { key: key(), before: None, limit: 2 },
        Read::Newest { key: key(), before: Some((1, "b".into())), limit: 5 },
        Read::Since { key: key(), score: 0, limit: 2 },
    ];
    let mut answers = Vec::new();
    for read in reads {
        let answer =
            store.read(vec![read]).await.map(|snapshot| match snapshot.found.into_iter().next() {
                Some(common::store::Found::Fields(fields)) => {
                    format!(
                        "{:?}",
                        fields.into_iter().collect::<std::collections::BTreeMap<_, _>>()
                    )
                }
                found => format!("{found:?}"),
            });
        answers.push(said(answer));
    }
    answers
}

#[test]
fn redis_and_the_embedded_store_answer_alike() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (redis, memory) = runtime.block_on(async { (on_redis(), in_memory()) });
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) };
    let steps = prop::collection::vec(a_step(), 1..25);
    let same = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            let clean: Vec<_> = ["p", "q", "r"].map(|name| Op::Delete(key(name))).into();
            for opened in [&redis, &memory] {
                opened.store.apply(clean.clone()).await.unwrap();
            }
            for (at, step) in steps.iter().enumerate() {
                let (one, other) =
                    (take(&redis.store, step).await, take(&memory.store, step).await);
                prop_assert_eq!(one, other, "redis and memory differ at step {}: {:?}", at, step);
                for name in ["p", "q", "r"] {
                    let (one, other) = (
                        look(&redis.store, &key(name)).await,
                        look(&memory.store, &key(name)).await,
                    );
                    prop_assert_eq!(
                        one,
                        other,
                        "redis and memory differ after step {}: {:?}",
                        at,
                        step
                    );
                }
            }
            Ok(())
        })
    });
    same.unwrap();
    let _context = runtime.enter();
    drop((redis, memory));
}
