//! Problems with settings: each has the name, the origin of the value, and what is allowed.

use std::fmt;

/// One wrong setting. Its text never holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The setting's dotted name (`auth.login`), or a variable's or file's name where no setting is meant.
    pub setting: String,
    /// The file or variable that it came from; `None` where nothing sets it.
    pub origin: Option<String>,
    pub wrong: String,
}

impl InvalidSetting {
    pub(super) fn new(
        setting: impl Into<String>,
        origin: Option<&str>,
        wrong: impl Into<String>,
    ) -> Self {
        Self { setting: setting.into(), origin: origin.map(str::to_owned), wrong: wrong.into() }
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.setting.clone();
        if let Some(origin) = self.origin.as_deref().filter(|origin| *origin != self.setting) {
            line.push_str(&format!(" (from {origin})"));
        }
        line.push_str(": ");
        line.push_str(&self.wrong);
        // One line a problem, whatever a file or a variable put into it.
        for c in line.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// Every problem that the settings have, in the order of the layers and then of the schema. Never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct InvalidSettings(pub Vec<InvalidSetting>);

/// The known name nearest to one that is not known, if any is near.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    known
        .map(|candidate| {
            let whole = strsim::levenshtein(name, candidate);
            // A right name in the wrong section is near, too.
            let is_misplaced = last(name) == last(candidate);
            let near = if is_misplaced { whole.min(2) } else { whole };
            (near, whole, candidate)
        })
        .min()
        .filter(|(near, _, candidate)| *near <= candidate.len() / 3)
        .map(|(_, _, candidate)| candidate)
}
