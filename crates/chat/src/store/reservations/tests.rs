use common::{config::StoreUrl, identity::UserId, shutdown::Shutdown, store::Store};

use super::*;
use crate::store::{ChatStore, usage::DayUsage};

const DAY: &str = "20260102";

fn chat_store(shutdown: &Shutdown) -> (ChatStore, Owner) {
    let store = Store::open(&StoreUrl::Memory, shutdown).unwrap();
    let owner = Owner {
        user: UserId::parse("alice").unwrap(),
        generation: 0,
    };
    (ChatStore::new(store, None, Duration::from_secs(10)), owner)
}

fn reservation(id: &str) -> Reservation {
    Reservation {
        id: id.to_owned(),
        day: DAY.to_owned(),
        tokens: 60,
        prompt: 20,
    }
}

/// Another process on the same store.
fn other(chat: &ChatStore) -> ChatStore {
    ChatStore::new(chat.context.store.clone(), None, Duration::from_secs(10))
}

const DEAD: DayUsage = DayUsage {
    prompt: 20,
    completion: 0,
    requests: 1,
    held: 20,
};

const SPENT: Usage = Usage {
    prompt_tokens: 3,
    completion_tokens: 4,
};

#[tokio::test]
async fn what_is_repeated_is_counted_once() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let one = reservation("one");
    for _ in 0..2 {
        assert!(
            chat.reservations()
                .reserve(&owner, &one, Some(100))
                .await
                .unwrap()
        );
    }
    let other = reservation("other");
    let fits = chat.reservations().reserve(&owner, &other, Some(100)).await;
    assert!(!fits.unwrap(), "60 of 100 are held");
    for _ in 0..2 {
        chat.reservations()
            .settle(&owner, &one, SPENT)
            .await
            .unwrap();
    }
    let counted = DayUsage {
        prompt: 3,
        completion: 4,
        requests: 1,
        held: 7,
    };
    assert_eq!(
        chat.reservations().usage(&owner, DAY).await.unwrap(),
        counted
    );
}

#[tokio::test]
async fn what_is_withdrawn_never_counts_however_late_it_comes() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    for (id, came) in [("before", true), ("after", false)] {
        let it = reservation(id);
        if came {
            chat.reservations()
                .reserve(&owner, &it, None)
                .await
                .unwrap();
        }
        for _ in 0..2 {
            chat.reservations().withdraw(&owner, &it).await.unwrap();
        }
        chat.reservations()
            .reserve(&owner, &it, None)
            .await
            .unwrap();
        let counted = chat.reservations().usage(&owner, DAY).await.unwrap();
        assert_eq!(counted, DayUsage::default(), "{id}");
    }
}

#[tokio::test]
async fn nothing_is_settled_for_an_account_that_was_erased() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let it = reservation("it");
    chat.reservations()
        .reserve(&owner, &it, None)
        .await
        .unwrap();
    let erase = Op::Delete(Keys::of(&owner).usage(DAY));
    chat.context.store.apply(vec![erase]).await.unwrap();
    chat.reservations()
        .settle(&owner, &it, SPENT)
        .await
        .unwrap();
    let counted = chat.reservations().usage(&owner, DAY).await.unwrap();
    assert_eq!(counted, DayUsage::default());
}

#[tokio::test]
async fn what_a_dead_process_set_aside_is_settled_by_whoever_looks() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let it = reservation("it");
    chat.reservations()
        .reserve(&owner, &it, None)
        .await
        .unwrap();
    let counted = chat.reservations().usage(&owner, DAY).await.unwrap();
    assert_eq!(counted.held, 60, "its own process is not dead");
    // Nothing but this process can have the store open: whoever was there before is dead.
    let other = other(&chat);
    for _ in 0..2 {
        assert_eq!(other.reservations().usage(&owner, DAY).await.unwrap(), DEAD);
    }
    // Whoever was taken for dead is not counted twice.
    chat.reservations()
        .settle(&owner, &it, SPENT)
        .await
        .unwrap();
    assert_eq!(other.reservations().usage(&owner, DAY).await.unwrap(), DEAD);
}

#[tokio::test]
async fn what_a_dead_process_set_aside_is_in_nobodys_way() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let (it, next) = (reservation("it"), reservation("next"));
    chat.reservations()
        .reserve(&owner, &it, None)
        .await
        .unwrap();
    let fits = chat.reservations().reserve(&owner, &next, Some(100)).await;
    assert!(!fits.unwrap(), "60 of 100 are held, and it lives");
    let fits = other(&chat)
        .reservations()
        .reserve(&owner, &next, Some(100))
        .await;
    assert!(fits.unwrap());
}

#[tokio::test]
async fn a_lease_that_is_renewed_does_not_lapse() {
    let shutdown = Shutdown::new();
    let (chat, owner) = chat_store(&shutdown);
    let it = reservation("it");
    chat.reservations()
        .reserve(&owner, &it, None)
        .await
        .unwrap();
    let lapse = Op::Delete(Keys::of(&owner).lease("it"));
    chat.context.store.apply(vec![lapse.clone()]).await.unwrap();
    chat.reservations().renew(&owner, &it).await.unwrap();
    assert_eq!(chat.reservations().settle_dead(&owner).await.unwrap(), 0);
    chat.context.store.apply(vec![lapse]).await.unwrap();
    assert_eq!(chat.reservations().settle_dead(&owner).await.unwrap(), 1);
    chat.reservations().renew(&owner, &it).await.unwrap();
    assert_eq!(chat.reservations().usage(&owner, DAY).await.unwrap(), DEAD);
}
