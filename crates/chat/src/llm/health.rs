//! What a look at a model server showed: whether it is there, and which models it has.

use std::sync::Arc;

use crate::llm::{error::RequestError, providers::ModelInfo};

/// Looks in a row that may go unanswered: a busy server is not a dead one.
const MISSES: u32 = 2;

/// What the last look showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) reach: Reach,
    /// The models as last listed; `None` while no list was ever had.
    pub(super) models: Option<Arc<[ModelInfo]>>,
    /// Whether the last look brought a list.
    pub(super) listed: bool,
}

/// Whether a server is there, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nobody has looked yet: worth trying.
    #[default]
    Unknown,
    Up,
    Down,
}

/// Whether a server has a model, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    Yes,
    No,
    Perhaps,
}

impl Look {
    /// The look after one that was answered. A server that answers, whatever it says, is there; one that says 502, 503 or
    /// 504 is as good as away. The models of the last list stay known.
    pub(super) fn answered(&self, seen: Result<Vec<ModelInfo>, RequestError>) -> Self {
        match seen {
            Ok(models) => Self {
                reach: Reach::Up,
                models: Some(models.into()),
                listed: true,
            },
            Err(refusal) if refusal.is_outage() => Self {
                reach: Reach::Down,
                models: self.models.clone(),
                listed: false,
            },
            Err(_) => Self {
                reach: Reach::Up,
                models: self.models.clone(),
                listed: false,
            },
        }
    }

    /// The look after `misses` in a row that nobody answered in time. A server that was up is doubted slowly, and not at
    /// all while it is sending answers: some do one thing at a time.
    pub(super) fn unanswered(&self, misses: u32, is_talking: bool) -> Self {
        if self.reach == Reach::Up && (misses < MISSES || is_talking) {
            return self.clone();
        }
        Self {
            reach: Reach::Down,
            models: self.models.clone(),
            listed: false,
        }
    }

    /// Whether it shows something else than that one: what is worth a line in the log.
    pub(super) fn differs(&self, other: &Self) -> bool {
        (self.reach, self.listed) != (other.reach, other.listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::error::{Cause, ModelError};

    #[test]
    fn a_server_that_was_up_is_doubted_slowly_and_not_while_it_talks() {
        let up = Look::default().answered(Ok(Vec::new()));
        assert_eq!(up.reach, Reach::Up);
        assert_eq!(up.unanswered(1, false).reach, Reach::Up);
        assert_eq!(up.unanswered(2, false).reach, Reach::Down);
        assert_eq!(up.unanswered(9, true).reach, Reach::Up);
        assert_eq!(Look::default().unanswered(1, true).reach, Reach::Down);
    }

    #[test]
    fn only_outages_take_a_server_for_down_and_its_models_stay_known() {
        let refusal = |cause| RequestError {
            error: ModelError::Failed(String::new()),
            cause,
            retry_after: None,
        };
        let model = ModelInfo {
            id: "m".to_owned(),
            window: None,
        };
        let up = Look::default().answered(Ok(vec![model]));
        for (cause, reach) in [
            (Cause::Unreachable, Reach::Down),
            (Cause::Status(503), Reach::Down),
            (Cause::Status(401), Reach::Up),
            (Cause::Status(404), Reach::Up),
            (Cause::Content, Reach::Up),
        ] {
            let look = up.answered(Err(refusal(cause)));
            assert_eq!(
                (look.reach, look.models.map(|models| models.len())),
                (reach, Some(1))
            );
        }
    }
}
