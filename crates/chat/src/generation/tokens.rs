//! Estimates of token counts, which learn from what model servers count.

use std::{collections::HashMap, sync::Arc};

use common::identity::UserId;
use parking_lot::Mutex;

use crate::domain::{Options, Usage};

/// Tokens that a message costs beside its text: its role and the template's marks.
pub(crate) const MESSAGE_OVERHEAD: u32 = 5;

/// Most room that is kept for an answer of unspecified length, in tokens.
const DEFAULT_ROOM: u32 = 1024;

/// The room that is kept for an answer of unspecified length, in tokens.
pub(crate) fn default_room(window: u32) -> u32 {
    (window / 4).min(DEFAULT_ROOM)
}

/// The room that is kept for an answer: as much as the caller allows, where the window has so much at all.
pub(crate) fn answer_room(options: &Options, window: u32) -> u32 {
    options.max_tokens.filter(|most| *most < window).unwrap_or_else(|| default_room(window))
}

/// The longest answer to a prompt of that size, in tokens: as long as the caller allows, else what the prompt leaves of the window.
pub(crate) fn longest_answer(options: &Options, prompt: u32, window: u32) -> u32 {
    let left = window.saturating_sub(prompt).max(default_room(window));
    options.max_tokens.unwrap_or(left).min(window)
}

/// What is learned from the counts of model servers: for each user and model the ratio of what was counted to what we
/// estimated, and for each model the tokens of its template.
///
/// Ratios are never shared: digits or code of one user would make another one's prose look too long, or fit too well.
#[derive(Clone, Debug, Default)]
pub struct TokenEstimates {
    learned: Arc<Mutex<Learned>>,
    user: Option<UserId>,
}

#[derive(Debug, Default)]
struct Learned {
    ratios: HashMap<(UserId, String), f64>,
    templates: HashMap<String, u32>,
}

impl TokenEstimates {
    /// Bounds of a ratio: a server that counts a cached prompt as nothing must not make us believe that everything fits.
    const RANGE: std::ops::RangeInclusive<f64> = 0.5..=4.0;

    /// Entries of each kind: the names come from callers, so there must be a limit.
    const MAX_ENTRIES: usize = 16_384;

    /// Tokens of a template that nothing is known of.
    const DEFAULT_TEMPLATE: u32 = 16;

    /// Most tokens that are believed of a template.
    const MAX_TEMPLATE: u32 = 512;

    /// Texts of fewer tokens tell how long the template is, longer ones what the ratio is.
    const SHORT: u32 = 32;

    /// The same estimates, for what that user writes.
    pub fn for_user(&self, user: &UserId) -> Self {
        Self { learned: Arc::clone(&self.learned), user: Some(user.clone()) }
    }

    pub(crate) fn ratio(&self, model: &str) -> f64 {
        let Some(user) = &self.user else { return 1.0 };
        let key = (user.clone(), model.to_owned());
        self.learned.lock().ratios.get(&key).copied().unwrap_or(1.0)
    }

    pub(crate) fn template(&self, model: &str) -> u32 {
        let learned = self.learned.lock().templates.get(model).copied();
        learned.unwrap_or(Self::DEFAULT_TEMPLATE)
    }

    pub fn tokens(&self, model: &str, text: &str) -> u32 {
        self.tokens_of(model, TextSize::of(text))
    }

    pub fn tokens_of(&self, model: &str, size: TextSize) -> u32 {
        size.scaled(self.ratio(model))
    }

    /// Learns from what a server counted of a prompt that it found too long, and estimates that prompt anew.
    pub fn recount(&self, model: &str, estimated: u32, counted: u32) -> u32 {
        let before = self.ratio(model);
        self.observe(model, estimated, Usage { prompt_tokens: counted.into(), ..Usage::default() });
        times(estimated, self.ratio(model) / before)
    }

