//! Rate limits: exactly as many as the bucket holds, and numbers that are true.

use std::time::Duration;

use common::store::{Bucket, Check, Committed, Quota, Store};

use crate::{done, items, key, on_every_backend, push, set, txn, value};

on_every_backend!(
    of_a_thousand_at_once_exactly_the_burst_is_admitted,
    the_numbers_of_an_answer_are_true,
    a_refused_one_takes_nothing_and_is_let_in_when_it_was_told,
    what_is_given_back_can_be_used_again,
    a_cost_is_taken_whole_or_not_at_all,
    callers_do_not_share_a_bucket,
    a_smaller_quota_locks_nobody_out_for_longer_than_its_period,
    a_clock_that_was_set_back_blocks_nobody_for_longer_than_a_period,
    what_is_counted_with_a_transaction_is_counted_as_by_itself,
    whoever_may_not_pass_changes_nothing,
    what_is_refused_by_a_check_is_counted_all_the_same,
);

const HOUR: Duration = Duration::from_secs(3600);

fn quota(burst: u32, period: Duration) -> Quota {
    Quota { burst, period }
}

/// True if `told` is `expected`, or less by the time that a test takes.
fn about(told: Duration, expected: Duration) -> bool {
    told <= expected && told + Duration::from_secs(10) >= expected
}

async fn of_a_thousand_at_once_exactly_the_burst_is_admitted(store: &Store) {
    for burst in [1, 7, 60, 333] {
        let key = format!("c:{{alice}}:0:rate:{burst}");
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let (store, key) = (store.clone(), key.clone());
            set.spawn(async move { store.admit(&key, quota(burst, HOUR * 24), 1).await.unwrap() });
        }
        let answers = set.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.allowed).count(), burst as usize);
        let mut left: Vec<_> =
            answers.iter().filter(|answer| answer.allowed).map(|answer| answer.remaining).collect();
        left.sort_unstable();
        assert_eq!(left, (0..burst).collect::<Vec<_>>(), "each of them another place");
    }
}

async fn the_numbers_of_an_answer_are_true(store: &Store) {
    let (key, quota) = ("c:{alice}:0:rate", quota(60, HOUR));
    for taken in 1..=60 {
        let answer = store.admit(key, quota, 1).await.unwrap();
        assert!(answer.allowed);
        assert_eq!(answer.remaining, 60 - taken);
        assert!(about(answer.reset_after, Duration::from_secs(60) * taken), "{answer:?}");
        if taken < 60 {
            assert_eq!(answer.retry_after, Duration::ZERO);
        } else {
            assert!(about(answer.retry_after, Duration::from_secs(60)), "{answer:?}");
        }
    }
    let refused = store.admit(key, quota, 1).await.unwrap();
    assert!(!refused.allowed);
    assert_eq!(refused.remaining, 0);
    assert!(about(refused.retry_after, Duration::from_secs(60)), "{refused:?}");
    assert!(about(refused.reset_after, HOUR), "{refused:?}");
    let look = store.admit("c:{alice}:0:untouched", quota, 0).await.unwrap();
    assert_eq!((look.allowed, look.remaining, look.reset_after), (true, 60, Duration::ZERO));
}

async fn a_refused_one_takes_nothing_and_is_let_in_when_it_was_told(store: &Store) {
    let (key, quota) = ("c:{alice}:0:rate", quota(2, Duration::from_millis(1000)));
    let mut refused = store.admit(key, quota, 1).await.unwrap();
    for _ in 0..50 {
        let answer = store.admit(key, quota, 1).await.unwrap();
        if !answer.allowed {
            refused = answer;
        }
    }
    assert!(!refused.allowed);
    assert!(refused.retry_after <= Duration::from_millis(500), "{refused:?}");
    tokio::time::sleep(refused.retry_after).await;
    assert!(store.admit(key, quota, 1).await.unwrap().allowed);
}

async fn what_is_given_back_can_be_used_again(store: &Store) {
    let (key, quota) = ("c:{alice}:0:rate", quota(3, HOUR));
    for _ in 0..3 {
        assert!(store.admit(key, quota, 1).await.unwrap().allowed);
    }
    assert!(!store.admit(key, quota, 1).await.unwrap().allowed);
    store.refund(key, quota, 1).await.unwrap();
    assert!(store.admit(key, quota, 1).await.unwrap().allowed);
    assert!(!store.admit(key, quota, 1).await.unwrap().allowed);
    for _ in 0..10 {
        store.refund(key, quota, 1).await.unwrap();
    }
    let answer = store.admit(key, quota, 1).await.unwrap();
    assert_eq!((answer.allowed, answer.remaining), (true, 2), "never fuller than full");
}

