//! Loading: layers, reading, rules; either settings or every problem.

use std::{collections::BTreeMap, fmt};

use super::{
    Binary, Environment, Settings, layers,
    problem::{Problem, Problems},
    read::{Reader, Shown},
    rules,
};

/// The settings, and what `check-config` prints of them.
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    shown: Vec<Shown>,
}

impl Settings {
    /// The settings of a binary in this environment (the process's variables, by value), or every problem they have.
    ///
    /// Reads the files that the variables name (`CONFIG_DIR`, `NAME_FILE`) and, in production, the modes of the signing keys.
    pub fn load(binary: Binary, variables: &BTreeMap<String, String>) -> Result<Self, Problems> {
        Loaded::load(binary, variables).map(|loaded| loaded.settings)
    }
}

impl Loaded {
    /// As [`Settings::load`], keeping where each value came from.
    pub fn load(binary: Binary, variables: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let layered = layers::collect(binary, variables, &mut problems);
        let mut reader = Reader::new(&layered.values, &layered.fallback, &mut problems);
        let settings = reader.settings(layered.environment);
        let shown = reader.shown;
        let Some(settings) = settings else {
            return Err(Problems(problems));
        };
        for (setting, wrong) in rules::broken(&settings, binary) {
            // Something stands in for a value that is wrong by itself: no more is to be said of it.
            if problems.iter().any(|problem| problem.setting == setting) {
                continue;
            }
            let origin = layered.values.get(setting).and_then(|value| value.origin());
            problems.push(Problem::new(setting, origin, wrong));
        }
        if problems.is_empty() {
            Ok(Self { settings, shown })
        } else {
            Err(Problems(problems))
        }
    }
}

/// The effective settings as TOML, secrets masked, with where each value that is not a default came from.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# ENVIRONMENT = {}", self.settings.environment)?;
        let mut section = "";
        for shown in &self.shown {
            if shown.section != section {
                section = &shown.section;
                writeln!(f, "\n[{section}]")?;
            }
            write!(f, "{} = {}", shown.field, shown.value)?;
            if !shown.origin.is_empty() && shown.origin != layers::DEFAULT_ORIGIN {
                write!(f, "  # {}", shown.origin.escape_debug())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Stg => "stg",
            Self::Prod => "prod",
        })
    }
}