    /// Learns from what the server counted for a prompt that we had estimated.
    pub fn observe(&self, model: &str, estimated: u32, counted: Usage) {
        let template = self.template(model);
        let text = estimated.saturating_sub(template);
        let counted = u32::try_from(counted.prompt_tokens).unwrap_or(u32::MAX);
        if counted == 0 || text == 0 {
            return;
        }
        let mut learned = self.learned.lock();
        if text < Self::SHORT {
            let seen = counted.saturating_sub(text).min(Self::MAX_TEMPLATE);
            make_room(&mut learned.templates, Self::MAX_ENTRIES);
            let known = learned.templates.entry(model.to_owned()).or_insert(seen);
            // A quarter of the way at a time smooths single odd prompts; rounded up, so that it arrives.
            *known = (*known * 3 + seen).div_ceil(4);
        } else if let Some(user) = &self.user {
            make_room(&mut learned.ratios, Self::MAX_ENTRIES);
            let key = (user.clone(), model.to_owned());
            let ratio = learned.ratios.entry(key).or_insert(1.0);
            // The estimate contained the old ratio.
            let seen = *ratio * f64::from(counted.saturating_sub(template)) / f64::from(text);
            *ratio = (*ratio * 0.75 + seen * 0.25).clamp(*Self::RANGE.start(), *Self::RANGE.end());
        }
    }
}

/// Estimates are cheap to learn again.
fn make_room<K, V>(entries: &mut HashMap<K, V>, limit: usize) {
    if entries.len() >= limit {
        entries.clear();
    }
}

/// The size of a text as it matters for token counts; the same for a text in pieces as in one.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextSize {
    quarters: usize,
}

impl TextSize {
    pub fn of(text: &str) -> Self {
        let mut size = Self::default();
        size.add(text);
        size
    }

    pub fn add(&mut self, text: &str) {
        // By the first byte of each character.
        let weight = |byte: u8| match byte {
            0..0x80 => 1,
            0x80..0xc0 => 0,
            0xc0..0xe0 => 2,
            _ => 4,
        };
        self.quarters += text.bytes().map(weight).sum::<usize>();
    }

    /// Tokens: four ASCII characters each, two of other alphabets (below U+0800), or one of any other script, times the ratio. Above
    /// what common tokenizers make of prose.
    pub fn scaled(self, ratio: f64) -> u32 {
        let tokens = u32::try_from(self.quarters.div_ceil(4)).unwrap_or(u32::MAX);
        times(tokens, ratio)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates; both factors are positive"
)]
fn times(tokens: u32, ratio: f64) -> u32 {
    (f64::from(tokens) * ratio).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(prompt_tokens: u64) -> Usage {
        Usage { prompt_tokens, completion_tokens: 1 }
    }

    #[test]
    fn what_one_user_writes_changes_no_estimate_of_another() {
        let estimates = TokenEstimates::default();
        let [digits, prose] =
            ["a", "b"].map(|name| estimates.for_user(&UserId::parse(name).unwrap()));
        for _ in 0..16 {
            digits.observe("m", 1000, counted(4000));
        }
        assert!(digits.tokens("m", &"1".repeat(4000)) > 2000);
        assert_eq!(prose.tokens("m", &"x".repeat(4000)), 1000);
    }

    #[test]
    fn room_that_the_window_does_not_have_is_not_kept() {
        let room = |max_tokens| answer_room(&Options { max_tokens, ..Options::default() }, 8192);
        let rooms = [None, Some(7000), Some(8191), Some(8192), Some(32_768)].map(room);
        assert_eq!(rooms, [1024, 7000, 8191, 1024, 1024]);
    }

    #[test]
    fn characters_weigh_by_their_script() {
        for (text, tokens) in [("abcde", 2), ("привет мир", 5), ("日本語", 3), ("é", 1), ("😀", 1)]
        {
            assert_eq!(TextSize::of(text).scaled(1.0), tokens, "{text}");
        }
    }

    #[test]
    fn a_refused_prompt_is_estimated_anew_within_bounds() {
        let estimates = TokenEstimates::default().for_user(&UserId::parse("a").unwrap());
        assert_eq!(estimates.recount("m", 1016, 3016), 1524, "a quarter of the way to three times");
        assert!((estimates.ratio("m") - 1.5).abs() < 1e-9);
        for _ in 0..50 {
            estimates.recount("m", 1016, 1_000_000);
        }
        assert!((estimates.ratio("m") - 4.0).abs() < 1e-9);
    }

    #[test]
    fn the_template_of_a_model_is_learned_from_short_prompts() {
        let estimates = TokenEstimates::default();
        let one = estimates.for_user(&UserId::parse("a").unwrap());
        assert_eq!(one.template("m"), 16);
        one.observe("m", 16 + 7, counted(70));
        assert_eq!(estimates.template("m"), 63);
        one.observe("m", 63 + 1000, counted(5000));
        assert_eq!(estimates.template("m"), 63);
        for _ in 0..50 {
            one.observe("m", estimates.template("m") + 7, counted(1_000_000));
        }
        assert_eq!(estimates.template("m"), 512);
    }
}