async fn a_cost_is_taken_whole_or_not_at_all(store: &Store) {
    let (key, quota) = ("c:{alice}:0:rate", quota(10, HOUR));
    assert_eq!(store.admit(key, quota, 7).await.unwrap().remaining, 3);
    let refused = store.admit(key, quota, 4).await.unwrap();
    assert_eq!((refused.allowed, refused.remaining), (false, 3));
    assert!(about(refused.retry_after, HOUR / 10), "one more is missing: {refused:?}");
    assert!(store.admit(key, quota, 3).await.unwrap().allowed);
    let whole = store.admit("c:{alice}:0:other", quota, 4_000_000_000).await.unwrap();
    assert_eq!(
        (whole.allowed, whole.remaining),
        (true, 0),
        "more than the bucket counts as the bucket"
    );
}

async fn callers_do_not_share_a_bucket(store: &Store) {
    let quota = quota(1, HOUR);
    for name in ["alice", "bob", "carol"] {
        assert!(store.admit(&format!("c:{{{name}}}:0:rate"), quota, 1).await.unwrap().allowed);
    }
}

async fn a_smaller_quota_locks_nobody_out_for_longer_than_its_period(store: &Store) {
    let key = "c:{alice}:0:rate";
    store.admit(key, quota(1000, HOUR * 24 * 365), 1000).await.unwrap();
    let answer = store.admit(key, quota(5, HOUR), 1).await.unwrap();
    assert!(!answer.allowed);
    assert!(answer.reset_after <= HOUR, "{answer:?}");
}

async fn a_clock_that_was_set_back_blocks_nobody_for_longer_than_a_period(store: &Store) {
    let (key, period) = ("c:{alice}:0:rate", Duration::from_secs(1));
    // What the bucket holds after the clock has gone back by an hour. Redis keeps it in the key, the embedded store in memory.
    store.admit(key, quota(1, HOUR), 1).await.unwrap();
    let now = store.read(vec![]).await.unwrap().now;
    let ahead = (now * 1000 + 3_600_000_000).to_string();
    done(store, [set("rate", &ahead)]).await;
    let refused = store.admit(key, quota(2, period), 1).await.unwrap();
    assert!(!refused.allowed && refused.retry_after <= period, "{refused:?}");
    tokio::time::sleep(refused.retry_after).await;
    let answer = store.admit(key, quota(2, period), 1).await.unwrap();
    assert!(answer.allowed, "{answer:?}");
}

fn bucket(key: &str, quota: Quota) -> Bucket {
    Bucket { key: key.to_owned(), quota }
}

async fn what_is_counted_with_a_transaction_is_counted_as_by_itself(store: &Store) {
    let (key, quota) = ("c:{alice}:0:rate", quota(60, HOUR));
    let bucket = bucket(key, quota);
    for n in 0..20 {
        let item = txn([push("l", &n.to_string()), set("v", "x")]);
        let (together, committed) = store.admit_and_commit(&bucket, item).await.unwrap();
        assert_eq!(committed, Some(Committed::Applied));
        let alone = store.admit(key, quota, 1).await.unwrap();
        assert!(together.allowed && alone.allowed);
        assert_eq!((together.remaining, alone.remaining), (59 - 2 * n, 58 - 2 * n));
        assert!(about(together.reset_after, quota.period / 60 * (2 * n + 1)));
        assert_eq!(together.retry_after, Duration::ZERO);
    }
    assert_eq!(items(store, "l").await.len(), 20);
}

async fn whoever_may_not_pass_changes_nothing(store: &Store) {
    let bucket = bucket("c:{alice}:0:rate", quota(1, HOUR));
    let change = || txn([set("v", "new"), push("l", "x")]);
    let (first, committed) = store.admit_and_commit(&bucket, change()).await.unwrap();
    assert!(first.allowed && committed == Some(Committed::Applied));
    done(store, [set("v", "old")]).await;
    let (refused, committed) = store.admit_and_commit(&bucket, change()).await.unwrap();
    assert!(!refused.allowed);
    assert_eq!(committed, None);
    assert!(about(refused.retry_after, HOUR));
    assert_eq!(value(store, "v").await, Some("old".to_owned()));
    assert_eq!(items(store, "l").await.len(), 1);
}

async fn what_is_refused_by_a_check_is_counted_all_the_same(store: &Store) {
    let bucket = bucket("c:{alice}:0:rate", quota(5, HOUR));
    let refused =
        txn([set("v", "new")]).check(Check::Absent(key("w"))).check(Check::Exists(key("w")));
    let (admission, committed) = store.admit_and_commit(&bucket, refused).await.unwrap();
    assert_eq!(committed, Some(Committed::Refused(1)));
    assert_eq!(admission.remaining, 4);
    assert_eq!(value(store, "v").await, None);
    let left = store.admit(&bucket.key, bucket.quota, 0).await.unwrap();
    assert_eq!(left.remaining, 4);
}
