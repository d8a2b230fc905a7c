//! Indexes: their order, and pages that neither skip nor repeat.

use common::store::{Found, Op, Read, Store};

use crate::{done, key, member, members, on_every_backend, one};

on_every_backend!(
    members_come_by_falling_score_then_falling_name,
    pages_neither_skip_nor_repeat_among_equal_scores,
    a_page_goes_on_after_a_member_that_is_gone,
    members_since_a_score_come_by_rising_score,
    members_below_a_score_are_taken_out,
    scores_of_any_sign_and_size_are_exact,
);

fn names(members: &[(String, i64)]) -> Vec<&str> {
    members.iter().map(|(member, _)| member.as_str()).collect()
}

async fn page(store: &Store, before: Option<(i64, String)>, limit: usize) -> Vec<(String, i64)> {
    match one(store, Read::Newest { key: key("i"), before, limit }).await {
        Found::Members(members) => members,
        found => panic!("not an index: {found:?}"),
    }
}

async fn members_come_by_falling_score_then_falling_name(store: &Store) {
    // Names are compared by their bytes: 'Z' is before 'a', and both before 'é'.
    done(
        store,
        [("a", 1), ("c", 2), ("b", 2), ("Z", 2), ("é", 2), ("d", 3)]
            .map(|(m, s)| member("i", m, s)),
    )
    .await;
    assert_eq!(names(&members(store, "i").await), ["d", "é", "c", "b", "Z", "a"]);
    done(store, [member("i", "a", 9)]).await;
    assert_eq!(names(&members(store, "i").await), ["a", "d", "é", "c", "b", "Z"]);
    assert_eq!(names(&page(store, None, 2).await), ["a", "d"]);
    assert!(page(store, None, 0).await.is_empty());
}

async fn pages_neither_skip_nor_repeat_among_equal_scores(store: &Store) {
    done(store, (0..57).map(|n| member("i", &format!("s{n:02}"), i64::from(n) / 20))).await;
    let whole = members(store, "i").await;
    for size in [1, 7, 20, 56, 57] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let next = page(store, before.clone(), size).await;
            let Some((last, score)) = next.last().cloned() else {
                break;
            };
            assert!(next.len() <= size);
            before = Some((score, last));
            seen.extend(next);
        }
        assert_eq!(seen, whole, "in pages of {size}");
    }
}

async fn a_page_goes_on_after_a_member_that_is_gone(store: &Store) {
    done(store, ["a", "b", "c", "d"].map(|m| member("i", m, 5))).await;
    done(store, [Op::MemberDelete(key("i"), "c".into())]).await;
    assert_eq!(names(&page(store, Some((5, "c".into())), 9).await), ["b", "a"]);
    done(store, [member("i", "b", 6)]).await;
    assert_eq!(names(&page(store, Some((5, "b".into())), 9).await), ["a"]);
    assert_eq!(names(&page(store, Some((5, String::new())), 9).await), Vec::<&str>::new());
}

async fn members_since_a_score_come_by_rising_score(store: &Store) {
    done(
        store,
        [("a", 1), ("b", 2), ("c", 3), ("d", 3), ("e", -4)].map(|(m, s)| member("i", m, s)),
    )
    .await;
    let since = |score, limit| Read::Since { key: key("i"), score, limit };
    let found = |members: &[(&str, i64)]| {
        Found::Members(members.iter().map(|(m, s)| ((*m).to_owned(), *s)).collect())
    };
    assert_eq!(one(store, since(2, 9)).await, found(&[("b", 2), ("c", 3), ("d", 3)]));
    assert_eq!(one(store, since(-9, 2)).await, found(&[("e", -4), ("a", 1)]));
    assert_eq!(one(store, since(4, 9)).await, found(&[]));
}

async fn members_below_a_score_are_taken_out(store: &Store) {
    done(store, [("a", 1), ("b", 2), ("c", 3)].map(|(m, s)| member("i", m, s))).await;
    done(store, [Op::MembersBelow(key("i"), 2), Op::MembersBelow(key("none"), 2)]).await;
    assert_eq!(names(&members(store, "i").await), ["c", "b"]);
    done(store, [Op::MembersBelow(key("i"), 100)]).await;
    assert!(members(store, "i").await.is_empty());
    done(store, [crate::push("i", "a list now")]).await;
}

async fn scores_of_any_sign_and_size_are_exact(store: &Store) {
    let scores = [-(1i64 << 53), -1, 0, 1, 1_795_000_000_123, (1 << 53) - 1, 1 << 53];
    done(store, scores.iter().map(|score| member("i", &score.to_string(), *score))).await;
    let expected: Vec<_> = scores.iter().rev().map(|score| (score.to_string(), *score)).collect();
    assert_eq!(members(store, "i").await, expected);
}
