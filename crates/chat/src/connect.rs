//! What `check-config --connect` asks for this service: the model servers and `auth`.

use std::time::Duration;

use common::{
    cli::Finding,
    config::{ProviderKind, Settings},
    shutdown::Shutdown,
};
use jiff::fmt::rfc2822;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::llm::LlmService;

/// How long model servers may take to answer.
const PROBED_WITHIN: Duration = Duration::from_secs(6);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Asks every model server of `llm.providers`, and whether the default model is there.
pub async fn model_servers(settings: &Settings, shutdown: &Shutdown) -> Vec<Finding> {
    let llm = match LlmService::new(&settings.llm, shutdown) {
        Ok(llm) => llm,
        Err(error) => return vec![Finding::new("llm", Err(error.to_string()))],
    };
    let give_up = Instant::now() + PROBED_WITHIN;
    while llm.status().iter().any(|status| status.up.is_none()) && Instant::now() < give_up {
        sleep(LOOK_AGAIN).await;
    }
    let problems = llm.problems();
    let mut findings = Vec::new();
    for status in llm.status() {
        let name = status.provider.as_str();
        let problem = problems.iter().find(|(provider, _)| *provider == status.provider);
        let start = match status.provider {
            ProviderKind::Ollama => "run `ollama serve`",
            _ => "start it",
        };
        let wrong = match (problem, status.up) {
            (Some((_, problem)), _) => Some(problem.reason.clone()),
            (None, Some(true)) => None,
            (None, _) => Some(format!("no answer within {} s", PROBED_WITHIN.as_secs())),
        };
        let advise = |wrong| format!("{wrong}; {start}, or check llm.{name}.base_url");
        let result = wrong.map(advise).map_or_else(|| Ok("it answers".to_owned()), Err);
        findings.push(Finding::new(format!("model server {name}"), result));
    }
    let default = match llm.resolve(None) {
        Ok(route) => Ok(format!("{} serves it", route.provider.as_str())),
        Err(error) => Err(crate::error::explain(&error).1),
    };
    let model = format!("llm.model {}", llm.default_model());
    findings.push(Finding::new(model, default));
    findings
}

/// As [`model_servers`], and `auth` with its clock.
pub async fn model_servers_and_auth(settings: &Settings, shutdown: &Shutdown) -> Vec<Finding> {
    let mut findings = model_servers(settings, shutdown).await;
    if let Some(url) = &settings.chat.auth_url {
        auth(url, &mut findings).await;
    }
    findings
}

async fn auth(url: &Url, findings: &mut Vec<Finding>) {
    let subject = format!("chat.auth_url {url}");
    let asked = async {
        let keys = url.join("/.well-known/jwks.json")?;
        let answer = common::clients::http::auth()?.get(keys).send().await?;
        anyhow::Ok(answer.error_for_status()?)
    };
    match asked.await {
        Ok(answer) => {
            findings.push(Finding::new(subject, Ok("it has its keys".to_owned())));
            let date = answer.headers().get("date");
            let date = date.and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
            if let Some(date) = date {
                findings.push(Finding::of_clock("auth", date.timestamp().as_millisecond()));
            }
        }
        Err(error) => findings.push(Finding::new(
            subject,
            Err(format!(
                "no keys came ({error:#}); start auth, or set the address at which this machine reaches it"
            )),
        )),
    }
}
