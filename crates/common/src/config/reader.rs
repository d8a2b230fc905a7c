//! Reads single settings from the merged layers, and notes every value that is not allowed.

use std::collections::BTreeMap;

use config::Value;

use super::{fields::FieldParser, invalid_setting::InvalidSetting, layers::DEFAULT_ORIGIN};

/// The merged layers, what was found wrong in them, and what `check-config` prints of them.
pub(super) struct Reader<'a> {
    values: &'a BTreeMap<String, Value>,
    /// Where every value is good: one of these stands in for a wrong one, so that the rest can be checked, too.
    fallback: &'a BTreeMap<String, Value>,
    problems: &'a mut Vec<InvalidSetting>,
    section: String,
    pub(super) printed: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        values: &'a BTreeMap<String, Value>,
        fallback: &'a BTreeMap<String, Value>,
        problems: &'a mut Vec<InvalidSetting>,
    ) -> Self {
        Self {
            values,
            fallback,
            problems,
            section: String::new(),
            printed: String::new(),
        }
    }

    /// The parsed value of `section.field`, or the fallback where it is wrong.
    pub(super) fn get<T: 'static>(
        &mut self,
        section: &str,
        field: &str,
        parser: FieldParser<T>,
    ) -> Option<T> {
        let name = format!("{section}.{field}");
        let value = self.values.get(&name);
        let origin = value.and_then(Value::origin);
        match parser.parse(value) {
            Ok(parsed) => {
                if self.section != section {
                    self.section = section.to_owned();
                    self.printed.push_str(&format!("\n[{section}]\n"));
                }
                self.printed
                    .push_str(&format!("{field} = {}", parser.show(value)));
                if let Some(origin) = origin.filter(|origin| *origin != DEFAULT_ORIGIN) {
                    self.printed
                        .push_str(&format!("  # {}", origin.escape_debug()));
                }
                self.printed.push('\n');
                Some(parsed)
            }
            Err(wrong) => {
                let fallback = self.fallback.get(&name);
                self.problems.push(InvalidSetting::new(name, origin, wrong));
                parser.parse(fallback).ok()
            }
        }
    }
}
