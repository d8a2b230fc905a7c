use common::{
    config::StoreUrl,
    identity::{Credential, UserId, state},
    shutdown::Shutdown,
    store::Store,
};

use super::*;
use crate::store::{ChatStore, usage::DayUsage};

const DAY: &str = "20260102";

fn chat_store(shutdown: &Shutdown) -> (ChatStore, Owner) {
    let store = Store::open(&StoreUrl::Memory, shutdown).unwrap();
    let owner = Owner { user: UserId::parse("alice").unwrap(), generation: 0 };
    (ChatStore::new(store, None, Duration::from_secs(10)), owner)
}

fn reservation(id: &str) -> Reservation {
    Reservation { id: id.to_owned(), day: DAY.to_owned(), tokens: 60, prompt: 20 }
}

/// Whether it is held; the owner's account was never written to.
async fn reserve(
    chat: &ChatStore,
    owner: &Owner,
    reservation: &mut Reservation,
    quota: Option<u64>,
) -> bool {
    let caller = Identity::new(owner.clone(), Credential::Open, 0);
    let reserved = chat.reservations().reserve(&caller, reservation, quota).await.unwrap();
    assert_ne!(reserved, Reserved::AccountChanged);
    reserved == Reserved::Yes
}

/// Another process on the same store.
fn other(chat: &ChatStore) -> ChatStore {
    ChatStore::new(chat.context.store.clone(), None, Duration::from_secs(10))
}

const DEAD: DayUsage = DayUsage { prompt: 20, completion: 0, requests: 1, held: 20 };

const SPENT: Usage = Usage { prompt_tokens: 3, completion_tokens: 4 };

#[tokio::test]
async fn what_is_repeated_is_counted_once() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let one = reservation("one");
    for _ in 0..2 {
        assert!(reserve(&chat, &owner, &mut one.clone(), Some(100)).await);
    }
    let other = reservation("other");
    assert!(!reserve(&chat, &owner, &mut other.clone(), Some(100)).await, "60 of 100 are held");
    for _ in 0..2 {
        chat.reservations().settle(&owner, &one, SPENT).await.unwrap();
    }
    let counted = DayUsage { prompt: 3, completion: 4, requests: 1, held: 7 };
    assert_eq!(chat.reservations().usage(&owner, DAY).await.unwrap(), counted);
}

#[tokio::test]
async fn what_is_withdrawn_never_counts_however_late_it_comes() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    for (id, came) in [("before", true), ("after", false)] {
        let it = reservation(id);
        if came {
            reserve(&chat, &owner, &mut it.clone(), None).await;
        }
        for _ in 0..2 {
            chat.reservations().withdraw(&owner, &it).await.unwrap();
        }
        reserve(&chat, &owner, &mut it.clone(), None).await;
        let counted = chat.reservations().usage(&owner, DAY).await.unwrap();
        assert_eq!(counted, DayUsage::default(), "{id}");
    }
}

#[tokio::test]
async fn nothing_is_settled_for_an_account_that_was_erased() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let it = reservation("it");
    reserve(&chat, &owner, &mut it.clone(), None).await;
    let erase = Op::Delete(Keys::of(&owner).usage(DAY));
    chat.context.store.apply(vec![erase]).await.unwrap();
    chat.reservations().settle(&owner, &it, SPENT).await.unwrap();
    let counted = chat.reservations().usage(&owner, DAY).await.unwrap();
    assert_eq!(counted, DayUsage::default());
}

#[tokio::test]
async fn what_a_dead_process_set_aside_is_settled_by_whoever_looks() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let it = reservation("it");
    reserve(&chat, &owner, &mut it.clone(), None).await;
    let counted = chat.reservations().usage(&owner, DAY).await.unwrap();
    assert_eq!(counted.held, 60, "its own process is not dead");
    // Nothing but this process can have the store open: whoever was there before is dead.
    let other = other(&chat);
    for _ in 0..2 {
        assert_eq!(other.reservations().usage(&owner, DAY).await.unwrap(), DEAD);
    }
    // Whoever was taken for dead is not counted twice.
    chat.reservations().settle(&owner, &it, SPENT).await.unwrap();
    assert_eq!(other.reservations().usage(&owner, DAY).await.unwrap(), DEAD);
}

#[tokio::test]
async fn what_a_dead_process_set_aside_is_in_nobodys_way() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let (it, next) = (reservation("it"), reservation("next"));
    reserve(&chat, &owner, &mut it.clone(), None).await;
    let fits = reserve(&chat, &owner, &mut next.clone(), Some(100)).await;
    assert!(!fits, "60 of 100 are held, and it lives");
    assert!(reserve(&other(&chat), &owner, &mut next.clone(), Some(100)).await);
}

#[tokio::test]
async fn a_lease_that_is_renewed_does_not_lapse() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let it = reservation("it");
    reserve(&chat, &owner, &mut it.clone(), None).await;
    let lapse = Op::Delete(Keys::of(&owner).lease("it"));
    chat.context.store.apply(vec![lapse.clone()]).await.unwrap();
    chat.reservations().renew(&owner, &it).await.unwrap();
    assert_eq!(chat.reservations().usage(&owner, DAY).await.unwrap().held, 60);
    chat.context.store.apply(vec![lapse]).await.unwrap();
    assert_eq!(chat.reservations().usage(&owner, DAY).await.unwrap(), DEAD);
    chat.reservations().renew(&owner, &it).await.unwrap();
    assert_eq!(chat.reservations().usage(&owner, DAY).await.unwrap(), DEAD);
}

#[tokio::test]
async fn an_answer_is_limited_to_what_is_left_unless_that_is_too_little() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let with = |id: &str, tokens| Reservation { tokens, ..reservation(id) };
    let mut first = with("first", 600);
    assert!(reserve(&chat, &owner, &mut first, Some(1000)).await);
    assert_eq!(first.tokens, 600, "it fits");
    for (id, prompt, left, held) in
        [("late", 20, 255, None), ("long", 300, 300, None), ("limited", 255, 256, Some(256))]
    {
        let mut asked = Reservation { prompt, ..with(id, 500) };
        let begun = reserve(&chat, &owner, &mut asked, Some(600 + left)).await;
        assert_eq!(begun.then_some(asked.tokens), held, "{id}");
    }
    let mut short = with("short", 60);
    let quota = Some(600 + 256 + 60);
    assert!(reserve(&chat, &owner, &mut short, quota).await, "a short answer fits");
    assert_eq!(chat.reservations().usage(&owner, DAY).await.unwrap().held, 916);
}

#[tokio::test]
async fn nothing_is_held_for_a_credential_whose_account_has_changed() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let changed = Op::FieldSet(state(&owner.user), "revision".into(), "5".into());
    chat.context.store.apply(vec![changed]).await.unwrap();
    let mut it = reservation("it");
    for (revision, expected) in
        [(0, Reserved::AccountChanged), (4, Reserved::AccountChanged), (5, Reserved::Yes)]
    {
        assert_eq!(chat.reservations().usage(&owner, DAY).await.unwrap().held, 0);
        let caller = Identity::new(owner.clone(), Credential::Open, revision);
        let reserved = chat.reservations().reserve(&caller, &mut it, None).await.unwrap();
        assert_eq!(reserved, expected, "{revision}");
    }
}
