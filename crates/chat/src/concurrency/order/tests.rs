//! Who gets a free slot, whoever decides it.

use proptest::prelude::*;

use super::*;
use crate::domain::UserLoad;

type Users<'a> = &'a [(&'a str, usize, usize, i64)];

fn name(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// Users with what they run, what they have waiting, and their turn.
fn load(lane: Lane, users: Users<'_>) -> InstanceLoad {
    let load = |&(user, running, waiting, turn): &(&str, usize, usize, i64)| {
        ((lane, name(user)), UserLoad { running, waiting, turn })
    };
    users.iter().map(load).collect()
}

fn answers(users: Users<'_>) -> InstanceLoad {
    load(Lane::Answers, users)
}

fn embeddings(users: Users<'_>) -> InstanceLoad {
    load(Lane::Embeddings, users)
}

/// The users who start here, in order, and the positions of the others.
fn placed(placements: &[Placement]) -> (Vec<&str>, Vec<(&str, usize)>) {
    let starts = placements.iter().filter(|(.., position)| position.is_none());
    let waits = placements.iter();
    (
        starts.map(|(_, user, _)| user.as_str()).collect(),
        waits.filter_map(|(_, user, position)| Some((user.as_str(), (*position)?))).collect(),
    )
}

#[test]
fn a_free_slot_goes_to_the_user_who_has_least_running_on_all_instances() {
    let here = answers(&[("greedy", 1, 3, 1), ("modest", 0, 1, 9)]);
    let there = answers(&[("greedy", 1, 0, 2), ("other", 1, 1, 3)]);
    let placements = decide(&here, std::slice::from_ref(&there), 4);
    assert_eq!(placed(&placements).0, ["modest"]);
    let placements = decide(&there, &[here], 5);
    assert_eq!(placed(&placements), (vec!["other"], vec![]));
}

#[test]
fn one_user_with_many_waiting_does_not_delay_anothers_single_one() {
    let here = answers(&[("greedy", 1, 50, 5)]);
    let there = answers(&[("modest", 0, 1, 9)]);
    let others = [here.clone()];
    assert_eq!(placed(&decide(&there, &others, 1)).1, [("modest", 0)]);
    let placements = decide(&here, std::slice::from_ref(&there), 1);
    let positions: Vec<_> = (1..51).map(|position| ("greedy", position)).collect();
    assert_eq!(placed(&placements).1, positions);
    // The one that ran has ended: the turn of its user was just now.
    let here = answers(&[("greedy", 0, 50, 20)]);
    assert_eq!(placed(&decide(&there, &[here], 1)).0, ["modest"]);
}

#[test]
fn a_user_served_elsewhere_comes_after_one_who_was_not() {
    let here = answers(&[("both", 0, 5, 1), ("alone", 0, 5, 2)]);
    let there = answers(&[("both", 0, 5, 3)]);
    let placements = decide(&here, &[there], 3);
    assert_eq!(placed(&placements).0, ["alone", "both", "alone"]);
}

#[test]
fn nobody_starts_while_as_many_run_as_may_or_more() {
    let here = answers(&[("a", 0, 2, 1)]);
    let there = answers(&[("b", 3, 0, 1)]);
    for limit in 1..=3 {
        let placements = decide(&here, std::slice::from_ref(&there), limit);
        assert_eq!(placed(&placements), (vec![], vec![("a", 0), ("a", 1)]));
    }
    assert_eq!(placed(&decide(&here, &[there], 4)), (vec!["a"], vec![("a", 0)]));
}

#[test]
fn embeddings_wait_for_all_answers_and_leave_them_a_slot() {
    let here = embeddings(&[("a", 0, 5, 1)]);
    assert_eq!(placed(&decide(&here, &[], 3)).0, ["a", "a"]);
    assert_eq!(placed(&decide(&here, &[embeddings(&[("b", 1, 0, 1)])], 3)).0, ["a"]);
    assert_eq!(placed(&decide(&here, &[], 1)).0, ["a"]);
    let placements = decide(&here, &[answers(&[("b", 1, 1, 1)])], 3);
    assert_eq!(placed(&placements).0, ["a"]);
    assert_eq!(placed(&decide(&here, &[answers(&[("b", 1, 3, 1)])], 3)).0, [""; 0]);
}

fn loads() -> impl Strategy<Value = Vec<InstanceLoad>> {
    let key = (prop_oneof![Just(Lane::Answers), Just(Lane::Embeddings)], 0..5_u8)
        .prop_map(|(lane, user)| (lane, name(&user.to_string())));
    let user = (0..3_usize, 0..4_usize, 0..100_i64).prop_map(|(running, waiting, turn)| UserLoad {
        running,
        waiting,
        turn,
    });
    prop::collection::vec(prop::collection::btree_map(key, user, 0..8), 1..5)
}

proptest! {
    #[test]
    fn instances_that_decide_for_themselves_agree_and_fill_the_limit(loads in loads(), limit in 1..12_usize) {
        let all = || loads.iter().flatten();
        let running_of = |user: &UserId| -> usize {
            all().filter(|((_, of), _)| of == user).map(|(_, load)| load.running).sum()
        };
        let free = limit.saturating_sub(all().map(|(_, load)| load.running).sum());
        let mut started = Vec::new();
        for own in 0..loads.len() {
            let mut others = loads.clone();
            let load = others.remove(own);
            let placements = decide(&load, &others, limit);
            for ((lane, user), load) in &load {
                let of_user = |placement: &&Placement| (placement.0, &placement.1) == (*lane, user);
                prop_assert_eq!(placements.iter().filter(of_user).count(), load.waiting);
            }
            let starts = placements.into_iter().filter(|placement| placement.2.is_none());
            let starts: Vec<_> = starts.collect();
            prop_assert!(starts.len() <= free);
            started.extend(starts);
        }
        // A user may be next on two instances: both take him for theirs, and the store lets one of them pass.
        let waiting = || all().filter(|((lane, _), load)| *lane == Lane::Answers && load.waiting > 0);
        let count: usize = waiting().map(|(_, load)| load.waiting).sum();
        prop_assert!(started.len() >= free.min(count));
        let least = waiting().map(|((_, user), _)| running_of(user)).min();
        if let Some(least) = least.filter(|_| free > 0) {
            prop_assert!(started.iter().any(|(_, user, _)| running_of(user) == least));
        }
    }
}
