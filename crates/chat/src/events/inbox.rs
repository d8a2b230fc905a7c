//! Reads what other instances ask of this one and tell it, and tells them which of their turns are watched here.

use std::{sync::Arc, time::Duration};

use common::shutdown::Shutdown;
use tokio::time::{Instant, sleep};

use crate::{
    domain::StopReason,
    events::{registry::Registry, remote_tail::RemoteTail},
    store::{ChatStore, control::InboxRequest},
};

/// How often the inbox is read while turns of other instances are followed: how much later than there their events come here.
const FOLLOWING: Duration = Duration::from_millis(100);

/// How often it is read while turns run here, which others may cancel or begin to watch.
const RUNNING: Duration = Duration::from_millis(250);

/// How often other instances are told which of their turns are watched here.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub struct Inbox {
    store: ChatStore,
    registry: Arc<Registry>,
    tail: Arc<RemoteTail>,
}

impl Inbox {
    /// Starts to read the inbox until the service stops. A store of our own has none: no other instance can write to it.
    pub fn spawn(
        store: ChatStore,
        registry: Arc<Registry>,
        tail: Arc<RemoteTail>,
        shutdown: &Shutdown,
    ) {
        if !store.is_shared() {
            return;
        }
        let inbox = Self { store, registry, tail };
        shutdown.spawn_until_stop(async move { inbox.run().await });
    }

    async fn run(&self) {
        let mut told_at: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.pause() => {}
                // Whoever begins to follow a turn waits for its events; whoever was the last to leave one has begun its grace.
                () = self.tail.watched_changed() => told_at = None,
            }
            if told_at.is_none_or(|at| at.elapsed() >= WATCH_INTERVAL) {
                told_at = Some(Instant::now());
                self.send_watches().await;
            }
            self.read().await;
        }
    }

    /// The time to the next read; without end while nothing runs or is followed here.
    async fn pause(&self) {
        if self.tail.is_following() {
            sleep(FOLLOWING).await;
        } else {
            self.registry.not_empty().await;
            sleep(RUNNING).await;
        }
    }

    /// Tells every instance which of its turns have subscribers here. What is lost is told again in a second.
    async fn send_watches(&self) {
        for (instance, turns) in self.tail.watched() {
            let watch = InboxRequest::Watch { instance: self.store.instance().to_owned(), turns };
            if let Err(error) = self.store.control().send(&instance, &watch).await {
                tracing::debug!(%error, "another instance could not be told what is watched here");
            }
        }
    }

    async fn read(&self) {
        let begun = Instant::now();
        let Ok(requests) = self.store.control().receive().await else { return };
        for request in requests {
            match request {
                InboxRequest::Cancel { message_id } => {
                    self.registry.stop(&message_id, StopReason::Cancelled);
                }
                InboxRequest::Watch { instance, turns } => self.registry.watch(&instance, &turns),
                InboxRequest::Progress { turns } => {
                    turns.into_iter().for_each(|turn| self.tail.advance(&turn));
                }
            }
        }
        self.registry.set_inbox_read(begun);
    }
}
