//! Reads single settings from the merged layers, and notes every value that is not allowed.

use config::Value;

use super::{
    fields::FieldParser,
    invalid_setting::InvalidSetting,
    layers::{DEFAULT_ORIGIN, Layered, find},
};

/// The merged layers, what was found wrong in them, and what `check-config` prints of them.
pub(super) struct Reader<'a> {
    layered: &'a Layered,
    problems: &'a mut Vec<InvalidSetting>,
    section: String,
    pub(super) printed: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layered: &'a Layered, problems: &'a mut Vec<InvalidSetting>) -> Self {
        Self { layered, problems, section: String::new(), printed: String::new() }
    }

    /// The parsed value of `section.field`, or the fallback where it is wrong.
    pub(super) fn get<T: 'static>(
        &mut self,
        section: &str,
        field: &str,
        parser: FieldParser<T>,
    ) -> Option<T> {
        let name = format!("{section}.{field}");
        let value = find(&self.layered.values, &name);
        let origin = value.and_then(Value::origin);
        match parser.parse(value) {
            Ok(parsed) => {
                if self.section != section {
                    self.section = section.to_owned();
                    self.printed.push_str(&format!("\n[{section}]\n"));
                }
                self.printed.push_str(&format!("{field} = {}", parser.show(value)));
                if let Some(origin) = origin.filter(|origin| *origin != DEFAULT_ORIGIN) {
                    self.printed.push_str(&format!("  # {}", origin.escape_debug()));
                }
                self.printed.push('\n');
                Some(parsed)
            }
            Err(wrong) => {
                let fallback = find(&self.layered.fallback, &name);
                self.problems.push(InvalidSetting::new(name, origin, wrong));
                parser.parse(fallback).ok()
            }
        }
    }
}
