//! The promises of the scheduler: bounded, fair, and nothing kept of whoever leaves.

use futures_util::FutureExt;
use proptest::prelude::*;

use crate::{domain::UserLoad, llm::scheduler::*};

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn position(permit: &SchedulerPermit) -> Option<usize> {
    permit.changed(None).now_or_never().unwrap()
}

#[test]
fn what_does_not_fit_is_refused_at_once() {
    let scheduler = Scheduler::new("test", 1, 1);
    let running = scheduler.enqueue(&user("a"), Lane::Answers).unwrap();
    let waiting = scheduler.enqueue(&user("a"), Lane::Answers).unwrap();
    assert!(scheduler.enqueue(&user("b"), Lane::Answers).is_none());
    assert_eq!((position(&running), position(&waiting)), (None, Some(0)));
    drop(waiting);
    assert!(scheduler.enqueue(&user("b"), Lane::Answers).is_some());
}

#[test]
fn a_user_alone_can_take_half_of_the_queue_and_two_a_third_each() {
    let scheduler = Scheduler::new("test", 1, 9);
    let _running = scheduler.enqueue(&user("a"), Lane::Answers).unwrap();
    let fill = |name: &str| -> Vec<_> {
        std::iter::from_fn(|| scheduler.enqueue(&user(name), Lane::Answers)).collect()
    };
    let mut first = fill("a");
    assert_eq!(first.len(), 5);
    let second = fill("b");
    assert_eq!(second.len(), 2);
    assert_eq!((fill("c").len(), fill("a").len()), (1, 0));
    first.truncate(2);
    assert_eq!(fill("d").len(), 3);
}

#[test]
fn a_user_with_many_waiting_turns_delays_another_by_one() {
    let scheduler = Scheduler::new("test", 1, 200);
    let mut held: Vec<_> =
        (0..50).map(|_| scheduler.enqueue(&user("greedy"), Lane::Answers).unwrap()).collect();
    let modest = scheduler.enqueue(&user("modest"), Lane::Answers).unwrap();
    assert_eq!(position(&modest), Some(1));
    assert_eq!(position(&held[49]), Some(49));
    held.remove(0);
    assert_eq!((position(&held[0]), position(&modest)), (None, Some(0)));
    held.remove(0);
    assert_eq!(position(&modest), None);
    assert_eq!(position(&held[0]), Some(0));
}

#[test]
fn places_given_back_in_any_order_leave_nothing_behind() {
    for keep in 0..6 {
        let scheduler = Scheduler::new("test", 2, 10);
        let mut permits: Vec<_> = ["a", "b", "a", "c", "b", "a"]
            .map(|name| scheduler.enqueue(&user(name), Lane::Answers).unwrap())
            .into();
        let last = permits.remove(keep);
        drop(permits);
        assert_eq!(position(&last), None);
        drop(last);
        assert_eq!(scheduler.load(), (0, 0));
        let state = scheduler.state.lock();
        assert!(state.answers.is_empty() && state.embeddings.is_empty());
    }
}

#[test]
fn answers_go_before_embeddings_and_a_slot_stays_free_for_them() {
    let scheduler = Scheduler::new("test", 2, 10);
    let embed = |name: &str| scheduler.enqueue(&user(name), Lane::Embeddings).unwrap();
    let answer = |name: &str| scheduler.enqueue(&user(name), Lane::Answers).unwrap();
    let (first, second, third) = (embed("a"), embed("a"), embed("b"));
    assert_eq!((position(&first), position(&second), position(&third)), (None, Some(0), Some(1)));
    let (one, two) = (answer("c"), answer("c"));
    assert_eq!((position(&one), position(&two)), (None, Some(0)));
    assert_eq!((position(&second), position(&third)), (Some(1), Some(2)));
    drop(first);
    assert_eq!((position(&two), position(&second)), (None, Some(0)));
    drop(one);
    assert_eq!((position(&second), position(&third)), (None, Some(0)));
    drop((two, second, third));
    assert_eq!(scheduler.load(), (0, 0));
}

