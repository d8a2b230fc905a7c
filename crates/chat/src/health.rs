//! The readiness of the service.

use common::{http::health::Health, identity::Authenticator, shutdown::Shutdown, store::Store};

use crate::llm::LlmService;

/// The checks of `/readyz`. Model servers are reported, and do not affect readiness.
pub(crate) fn build(
    store: Store,
    authenticator: Authenticator,
    llm: LlmService,
    shutdown: Shutdown,
) -> Health {
    Health::builder("Chat", shutdown)
        .store(store)
        .gate("keys", move || {
            let has_keys = authenticator.has_keys();
            async move { if has_keys { Ok(()) } else { Err("none from auth yet".into()) } }
        })
        .report("llm", move || {
            let problems = llm.problems();
            std::future::ready(if problems.is_empty() {
                Ok(())
            } else {
                Err(problems.join("; ").into())
            })
        })
        .build()
}
