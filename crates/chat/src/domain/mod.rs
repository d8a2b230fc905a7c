//! The types that all parts of the service share: sessions, messages, turns and their events.

pub mod base64;
pub mod event;
pub mod ids;
pub mod load;
pub mod message;
pub mod options;
pub mod session;
pub mod text_or_list;
pub mod turn;

pub use ids::{MessageId, SessionId, new_incarnation, random_text};
pub use load::{InstanceLoad, Lane, UserLoad};
pub use message::{AnswerInfo, Context, FinishReason, Message, Role, Usage};
pub use options::{Effort, Options, Think};
pub use session::{NewSession, Session, SessionChange};
pub use turn::{
    Ending, IdempotencyKey, IdempotencyRecord, OnDisconnect, OpenTurn, StopReason, TurnInput,
};
