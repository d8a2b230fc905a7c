//! The readiness of the service.

use std::time::Duration;

use common::{
    http::{CheckFailure, health::Health},
    identity::Authenticator,
    shutdown::Shutdown,
    store::{Eviction, Store},
};

use crate::llm::LlmService;

/// The checks of `/readyz`. Model servers are reported, and do not affect readiness.
pub(crate) fn build(
    store: Store,
    authenticator: Authenticator,
    llm: LlmService,
    shutdown: Shutdown,
) -> Health {
    let eviction = Eviction::watch(store.clone(), &shutdown);
    Health::new("Chat", shutdown)
        .gate("store", move || {
            let store = store.by(std::time::Instant::now() + Duration::from_millis(400));
            async move {
                store
                    .ping()
                    .await
                    .map_err(|error| CheckFailure::of_store(&error))
            }
        })
        .gate("keys", move || {
            let has_keys = authenticator.has_keys();
            async move {
                if has_keys {
                    Ok(())
                } else {
                    Err("none from auth yet".into())
                }
            }
        })
        .report("eviction", move || {
            std::future::ready(eviction.check().map_err(Into::into))
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
