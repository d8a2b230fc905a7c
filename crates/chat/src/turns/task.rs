//! A turn's task: it alone moves the turn from acceptance to its ending, and does the ending in one place.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::sleep;

use crate::{
    domain::Usage,
    generation::answer_builder::{Draft, ServedBy, Texts, answer_record},
    llm::{Generation, Prompt},
    turns::{
        finalize::{Outcome, ending_of},
        prompt::Conversation,
        service::{OnDisconnect, Stop, Turn, Turns},
        session_queue::Place,
    },
};

/// How often it is looked whether anybody still watches from another instance.
const WATCHED_PAUSE: Duration = Duration::from_secs(1);

impl Turns {
    /// Runs a turn to its ending. `place` is the session's lane on this instance, kept until the turn is closed.
    pub(crate) async fn run(
        self: Arc<Self>,
        turn: Arc<Turn>,
        answering: Generation,
        conversation: Arc<Conversation>,
        place: Place,
    ) {
        let mut draft = Draft::default();
        let answer = AssertUnwindSafe(self.answer(&turn, answering, &conversation, &mut draft))
            .catch_unwind();
        let outcome = answer.await.unwrap_or(Outcome::Broken);
        if let (Some(usage), Outcome::Answered(_)) = (draft.usage, &outcome) {
            self.estimates.observe(
                &turn.open.model,
                conversation.last_estimate.load(Ordering::Relaxed),
                usage,
            );
        }
        if let Outcome::Failed(error) = &outcome {
            tracing::warn!(message_id = %turn.open.id, request_id = %turn.request_id, %error, "the model server failed");
        }
        let texts = Texts::of(&turn.log);
        let usage = self.usage_of(&turn, &draft, &texts, &conversation);
        let served_by = draft
            .served_by
            .unwrap_or_else(|| ServedBy::asked(&turn.open));
        let ending = ending_of(&served_by, usage, &outcome);
        let answer = answer_record(&turn.open, served_by, texts, usage, &ending);
        // Boxed, as is whatever a turn waits for but seldom: most of its time it waits for the model.
        Box::pin(self.close(&turn, &conversation, answer, usage, ending)).await;
        self.leave(&turn);
        drop(place);
    }

    /// Listens to the model until it is done or something ends the turn, and tells every watcher.
    async fn answer(
        &self,
        turn: &Turn,
        mut answering: Generation,
        conversation: &Arc<Conversation>,
        draft: &mut Draft,
    ) -> Outcome {
        let prompt: Arc<dyn Prompt> = Arc::clone(conversation) as _;
        answering.begin(prompt);
        let stopped = turn.stopped.cancelled();
        let interrupted = self.shutdown.stopping();
        let abandoned = self.abandoned(turn);
        tokio::pin!(stopped, interrupted, abandoned);
        loop {
            let progress = tokio::select! {
                biased;
                () = &mut stopped => return Outcome::Stopped(turn.why()),
                () = &mut interrupted => return Outcome::Interrupted,
                () = &mut abandoned => return Outcome::Stopped(Stop::Cancelled),
                progress = answering.next() => progress,
            };
            let progress = match progress {
                Ok(progress) => progress,
                Err(error) => return Outcome::Failed(error),
            };
            let finish = turn
                .log
                .write(|page| progress.into_iter().find_map(|step| draft.take(step, page)));
            if let Some(finish) = finish {
                return Outcome::Answered(finish);
            }
        }
    }

    /// Resolves when nobody has watched the turn, here or elsewhere, for as long as its beginner allowed.
    async fn abandoned(&self, turn: &Turn) {
        let OnDisconnect::CancelAfter(grace) = turn.on_disconnect else {
            return std::future::pending().await;
        };
        loop {
            turn.log.until_watched(false).await;
            tokio::select! {
                () = turn.log.until_watched(true) => continue,
                () = sleep(grace) => {}
            }
            // A store that cannot be asked knows of no watcher either: what it cannot tell must not burn the model.
            let watched = self.repository.is_watched(&turn.owner, &turn.open.id);
            if !Box::pin(watched).await.unwrap_or(false) {
                return;
            }
            sleep(WATCHED_PAUSE).await;
        }
    }

    /// What the turn cost: as the server counted, else our estimate of what it read and wrote.
    fn usage_of(
        &self,
        turn: &Turn,
        draft: &Draft,
        texts: &Texts,
        conversation: &Conversation,
    ) -> Usage {
        let estimate = |text: &str| u64::from(self.estimates.tokens(&turn.open.model, text));
        draft.usage.unwrap_or_else(|| match &draft.served_by {
            Some(_) => Usage {
                prompt_tokens: u64::from(conversation.last_estimate.load(Ordering::Relaxed)),
                completion_tokens: estimate(&texts.answer) + estimate(&texts.thinking),
            },
            None => Usage::default(),
        })
    }
}
