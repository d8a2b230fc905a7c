#!/usr/bin/env bash
# The end-to-end tests of several instances again: with Sentinels and with a Redis Cluster in the place of the one Redis, and on one
# Redis with `concurrency_scope = "shared"`. Left out are those that freeze, kill or look into the one server. docs/long-tests.md
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --workspace --bins --locked

tests=(
  auth::revocation auth::rotation
  chat::accounts chat::cancel chat::completion_recovery chat::concurrency chat::disconnect chat::idempotency chat::instance_failure
  chat::kill_restart chat::multi_instance chat::openai_streams chat::rate_limit chat::remote_watchers chat::resume
  chat::shared_concurrency chat::subscribers chat::turn_order chat::websocket_limits
)
one_server=(
  a_frozen_store a_redis_killed a_stop_while_the_store_is_frozen a_store_that_dies a_turn_whose_acceptance_was_not_heard
  large_accounts_are_erased_soon the_store_did_not_take_in_time three_hundred_watchers waiting_instances_ask_the_store
  what_readers_were_told_stays_true where_the_store_has_lost_events
)
skipped=(--skip embedded --skip in_memory)
run() {
  cargo test --workspace --locked --test e2e -- "${skipped[@]}" "$@" "${tests[@]}"
}
TEST_SETTINGS=llm.ollama.concurrency_scope=shared run
for name in "${one_server[@]}"; do skipped+=(--skip "$name"); done
# Each test starts six servers of its own.
TEST_REDIS=sentinel run --test-threads=4
TEST_REDIS=cluster run --test-threads=4
