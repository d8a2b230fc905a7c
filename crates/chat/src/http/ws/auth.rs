//! Who speaks on a socket: the user of its token, or, where login is open, whoever each message says.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Instant};

use common::{
    config::LoginMode,
    errors::{ApiError, Code},
    http::CallerHash,
    identity::{Credential, Identity, Owner, UserId},
    rate_limiter::{Caller, RateLimitTicket},
};

use crate::{
    domain::MessageId,
    error::ChatError,
    http::{
        requests::same_user,
        ws::{
            close::{Close, TOO_MANY, UNAUTHENTICATED},
            permits::SocketPermit,
        },
    },
    state::AppState,
};

pub struct SocketAuth {
    app: Arc<AppState>,
    pub peer: IpAddr,
    pub caller: CallerHash,
    identity: Option<Identity>,
    permit: Option<SocketPermit>,
    /// The turns that were begun here without a token: nobody else's may be touched.
    turns: HashSet<(Owner, MessageId)>,
}

impl SocketAuth {
    pub fn new(app: Arc<AppState>, peer: IpAddr, caller: CallerHash) -> Self {
        Self { app, peer, caller, identity: None, permit: None, turns: HashSet::new() }
    }

    /// Whether a token must come before anything else.
    pub fn must_authenticate(&self) -> bool {
        self.identity.is_none() && self.app.authenticator.login_mode() != LoginMode::Open
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// When the token expires: Unix seconds.
    pub fn expires_at(&self) -> Option<i64> {
        match self.identity.as_ref()?.credential {
            Credential::Token { expires_at, .. } => Some(expires_at),
            Credential::ApiKey { expires_at, .. } => expires_at,
            Credential::Open => None,
        }
    }

    /// Takes a token; a socket stays its user's.
    ///
    /// # Errors
    /// How the socket is closed: the token is another user's, or the user has too many sockets.
    pub fn authenticated(&mut self, identity: Identity) -> Result<(), Close> {
        if self.identity.as_ref().is_some_and(|known| known.owner != identity.owner) {
            return Err(UNAUTHENTICATED);
        }
        if self.permit.is_none() {
            self.permit = Some(self.app.sockets.acquire(&identity.owner).ok_or(TOO_MANY)?);
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// Takes its own identity as it was checked last, so that the next message begins with that.
    pub fn renewed(&mut self, identity: Identity) {
        if let Some(known) = &mut self.identity
            && known.credential == identity.credential
        {
            *known = identity;
        }
    }

    pub fn add_turn(&mut self, owner: &Owner, id: &MessageId) {
        if self.identity.is_none() {
            self.turns.insert((owner.clone(), id.clone()));
        }
    }

    /// Whose turn that is, for a cancel or a resume; counts the frame.
    ///
    /// # Errors
    /// As [`Self::count`]; `message_not_found`.
    pub async fn owner_of(&self, id: &MessageId, deadline: Instant) -> Result<Owner, ApiError> {
        let begun_here = || self.turns.iter().find(|(_, turn)| turn == id).map(|(owner, _)| owner);
        let owner = self.identity.as_ref().map_or_else(begun_here, |known| Some(&known.owner));
        self.count(owner, deadline).await?;
        Ok(owner.cloned().ok_or(ChatError::MessageNotFound)?)
    }

    /// Counts a frame other than a message: by the user whom it concerns, and by address where no token says who speaks.
    ///
    /// # Errors
    /// `rate_limited`, or the store cannot count.
    pub async fn count(&self, owner: Option<&Owner>, deadline: Instant) -> Result<(), ApiError> {
        let by_address = self.identity.is_none().then_some(Caller::Address(self.peer));
        let by_user = owner.cloned().map(Caller::User);
        for caller in by_address.into_iter().chain(by_user) {
            self.app.limiter.ticket(caller).check(deadline).await?;
        }
        Ok(())
    }
}

/// Whom a message belongs to, and the message as it was counted: by address as well as by user where no token says who speaks,
/// lest one address speak for everybody.
pub async fn identify_and_count(
    app: &Arc<AppState>,
    known: Option<Identity>,
    peer: IpAddr,
    user_id: Option<&str>,
    deadline: Instant,
) -> Result<(Identity, RateLimitTicket), ApiError> {
    let identity = match known {
        Some(identity) => {
            same_user(&identity, user_id)?;
            identity
        }
        None => {
            app.limiter.ticket(Caller::Address(peer)).check(deadline).await?;
            let detail = "Send a token in an auth frame, or a user_id where login is open.";
            let user_id = user_id.ok_or_else(|| ApiError::new(Code::MissingToken, detail))?;
            let allowed = "A user id has 1 to 64 of A-Z a-z 0-9 . _ @ -.";
            let wrong = || ApiError::invalid("/user_id", allowed);
            let user = UserId::parse(user_id).ok_or_else(wrong)?;
            app.authenticator.open(user, deadline).await?
        }
    };
    let ticket = app.limiter.ticket(Caller::User(identity.owner.clone()));
    ticket.check(deadline).await?;
    Ok((identity, ticket))
}
