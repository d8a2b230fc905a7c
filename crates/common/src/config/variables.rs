//! Settings from environment variables: well-known names, `CHATBOT__SECTION__KEY`, and `NAME_FILE` for each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use config::{Map, Value, ValueKind};

use super::{
    invalid_setting::{InvalidSetting, nearest},
    ollama_host,
};

/// The environment of the process, by value.
pub(super) type Variables = BTreeMap<String, String>;

/// The settings that one layer gives, by their dotted names.
pub(super) type Layer = Map<String, Value>;

const PREFIX: &str = "CHATBOT__";
const FILE: &str = "_FILE";

/// In bytes; a device or a pipe has no end.
const MAX_FILE: u64 = 64 * 1024;

/// Variables that people already have in their environment, and the setting of each.
const WELL_KNOWN: [(&str, &str); 6] = [
    ("REDIS_URL", "store.url"),
    ("OLLAMA_HOST", "llm.ollama.base_url"),
    ("OPENAI_BASE_URL", "llm.openai.base_url"),
    ("OPENAI_API_KEY", "llm.openai.api_key"),
    ("HF_TOKEN", "llm.huggingface.api_key"),
    ("RUST_LOG", "telemetry.log_filter"),
];

/// What a variable holds, which is always a text.
pub(super) fn text(given: &Value) -> &str {
    match &given.kind {
        ValueKind::String(text) => text,
        _ => "",
    }
}

/// The variable, from itself or from the file that `NAME_FILE` names. Problems name `setting`.
pub(super) fn get(
    all: &Variables,
    name: &str,
    setting: &str,
    problems: &mut Vec<InvalidSetting>,
) -> Option<Value> {
    let file_name = format!("{name}{FILE}");
    let text = all.get(name);
    let file = all.get(&file_name).filter(|path| !path.is_empty());
    match (text, file) {
        (Some(text), Some(_)) if !text.is_empty() => {
            let wrong = format!("{name} and {file_name} are both set; set one of them");
            problems.push(InvalidSetting::new(setting, Some(name), wrong));
            None
        }
        (_, Some(path)) => match content(Path::new(path)) {
            Ok(text) => Some(Value::new(Some(&file_name), text)),
            Err(error) => {
                let wrong = format!("cannot read the file {path:?}: {error}");
                problems.push(InvalidSetting::new(setting, Some(&file_name), wrong));
                None
            }
        },
        (text, None) => text.map(|text| Value::new(Some(&name.to_owned()), text.as_str())),
    }
}

/// What the well-known names set. An empty one sets nothing.
pub(super) fn well_known(all: &Variables, problems: &mut Vec<InvalidSetting>) -> Layer {
    let mut layer = Layer::new();
    for (name, key) in WELL_KNOWN {
        let given = get(all, name, key, problems);
        let Some(mut given) = given.filter(|given| !text(given).trim().is_empty()) else {
            continue;
        };
        if name == "OLLAMA_HOST" {
            let Some(url) = ollama_host::base_url(text(&given)) else {
                let wrong = "not an address of Ollama; allowed: host, host:port, http://host:port/path or https://…";
                problems.push(InvalidSetting::new(key, Some(name), wrong));
                continue;
            };
            given.kind = url.into();
        }
        layer.insert(key.to_owned(), given);
    }
    layer
}

/// What `CHATBOT__SECTION__KEY` sets; names of that look which mean no setting are problems.
pub(super) fn prefixed(
    all: &Variables,
    known: &BTreeSet<String>,
    problems: &mut Vec<InvalidSetting>,
) -> Layer {
    let names: BTreeMap<String, &String> = known.iter().map(|key| (variable(key), key)).collect();
    let mut layer = Layer::new();
    for (name, key) in &names {
        if let Some(given) = get(all, name, key, problems) {
            layer.insert((*key).clone(), given);
        }
    }
    for name in all.keys() {
        let plain = name.strip_suffix(FILE).unwrap_or(name);
        if looks_like_ours(plain, &names) && !names.contains_key(plain) {
            problems.push(unknown(name, plain, &names));
        }
    }
    layer
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Whether a name is meant for us: `CHATBOT__…` in any case, and a known name with wrong underscores. Others that
/// only begin like it are left alone: Kubernetes sets `CHATBOT_SERVICE_HOST` and its like by itself.
fn looks_like_ours(name: &str, known: &BTreeMap<String, &String>) -> bool {
    let upper = name.to_ascii_uppercase();
    let squeezed = |name: &str| name.replace('_', "");
    upper.starts_with("CHATBOT_")
        && (upper.contains("__") || known.keys().any(|known| squeezed(known) == squeezed(&upper)))
}

fn unknown(name: &str, plain: &str, known: &BTreeMap<String, &String>) -> InvalidSetting {
    let mut wrong = "no setting has this name".to_owned();
    // What all names begin with would make any of them near.
    let (upper, part) = (plain.to_ascii_uppercase(), PREFIX.trim_end_matches('_'));
    let rest = upper.strip_prefix(part).unwrap_or(&upper).trim_start_matches('_');
    if let Some(near) = nearest(rest, known.keys().filter_map(|key| key.strip_prefix(PREFIX))) {
        let file = if name == plain { "" } else { FILE };
        wrong.push_str(&format!("; did you mean {PREFIX}{near}{file}?"));
    }
    InvalidSetting::new(name, None, wrong)
}

/// A file's text without one trailing newline: what a secret mounted as a file means.
fn content(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        let wrong = format!("it has more than {MAX_FILE} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, wrong));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
