//! What the HTTP handlers need.

use common::{
    config::{LoginMode, Registration},
    identity::Authenticator,
};

use crate::services::{
    accounts::AccountService, api_keys::ApiKeyService, logins::LoginService,
    signing_keys::SigningKeys, tokens::TokenService,
};

pub struct AppState {
    pub accounts: AccountService,
    pub api_keys: ApiKeyService,
    pub logins: LoginService,
    pub tokens: TokenService,
    pub keys: SigningKeys,
    pub authenticator: Authenticator,
    pub login: LoginMode,
    pub registration: Registration,
}
