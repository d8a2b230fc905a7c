//! The answer that a turn's events make.

use common::{clock, errors::Code};

use crate::{
    domain::{AnswerInfo, Ending, FinishReason, Message, OpenTurn, Role, Usage, event::EventRef},
    events::log::EventLog,
    generation::answer::AnswerSource,
};

/// The text of an answer, and of the thoughts before it.
#[derive(Debug, Default)]
pub(crate) struct AnswerText {
    pub(crate) answer: String,
    pub(crate) thinking: String,
}

impl AnswerText {
    pub(crate) fn of(log: &EventLog) -> Self {
        let mut text = Self::default();
        log.for_each_after(0, |_, event| {
            match event {
                EventRef::Token(token) => text.answer.push_str(token),
                EventRef::Thinking(token) => text.thinking.push_str(token),
                _ => {}
            }
            true
        });
        text
    }
}

/// The answer as it is stored; `None` where it was cut off before any text or thoughts, and where it must not replace an earlier
/// one: another attempt that is not complete or has no text, or a failed turn that was run again and has none either. A complete
/// answer is stored even if it is empty: its id was given out.
pub(crate) fn answer_message(
    open: &OpenTurn,
    source: AnswerSource,
    text: AnswerText,
    usage: Usage,
    ending: &Ending,
) -> Option<Message> {
    let (finish_reason, code) = match ending {
        Ending::Done { finish_reason, .. } => (*finish_reason, None),
        Ending::Error { code: Code::Interrupted, .. } => {
            (FinishReason::Interrupted, Some(Code::Interrupted))
        }
        Ending::Error { code, .. } => (FinishReason::Error, Some(*code)),
    };
    let is_empty = text.answer.is_empty();
    let is_complete = matches!(finish_reason, FinishReason::Stop | FinishReason::Length);
    let is_nothing = is_empty && text.thinking.is_empty() && !is_complete;
    let spoils_an_earlier_one = open.replaces.is_some()
        && if open.regenerates { is_empty || !is_complete } else { is_empty && !is_complete };
    if is_nothing || spoils_an_earlier_one {
        return None;
    }
    let AnswerSource { model, provider, context } = source;
    Some(Message {
        id: open.id.clone(),
        role: Role::Assistant,
        content: text.answer,
        at: clock::now_ms(),
        thinking: Some(text.thinking).filter(|thoughts| !thoughts.is_empty()),
        answer: Some(AnswerInfo {
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
