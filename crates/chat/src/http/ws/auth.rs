//! Who speaks on a socket: the user of its token, or, where login is open, whoever each message says.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use common::{
    config::LoginMode,
    errors::{ApiError, Code},
    identity::{Identity, Owner, UserId},
    rate_limiter::{Caller, RateLimitTicket},
};

use crate::{
    domain::MessageId,
    http::ws::{expires_at, permits::SocketPermit},
    state::AppState,
};

/// What the handshake brought.
#[derive(Debug)]
pub enum Handshake {
    /// A good token.
    Known(Identity),
    /// A bad one.
    Refused,
    /// None.
    Open,
}

/// Why a socket is closed for want of a auth: 4401, or 4429.
#[derive(Debug)]
pub enum AuthFailure {
    /// The token is missing, wrong or revoked.
    Unauthenticated,
    /// The user has too many sockets.
    TooMany,
}

/// Who speaks on a socket.
pub struct SocketAuth {
    app: Arc<AppState>,
    peer: IpAddr,
    refused: bool,
    identity: Option<Identity>,
    permits: Vec<SocketPermit>,
    /// The turns that were turns here without a token: nobody else's may be touched.
    turns: HashSet<(Owner, MessageId)>,
}

impl SocketAuth {
    /// The auth that a handshake names.
    pub fn new(app: Arc<AppState>, peer: IpAddr, handshake: Handshake) -> Self {
        let (identity, refused) = match handshake {
            Handshake::Known(identity) => (Some(identity), false),
            Handshake::Refused => (None, true),
            Handshake::Open => (None, false),
        };
        Self {
            app,
            peer,
            refused,
            identity,
            permits: Vec::new(),
            turns: HashSet::new(),
        }
    }

    /// Takes the socket's place among the user's.
    pub fn acquire(&mut self) -> Result<(), AuthFailure> {
        if self.refused {
            return Err(AuthFailure::Unauthenticated);
        }
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        self.acquire_for(&identity.owner.clone())
    }

    fn acquire_for(&mut self, owner: &Owner) -> Result<(), AuthFailure> {
        if self.permits.iter().any(|permit| permit.owner() == owner) {
            return Ok(());
        }
        self.permits.push(
            self.app
                .sockets
                .acquire(owner)
                .ok_or(AuthFailure::TooMany)?,
        );
        Ok(())
    }

    /// Whether a token must come before anything else.
    pub fn must_authenticate(&self) -> bool {
        self.identity.is_none() && self.app.authenticator.login_mode() != LoginMode::Open
    }

    /// The token's identity.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// When the token expires: Unix seconds.
    pub fn expires_at(&self) -> Option<i64> {
        self.identity
            .as_ref()
            .and_then(|identity| expires_at(&identity.credential))
    }

    /// Takes a new token; a socket stays its user's.
    pub fn authenticated(&mut self, identity: Identity) -> Result<(), AuthFailure> {
        if self
            .identity
            .as_ref()
            .is_some_and(|known| known.owner != identity.owner)
        {
            return Err(AuthFailure::Unauthenticated);
        }
        self.acquire_for(&identity.owner)?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Remembers a turn that was turns here.
    pub fn add_turn(&mut self, owner: &Owner, id: &MessageId) {
        if self.identity.is_none() {
            self.turns.insert((owner.clone(), id.clone()));
        }
    }

    /// Whose turn that may be, for a cancel or a resume.
    pub fn owner_of(&self, id: &MessageId) -> Option<Owner> {
        match &self.identity {
            Some(identity) => Some(identity.owner.clone()),
            None => self
                .turns
                .iter()
                .find(|(_, turns)| turns == id)
                .map(|(owner, _)| owner.clone()),
        }
    }

    /// Where the socket comes from.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }
}

/// Whom a message belongs to, and the message as it was counted: by address as well as by user where no token says who speaks,
/// lest one address speak for everybody.
pub async fn identify_and_count(
    app: &Arc<AppState>,
    known: Option<Identity>,
    peer: IpAddr,
    user_id: Option<&str>,
    deadline: std::time::Instant,
) -> Result<(Identity, RateLimitTicket), ApiError> {
    if known.is_none() {
        let call = app.limiter.ticket(Caller::Address(peer));
        call.check(deadline).await?;
    }
    let identity = identity_for(app, known, user_id, deadline).await?;
    let call = app.limiter.ticket(Caller::User(identity.owner.clone()));
    call.check(deadline).await?;
    Ok((identity, call))
}

async fn identity_for(
    app: &Arc<AppState>,
    known: Option<Identity>,
    user_id: Option<&str>,
    deadline: std::time::Instant,
) -> Result<Identity, ApiError> {
    if let Some(identity) = known {
        crate::http::requests::same_user(&identity, user_id)?;
        return Ok(identity);
    }
    let Some(user_id) = user_id else {
        return Err(ApiError::new(
            Code::MissingToken,
            "Send a token in an auth frame, or a user_id where login is open.",
        ));
    };
    let wrong = || ApiError::invalid("/user_id", "A user id has 1 to 64 of A-Z a-z 0-9 . _ @ -.");
    app.authenticator
        .open(UserId::parse(user_id).ok_or_else(wrong)?, deadline)
        .await
        .map_err(ApiError::from)
}
