//! How reads are spelled for Redis, and what its answers hold.

use std::{collections::HashMap, mem::take};

use redis::{Cmd, FromRedisValue, Value};
use smallvec::{SmallVec, smallvec};

use super::reply::{Failure, checked, unexpected};
use crate::store::{Bytes, Found, Read, Snapshot, StoreError};

/// Commands for all reads and the clock. `as_one`: from MULTI to EXEC.
pub(super) fn commands(reads: &[Read], as_one: bool) -> Vec<Cmd> {
    let mut commands = Vec::with_capacity(reads.len() + 3);
    commands.extend(as_one.then(|| redis::cmd("MULTI")));
    commands.extend(reads.iter().flat_map(commands_of));
    commands.push(redis::cmd("TIME"));
    commands.extend(as_one.then(|| redis::cmd("EXEC")));
    commands
}

/// Whether the reads must be one transaction to see one moment.
pub(super) fn needs_transaction(reads: &[Read]) -> bool {
    match reads {
        [] => false,
        [one] => matches!(one, Read::Newest { before: Some(_), .. }),
        _ => true,
    }
}

/// The commands of a read: one, or two.
pub(super) fn commands_of(read: &Read) -> SmallVec<[Cmd; 2]> {
    smallvec![match read {
        Read::Value(key) => take(redis::cmd("GET").arg(key)),
        Read::Field(key, field) => take(redis::cmd("HGET").arg(key).arg(field)),
        Read::Fields(key) => take(redis::cmd("HGETALL").arg(key)),
        Read::Items { key, start, stop } => {
            take(redis::cmd("LRANGE").arg(key).arg(start).arg(stop))
        }
        Read::Length(key) => take(redis::cmd("LLEN").arg(key)),
        Read::Newest { key, before: None, limit } => newest(key, "+inf", "-inf", *limit),
        Read::Newest { key, before: Some((score, _)), limit } => {
            // Those of the same score are told apart here, by member: Redis cannot page by both.
            let (same, below) = (score.to_string(), format!("({score}"));
            let below = newest(key, &below, "-inf", *limit);
            return smallvec![newest(key, &same, &same, usize::MAX), below];
        }
        Read::Since { key, score, limit } => {
            let mut range = redis::cmd("ZRANGEBYSCORE");
            range.arg(key).arg(score).arg("+inf");
            with_scores(range, *limit)
        }
    }]
}

fn newest(key: &str, max: &str, min: &str, limit: usize) -> Cmd {
    let mut range = redis::cmd("ZREVRANGEBYSCORE");
    range.arg(key).arg(max).arg(min);
    with_scores(range, limit)
}

fn with_scores(mut range: Cmd, limit: usize) -> Cmd {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
    range
}

pub(super) fn snapshot(reads: &[Read], mut values: Vec<Value>) -> Result<Snapshot, StoreError> {
    let now = clock(checked(values.pop())?)?;
    let mut answers = values.into_iter().map(Ok);
    let found = reads.iter().map(|read| found(read, &mut answers));
    Ok(Snapshot { now, found: found.collect::<Result<_, _>>()? })
}

fn clock(value: Value) -> Result<i64, StoreError> {
    let (seconds, micros): (i64, i64) = parsed(value)?;
    Ok(seconds * 1000 + micros / 1000)
}

/// The result of a read, by the answers to its commands, which come next. All of these are taken, also where one is an error: those
/// behind them belong to the next read.
pub(super) fn found(
    read: &Read,
    answers: &mut impl Iterator<Item = Result<Value, Failure>>,
) -> Result<Found, StoreError> {
    let first = answers.next();
    let second = matches!(read, Read::Newest { before: Some(_), .. }).then(|| answers.next());
    let first = checked(first.transpose()?)?;
    Ok(match read {
        Read::Value(_) | Read::Field(..) => {
            Found::Value(parsed::<Option<Vec<u8>>>(first)?.map(Bytes::from))
        }
        Read::Fields(_) => {
            let fields: HashMap<String, Vec<u8>> = parsed(first)?;
            Found::Fields(fields.into_iter().map(|(name, value)| (name, value.into())).collect())
        }
        Read::Items { .. } => {
            Found::Items(parsed::<Vec<Vec<u8>>>(first)?.into_iter().map(Bytes::from).collect())
        }
        Read::Length(_) => Found::Count(parsed(first)?),
        Read::Newest { before: Some((_, after)), limit, .. } => {
            let mut page: Vec<_> =
                members(first)?.into_iter().filter(|(member, _)| member < after).collect();
            page.extend(members(checked(second.flatten().transpose()?)?)?);
            page.truncate(*limit);
            Found::Members(page)
        }
        Read::Newest { .. } | Read::Since { .. } => Found::Members(members(first)?),
    })
}

fn parsed<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    redis::from_redis_value(value).map_err(|_| unexpected())
}

fn members(value: Value) -> Result<Vec<(String, i64)>, StoreError> {
    let members: Vec<(String, f64)> = parsed(value)?;
    Ok(members.into_iter().map(|(member, score)| (member, whole_score(score))).collect())
}

/// Scores are written as whole numbers, exact within ±2^53.
#[expect(clippy::cast_possible_truncation, reason = "whole, and saturating for what is not ours")]
fn whole_score(score: f64) -> i64 {
    score as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leaves_the_answers_of_the_next_read_to_it() {
        let page = Read::Newest { key: "i".into(), before: Some((1, "m".into())), limit: 1 };
        for first in [Err(Failure::Lost("gone".into())), Ok(Value::Okay)] {
            let second = Ok(Value::Array(Vec::new()));
            let next = Ok(Value::BulkString(b"own".to_vec()));
            let mut answers = [first, second, next].into_iter();
            assert!(found(&page, &mut answers).is_err());
            let own = found(&Read::Value("v".into()), &mut answers).unwrap();
            assert_eq!(own, Found::Value(Some("own".into())));
        }
    }
}
