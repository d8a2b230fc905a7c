//! What one server is asked in one round trip, and what of its answers is the answer.

use redis::{Cmd, Pipeline, Value};

use super::{
    replication::Step,
    reply::{self, Failure},
};

/// What goes to one server in one round trip.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    /// A script that answers with two values, of which the second is the word that it was given last.
    Script(&'a Cmd, &'a str),
    /// Independent commands; each has an answer of its own, which may be an error.
    Each(&'a [Cmd]),
    Bulk(&'a [Cmd]),
    /// Commands from MULTI to EXEC; the answer is EXEC's.
    Transaction(&'a [Cmd]),
    /// A write that counts once every replica has it.
    Replicated(Step<'a>),
}

/// The commands of a request, and the word behind them.
pub(super) fn pipeline(
    request: Request<'_>,
    asking: bool,
    word: &str,
) -> Result<Pipeline, Failure> {
    let each = matches!(request, Request::Each(_) | Request::Bulk(_));
    let commands = match request {
        Request::One(command) | Request::Script(command, _) => std::slice::from_ref(command),
        Request::Each(commands) | Request::Bulk(commands) | Request::Transaction(commands) => {
            commands
        }
        // Sent like the others, it would count before a replica has it.
        Request::Replicated(_) => return Err(reply::unexpected().into()),
    };
    let mut pipeline = Pipeline::with_capacity(commands.len() + 1);
    for (n, command) in commands.iter().enumerate() {
        // ASKING holds for one command, or until EXEC.
        if asking && (each || n == 0) {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(command.clone());
    }
    pipeline.cmd("PING").arg(word);
    Ok(pipeline)
}

/// What a request is answered by, of all that its pipeline was answered by.
pub(super) fn answers(
    request: Request<'_>,
    asking: bool,
    mut values: Vec<Value>,
) -> Result<Vec<Value>, Failure> {
    let failed = values.iter().find_map(reply::failed);
    match (request, failed) {
        (Request::Each(_) | Request::Bulk(_), _) if asking => {
            Ok(values.into_iter().skip(1).step_by(2).collect())
        }
        (Request::Each(_) | Request::Bulk(_), _) => Ok(values),
        // What is wrong with a command of a transaction says more than EXEC does.
        (_, Some(failure)) => Err(failure),
        (Request::Transaction(_), None) => match values.pop() {
            Some(Value::Array(answers)) => Ok(answers),
            _ => Err(reply::unexpected().into()),
        },
        (_, None) => Ok(values.pop().into_iter().collect()),
    }
}