#[test]
fn who_takes_turns_comes_behind_all_others() {
    let scheduler = Scheduler::new("test", 1, 0);
    let mut only = scheduler.enqueue(&user("a"), Lane::Embeddings).unwrap();
    only.take_turns().now_or_never().unwrap();
    let scheduler = Scheduler::new("test", 1, 10);
    let mut import = scheduler.enqueue(&user("a"), Lane::Embeddings).unwrap();
    let other = scheduler.enqueue(&user("b"), Lane::Embeddings).unwrap();
    let answer = scheduler.enqueue(&user("c"), Lane::Answers).unwrap();
    assert!(import.take_turns().now_or_never().is_none());
    assert_eq!((position(&answer), position(&other), position(&import)), (None, Some(0), Some(1)));
    drop(answer);
    assert_eq!((position(&other), position(&import)), (None, Some(0)));
    drop(other);
    assert_eq!((position(&import), scheduler.load()), (None, (1, 0)));
    drop(import);
    assert_eq!(scheduler.load(), (0, 0));
}

#[tokio::test]
async fn whoever_waits_hears_of_every_step_forward_and_of_the_turn() {
    let scheduler = Scheduler::new("test", 1, 10);
    let (first, second) = (
        scheduler.enqueue(&user("a"), Lane::Answers).unwrap(),
        scheduler.enqueue(&user("b"), Lane::Answers).unwrap(),
    );
    let third = scheduler.enqueue(&user("c"), Lane::Answers).unwrap();
    assert_eq!(third.changed(None).await, Some(1));
    assert!(third.changed(Some(1)).now_or_never().is_none());
    drop(first);
    assert_eq!(third.changed(Some(1)).await, Some(0));
    drop(second);
    assert_eq!(third.changed(Some(0)).await, None);
}

fn placement(name: &str, position: Option<usize>) -> Placement {
    (Lane::Answers, user(name), position)
}

#[test]
fn shared_slots_are_given_from_outside_alone() {
    let scheduler = Scheduler::new("test", 2, 2);
    let before = scheduler.enqueue(&user("a"), Lane::Answers).unwrap();
    scheduler.share(true);
    let join = |name: &str| scheduler.enqueue(&user(name), Lane::Answers);
    // One slot of its own is not in use: as many more may wait as could start without sharing.
    let (first, second, third) = (join("a").unwrap(), join("b").unwrap(), join("c").unwrap());
    assert!(join("d").is_none());
    let [first_shown, second_shown] = [&first, &second].map(|one| one.changed(None).now_or_never());
    assert_eq!((first_shown, second_shown), (None, None), "nothing is known of them yet");
    let load = scheduler.load_by_user();
    let of_a = load[&(Lane::Answers, user("a"))];
    assert_eq!((load.len(), of_a), (3, UserLoad { running: 1, waiting: 1, turn: 0 }));
    drop(third);
    drop(before);
    assert_eq!(scheduler.load(), (0, 2));
    // The one that left is passed over.
    let left = [placement("c", None), placement("b", Some(0)), placement("a", Some(7))];
    scheduler.place(&left);
    assert_eq!((position(&second), position(&first)), (Some(0), Some(7)));
    scheduler.place(&[placement("a", None), placement("b", Some(0))]);
    assert_eq!((position(&first), position(&second)), (None, Some(0)));
    assert_eq!(first.changed(Some(7)).now_or_never(), Some(Some(0)), "what is shown ends at 0");
    assert_eq!(scheduler.load(), (1, 1));
    scheduler.share(false);
    assert_eq!((position(&second), scheduler.load()), (None, (2, 0)));
    drop((first, second));
    assert!(scheduler.load_by_user().is_empty());
}

