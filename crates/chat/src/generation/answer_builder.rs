//! What there is of an answer while it is made, and the message that it becomes.

use common::{clock, errors::Code};

use crate::{
    domain::{
        Context, FinishReason, Role, Usage,
        event::{Event, Kind},
        records::{AnswerFacts, Ending, MessageRecord, OpenTurn, VERSION},
    },
    events::log::{EventLog, Page},
    llm::Chunk,
};

/// Longest text of one answer, and of its thoughts, in bytes; past it the answer ends as `length`.
pub(crate) const TEXT_LIMIT: usize = 1024 * 1024;

/// Who answered.
#[derive(Clone, Debug)]
pub(crate) struct ServedBy {
    pub(crate) model: String,
    pub(crate) provider: String,
    pub(crate) context: Context,
}

/// What is known of an answer beside its text, which the log has.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// Bytes of the answer so far.
    said: usize,
    /// Bytes of the thoughts so far.
    thought: usize,
    pub(crate) usage: Option<Usage>,
    pub(crate) served_by: Option<ServedBy>,
}

/// The text of an answer, and of the thoughts before it.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) answer: String,
    pub(crate) thinking: String,
}

impl Texts {
    /// All that a log has of it.
    pub(crate) fn of(log: &EventLog) -> Self {
        let mut texts = Self::default();
        log.each(|kind, data| match kind {
            Kind::Token => texts.answer.push_str(data),
            Kind::Thinking => texts.thinking.push_str(data),
            _ => {}
        });
        texts
    }
}

impl Draft {
    /// Takes in what happened, tells it, and returns the finish where that was it.
    pub(crate) fn take(&mut self, step: Chunk, page: &mut Page<'_>) -> Option<FinishReason> {
        match step {
            Chunk::Queued { position } => {
                let event = Event::queued(position);
                page.push(event.kind, &event.data);
            }
            Chunk::Started {
                provider,
                model,
                window,
                dropped,
            } => {
                let context = Context {
                    window,
                    dropped_messages: dropped,
                };
                self.served_by = Some(ServedBy {
                    model,
                    provider: provider.as_str().to_owned(),
                    context,
                });
            }
            Chunk::Text(text) => {
                let (piece, full) = clip(&text, TEXT_LIMIT.saturating_sub(self.said));
                self.said += piece.len();
                page.push(Kind::Token, piece);
                return full.then_some(FinishReason::Length);
            }
            Chunk::Thinking(text) => {
                let (piece, full) = clip(&text, TEXT_LIMIT.saturating_sub(self.thought));
                self.thought += piece.len();
                page.push(Kind::Thinking, piece);
                return full.then_some(FinishReason::Length);
            }
            // Tools are asked for on `/v1` alone, which has no turns.
            Chunk::ToolCall(_) => {}
            Chunk::End { finish, usage } => {
                self.usage = usage;
                return Some(match finish {
                    FinishReason::Length => FinishReason::Length,
                    _ => FinishReason::Stop,
                });
            }
        }
        None
    }
}

/// As much of the text as fits, on a character's border, and whether that was less than all.
pub(crate) fn clip(text: &str, room: usize) -> (&str, bool) {
    if text.len() <= room {
        return (text, false);
    }
    let end = (0..=room)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    (text.get(..end).unwrap_or_default(), true)
}

impl ServedBy {
    /// Who was asked first: as much as is known where nobody has answered.
    pub(crate) fn asked(open: &OpenTurn) -> Self {
        Self {
            model: open.model.clone(),
            provider: open.provider.clone(),
            context: Context {
                window: open.window,
                dropped_messages: 0,
            },
        }
    }
}

/// The answer as it is kept; `None` where there is no text, and where a failed try must not replace a good answer.
pub(crate) fn answer_record(
    open: &OpenTurn,
    served_by: ServedBy,
    texts: Texts,
    usage: Usage,
    ending: &Ending,
) -> Option<MessageRecord> {
    let (finish_reason, code) = match ending {
        Ending::Done { finish_reason, .. } => (*finish_reason, None),
        Ending::Error {
            code: Code::Interrupted,
            ..
        } => (FinishReason::Interrupted, Some(Code::Interrupted)),
        Ending::Error { code, .. } => (FinishReason::Error, Some(*code)),
    };
    let spoils_a_good_one = code.is_some() && open.regenerates && open.replaces.is_some();
    if texts.answer.is_empty() || spoils_a_good_one {
        return None;
    }
    let ServedBy {
        model,
        provider,
        context,
    } = served_by;
    Some(MessageRecord {
        v: VERSION,
        id: open.id.clone(),
        role: Role::Assistant,
        content: texts.answer,
        at: clock::now_ms(),
        thinking: Some(texts.thinking).filter(|thoughts| !thoughts.is_empty()),
        answer: Some(AnswerFacts {
            reply_to: open.reply_to.clone(),
            model,
            provider,
            finish_reason,
            usage,
            context,
            code,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_clipped_on_a_characters_border() {
        assert_eq!(clip("aé", 3), ("aé", false));
        assert_eq!(clip("aé", 2), ("a", true));
        assert_eq!(clip("é", 0), ("", true));
    }

    #[test]
    fn an_answer_past_the_limit_ends_as_length() {
        let (mut draft, log) = (Draft::default(), EventLog::new());
        let mut take = |text: String| log.write(|page| draft.take(Chunk::Text(text), page));
        assert_eq!(take("x".repeat(TEXT_LIMIT)), None);
        assert_eq!(take("x".into()), Some(FinishReason::Length));
        assert_eq!(Texts::of(&log).answer.len(), TEXT_LIMIT);
    }
}
