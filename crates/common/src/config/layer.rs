//! One layer of settings: a file or a set of variables, by the settings' dotted names, checked against those known.

use std::collections::BTreeSet;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::{
    problem::{Problem, nearest},
    variables::Assigned,
};

/// One layer: known settings only, by their dotted names.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) origin: String,
    pub(super) values: Map<String, Value>,
}

impl Layer {
    pub(super) fn of_variables(assigned: Vec<Assigned>) -> Self {
        let value = |a: Assigned| (a.key, Value::new(Some(&a.given.origin), a.given.text));
        Self {
            origin: String::new(),
            values: assigned.into_iter().map(value).collect(),
        }
    }

    pub(super) fn of_table(
        table: &toml::Table,
        origin: &str,
        known: &BTreeSet<String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut layer = Self {
            origin: origin.to_owned(),
            values: Map::new(),
        };
        layer.take(table, "", known, problems);
        layer
    }

    fn take(
        &mut self,
        table: &toml::Table,
        prefix: &str,
        known: &BTreeSet<String>,
        problems: &mut Vec<Problem>,
    ) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            let section = format!("{path}.");
            let is_section = known.iter().any(|known| known.starts_with(&section));
            let wrong = match value {
                _ if known.contains(&path) => match kind(value) {
                    Some(kind) => {
                        self.values
                            .insert(path, Value::new(Some(&self.origin), kind));
                        continue;
                    }
                    None => "a table stands where a value belongs".to_owned(),
                },
                toml::Value::Table(inner) if is_section => {
                    self.take(inner, &section, known, problems);
                    continue;
                }
                _ if is_section => format!("a value stands where the section [{path}] belongs"),
                _ => match nearest(&path, known.iter().map(String::as_str)) {
                    Some(near) => format!("no setting has this name; did you mean {near}?"),
                    None => "no setting has this name".to_owned(),
                },
            };
            problems.push(Problem::new(path, Some(&self.origin), wrong));
        }
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

/// A TOML value as the settings hold it; `None` for a table.
fn kind(value: &toml::Value) -> Option<ValueKind> {
    Some(match value {
        toml::Value::String(text) => ValueKind::String(text.clone()),
        toml::Value::Integer(number) => ValueKind::I64(*number),
        toml::Value::Float(number) => ValueKind::Float(*number),
        toml::Value::Boolean(yes) => ValueKind::Boolean(*yes),
        toml::Value::Datetime(at) => ValueKind::String(at.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<Value>> = items
                .iter()
                .map(|item| Some(Value::new(None, kind(item)?)))
                .collect();
            ValueKind::Array(items?)
        }
        toml::Value::Table(_) => return None,
    })
}
