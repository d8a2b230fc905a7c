//! OpenTelemetry's own variables. Its SDK reads them, and takes a default for what it does not understand; here that is a problem, as
//! with every setting.

use std::collections::BTreeMap;

use config::Value;

use super::{FieldParser, MASK, ParseError, count, flag, from_str, http_url, pair};
use crate::config::InvalidSetting;

/// Adds what is wrong with those that concern traces. An empty one sets nothing.
pub(in crate::config) fn check_otel(
    variables: &BTreeMap<String, String>,
    problems: &mut Vec<InvalidSetting>,
) {
    for (name, text) in variables.iter().filter(|(_, text)| !text.is_empty()) {
        let value = Some(&Value::new(Some(name), text.as_str()));
        let wrong = match name.replace("_OTLP_TRACES_", "_OTLP_").as_str() {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => http_url().parse(value).err(),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => one_of("http/protobuf").parse(value).err(),
            "OTEL_EXPORTER_OTLP_COMPRESSION" => one_of("gzip").parse(value).err(),
            "OTEL_EXPORTER_OTLP_HEADERS" | "OTEL_RESOURCE_ATTRIBUTES" => {
                pair("name=value").list().masked(|_| MASK.to_owned()).parse(value).err()
            }
            "OTEL_EXPORTER_OTLP_TIMEOUT"
            | "OTEL_BSP_MAX_QUEUE_SIZE"
            | "OTEL_BSP_SCHEDULE_DELAY" => count::<u64>().parse(value).err(),
            "OTEL_TRACES_EXPORTER" => one_of("otlp, none").parse(value).err(),
            "OTEL_TRACES_SAMPLER" => one_of(
                "always_on, always_off, traceidratio, \
                 parentbased_always_on, parentbased_always_off, parentbased_traceidratio",
            )
            .parse(value)
            .err(),
            "OTEL_TRACES_SAMPLER_ARG" => ratio().parse(value).err(),
            "OTEL_SDK_DISABLED" => flag().parse(value).err(),
            "OTEL_EXPORTER_OTLP_CERTIFICATE"
            | "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
            | "OTEL_EXPORTER_OTLP_CLIENT_KEY" => {
                Some("it is not supported: the system's certificates are used".to_owned())
            }
            _ => None,
        };
        problems.extend(wrong.map(|wrong| InvalidSetting::new(name, None, wrong)));
    }
}

fn one_of(texts: &'static str) -> FieldParser<()> {
    FieldParser::of_text(format!("one of {texts}"), |text| {
        texts.split(", ").any(|one| one == text).then_some(()).ok_or(ParseError::NotAllowed)
    })
}

fn ratio() -> FieldParser<f64> {
    let wrong = "it is not from 0 to 1";
    FieldParser::of_text("a number from 0 to 1", from_str)
        .and(wrong, |ratio| (0.0..=1.0).contains(ratio))
}