#[tokio::test]
async fn whoever_gives_shared_slots_hears_of_every_change() {
    let scheduler = Scheduler::new("test", 1, 2);
    scheduler.share(true);
    scheduler.changed().await;
    assert!(scheduler.changed().now_or_never().is_none());
    let mut permit = scheduler.enqueue(&user("a"), Lane::Answers).unwrap();
    scheduler.changed().await;
    scheduler.place(&[placement("a", None)]);
    assert!(permit.take_turns().now_or_never().is_none());
    scheduler.changed().await;
    assert_eq!(scheduler.load(), (0, 1));
    drop(permit);
    scheduler.changed().await;
    assert_eq!(scheduler.load(), (0, 0));
}

#[test]
fn a_panic_gives_the_place_back() {
    let scheduler = Scheduler::new("test", 1, 1);
    let permit = scheduler.enqueue(&user("a"), Lane::Answers).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _held = permit;
        panic!("on purpose");
    }));
    assert!(caught.is_err());
    assert_eq!(scheduler.load(), (0, 0));
}

/// What happens to the scheduler: somebody comes, or the permit of that index is given back.
#[derive(Clone, Debug)]
enum Step {
    Enter(u8),
    Leave(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![3 => (0..4_u8).prop_map(Step::Enter), 2 => any::<prop::sample::Index>().prop_map(Step::Leave)]
}

proptest! {
    #[test]
    fn whatever_comes_and_goes_the_bounds_hold_and_no_slot_idles(
        running in 1..4_usize,
        waiting in 0..8_usize,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let scheduler = Scheduler::new("test", running, waiting);
        let mut permits: Vec<(u8, SchedulerPermit)> = Vec::new();
        for step in steps {
            let load = scheduler.load();
            match step {
                Step::Enter(who) => match scheduler.enqueue(&user(&who.to_string()), Lane::Answers) {
                    Some(permit) => permits.push((who, permit)),
                    None => {
                        let own = permits.iter().filter(|(name, permit)| *name == who && position(permit).is_some());
                        prop_assert_eq!(load.0, running);
                        prop_assert!(own.count() >= waiting - load.1);
                    }
                },
                Step::Leave(which) if !permits.is_empty() => drop(permits.remove(which.index(permits.len()))),
                Step::Leave(_) => {}
            }
            let mut positions: Vec<_> = permits.iter().filter_map(|(_, permit)| position(permit)).collect();
            positions.sort_unstable();
            let (runs, waits) = scheduler.load();
            prop_assert_eq!(&positions, &(0..waits).collect::<Vec<_>>());
            prop_assert_eq!(runs + waits, permits.len());
            prop_assert_eq!(runs, permits.len().min(running));
        }
        drop(permits);
        prop_assert_eq!(scheduler.load(), (0, 0));
    }

    #[test]
    fn positions_tell_the_order_in_which_turns_come_and_no_user_passes_another_twice(
        who in prop::collection::vec(0..4_u8, 2..20),
    ) {
        let scheduler = Scheduler::new("test", 1, 100);
        let mut current = scheduler.enqueue(&user("first"), Lane::Answers).unwrap();
        let mut waiting: Vec<_> = who.iter().map(|who| (*who, scheduler.enqueue(&user(&who.to_string()), Lane::Answers).unwrap())).collect();
        let mut told: Vec<_> = waiting.iter().map(|(who, permit)| (position(permit).unwrap(), *who)).collect();
        told.sort_unstable();
        let mut served = Vec::new();
        while !waiting.is_empty() {
            drop(current);
            let turn = waiting.iter().position(|(_, permit)| position(permit).is_none()).unwrap();
            let (who, permit) = waiting.remove(turn);
            served.push(who);
            current = permit;
        }
        prop_assert_eq!(&served, &told.iter().map(|(_, who)| *who).collect::<Vec<_>>());
        for one in 0..4 {
            // While somebody still waits, no other user is served more than once between two of their turns.
            let last = served.iter().rposition(|who| *who == one).map_or(0, |last| last + 1);
            let gaps = served[..last].split(|who| *who == one);
            for other in (0..4).filter(|other| *other != one) {
                prop_assert!(gaps.clone().all(|gap| gap.iter().filter(|who| **who == other).count() <= 1));
            }
        }
    }
}
