//! Thoughts inside the text: an answer that begins with `<think>` has its thoughts up to `</think>`. Servers that do not know
//! a model's template leave the tags where they are; elsewhere in an answer they are text.

use crate::llm::Chunk;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// The most white space before or after thoughts, in bytes: a model that says nothing else has gone wrong, and has not begun to think.
const MAX_SPACE: usize = 1024;

/// Tells thoughts and text apart, wherever the chunks are cut.
#[derive(Debug, Default)]
pub(super) struct ThinkTags {
    state: TagState,
    /// What may turn out to be a part of a tag.
    held: String,
    /// Bytes of white space that came where it is now; before the answer they are held, and not looked at again.
    space: usize,
}

#[derive(Debug, Default, PartialEq)]
enum TagState {
    #[default]
    Beginning,
    Thinking,
    /// White space between the thoughts and the answer is dropped.
    AfterThoughts,
    Answer,
}

impl ThinkTags {
    /// Replaces the text of these chunks by thoughts and text.
    pub(super) fn separate(&mut self, chunks: &mut Vec<Chunk>) {
        let is_said = |chunk: &Chunk| matches!(chunk, Chunk::Text(_) | Chunk::Thinking(_));
        if self.state == TagState::Answer || !chunks.iter().any(is_said) && self.held.is_empty() {
            return;
        }
        for chunk in std::mem::take(chunks) {
            match chunk {
                Chunk::Text(text) => self.push(&text, chunks),
                Chunk::ToolCall(_) | Chunk::End { .. } => {
                    self.flush(chunks);
                    chunks.push(chunk);
                }
                // A server that tells thoughts by itself leaves no tags.
                Chunk::Thinking(_) if self.state == TagState::Beginning => {
                    self.flush(chunks);
                    self.state = TagState::Answer;
                    chunks.push(chunk);
                }
                other => chunks.push(other),
            }
        }
    }

    fn push(&mut self, text: &str, out: &mut Vec<Chunk>) {
        self.held.push_str(text);
        loop {
            match self.state {
                TagState::Beginning => {
                    let begun = self.held[self.space..].trim_start();
                    self.space = self.held.len() - begun.len();
                    if self.space > MAX_SPACE {
                        self.state = TagState::Answer;
                    } else if let Some(rest) = begun.strip_prefix(OPEN) {
                        self.held = rest.to_owned();
                        self.space = 0;
                        self.state = TagState::Thinking;
                    } else if OPEN.starts_with(begun) {
                        return;
                    } else {
                        self.state = TagState::Answer;
                    }
                }
                TagState::Thinking => {
                    if let Some((thoughts, rest)) = self.held.split_once(CLOSE) {
                        emit(thoughts, Chunk::Thinking, out);
                        self.held = rest.to_owned();
                        self.state = TagState::AfterThoughts;
                        continue;
                    }
                    let kept = partial_tag(&self.held);
                    let end = self.held.len() - kept;
                    emit(&self.held[..end], Chunk::Thinking, out);
                    self.held.drain(..end);
                    return;
                }
                TagState::AfterThoughts => {
                    let rest = self.held.trim_start();
                    self.space += self.held.len() - rest.len();
                    self.held = rest.to_owned();
                    if self.held.is_empty() && self.space <= MAX_SPACE {
                        return;
                    }
                    self.state = TagState::Answer;
                }
                TagState::Answer => {
                    emit(&std::mem::take(&mut self.held), Chunk::Text, out);
                    return;
                }
            }
        }
    }

    /// Gives out what was held back, since no more of a tag can come.
    fn flush(&mut self, out: &mut Vec<Chunk>) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            TagState::Thinking => emit(&held, Chunk::Thinking, out),
            _ => emit(&held, Chunk::Text, out),
        }
    }
}

fn emit(text: &str, chunk: fn(String) -> Chunk, out: &mut Vec<Chunk>) {
    if !text.is_empty() {
        out.push(chunk(text.to_owned()));
    }
}

/// The length of the longest end of the text that is a beginning of the closing tag.
fn partial_tag(text: &str) -> usize {
    (1..CLOSE.len()).rev().find(|&length| text.ends_with(&CLOSE[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::FinishReason, llm::UsageDetails};

    /// The thoughts and the text of an answer that comes in these pieces.
    fn separated<'a>(pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let (mut tags, mut thoughts, mut text) =
            (ThinkTags::default(), String::new(), String::new());
        let end = Chunk::End {
            finish: FinishReason::Stop,
            usage: None,
            details: UsageDetails::default(),
            stop_sequence: None,
        };
        let pieces = pieces.into_iter().map(|piece| Chunk::Text(piece.to_owned()));
        for chunk in pieces.chain([end]) {
            let mut chunks = vec![chunk];
            tags.separate(&mut chunks);
            for chunk in chunks {
                match chunk {
                    Chunk::Thinking(piece) => thoughts.push_str(&piece),
                    Chunk::Text(piece) => text.push_str(&piece),
                    _ => {}
                }
            }
        }
        (thoughts, text)
    }

    #[test]
    fn tags_after_thoughts_of_the_server_are_text_wherever_the_reads_cut() {
        let chunks = [
            Chunk::Thinking("Hm".to_owned()),
            Chunk::Text("<think>x</think>".to_owned()),
            Chunk::Text(" y".to_owned()),
        ];
        for size in 1..=3 {
            let mut tags = ThinkTags::default();
            let separate = |read: &[Chunk]| {
                let mut read = read.to_vec();
                tags.separate(&mut read);
                read
            };
            assert_eq!(
                chunks.chunks(size).flat_map(separate).collect::<Vec<_>>(),
                chunks,
                "{size}"
            );
        }
    }

    #[test]
    fn white_space_without_end_is_text() {
        let space = "\n".repeat(MAX_SPACE);
        let (within, beyond) =
            (format!("{space}<think>a</think>{space}b"), format!("\n{space}<think>"));
        assert_eq!(separated([&*within]), ("a".to_owned(), "b".to_owned()));
        assert_eq!(separated([&*beyond]), (String::new(), beyond.clone()));
        assert_eq!(separated(beyond.split_inclusive('\n')), (String::new(), beyond.clone()));
        let endless = "<think>a</think>".split_inclusive('>').chain(vec!["\n"; 2 * MAX_SPACE]);
        assert_eq!(separated(endless).1, "\n".repeat(MAX_SPACE - 1));
    }

    #[test]
    fn thoughts_are_found_wherever_the_chunks_are_cut() {
        let cases = [
            ("<think>a < b</think>\n\nYes.", "a < b", "Yes."),
            (" \n<think>é</think>x</think>", "é", "x</think>"),
            ("<think>unfinished </thi", "unfinished </thi", ""),
            ("<think></think>x", "", "x"),
            ("a<think>b</think>", "", "a<think>b</think>"),
            ("<thinking>", "", "<thinking>"),
            ("  <thi", "", "  <thi"),
            ("", "", ""),
        ];
        for (whole, thoughts, text) in cases {
            let expected = (thoughts.to_owned(), text.to_owned());
            assert_eq!(separated([whole]), expected, "{whole:?}");
            let cuts = whole.char_indices().map(|(at, _)| whole.split_at(at));
            for (first, second) in cuts {
                assert_eq!(separated([first, second]), expected, "{first:?} {second:?}");
            }
            let singly = whole.char_indices().map(|(at, c)| &whole[at..at + c.len_utf8()]);
            assert_eq!(separated(singly), expected, "{whole:?} by character");
        }
    }
}
