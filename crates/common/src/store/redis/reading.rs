//! How reads are spelled for Redis, and what its answers hold.

use std::collections::HashMap;

use redis::{Pipeline, Value};

use super::reply::{checked, unexpected};
use crate::store::{Bytes, Found, Read, Snapshot, StoreError};

/// One pipeline for all reads and the clock, and how many answers each read has. More than one command is one
/// transaction if they are to be `at_one_moment`.
pub(super) fn pipeline(reads: &[Read], at_one_moment: bool) -> (Pipeline, Vec<usize>) {
    let mut pipeline = redis::pipe();
    let sizes: Vec<usize> = reads.iter().map(|read| add(&mut pipeline, read)).collect();
    if at_one_moment && pipeline.len() > 1 {
        pipeline.atomic();
    }
    pipeline.cmd("TIME");
    (pipeline, sizes)
}

fn add(pipeline: &mut Pipeline, read: &Read) -> usize {
    match read {
        Read::Value(key) => pipeline.cmd("GET").arg(key),
        Read::Fields(key) => pipeline.cmd("HGETALL").arg(key),
        Read::Items { key, start, stop } => pipeline.cmd("LRANGE").arg(key).arg(start).arg(stop),
        Read::Length(key) => pipeline.cmd("LLEN").arg(key),
        Read::Newest {
            key,
            before: None,
            limit,
        } => newest(pipeline, key, "+inf", "-inf", Some(*limit)),
        Read::Newest {
            key,
            before: Some((score, _)),
            limit,
        } => {
            // Those of the same score are told apart here, by member: Redis cannot page by both.
            let (same, below) = (score.to_string(), format!("({score}"));
            newest(pipeline, key, &same, &same, None);
            newest(pipeline, key, &below, "-inf", Some(*limit));
            return 2;
        }
        Read::Since { key, score, limit } => {
            let limit = redis_limit(*limit);
            let range = pipeline
                .cmd("ZRANGEBYSCORE")
                .arg(key)
                .arg(score)
                .arg("+inf");
            range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit)
        }
    };
    1
}

fn newest<'a>(
    pipeline: &'a mut Pipeline,
    key: &str,
    max: &str,
    min: &str,
    limit: Option<usize>,
) -> &'a mut Pipeline {
    let range = pipeline
        .cmd("ZREVRANGEBYSCORE")
        .arg(key)
        .arg(max)
        .arg(min)
        .arg("WITHSCORES");
    match limit {
        Some(limit) => range.arg("LIMIT").arg(0).arg(redis_limit(limit)),
        None => range,
    }
}

fn redis_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Reads the answers of [`pipeline`].
pub(super) fn snapshot(
    reads: &[Read],
    sizes: &[usize],
    mut values: Vec<Value>,
) -> Result<Snapshot, StoreError> {
    // A transaction answers with one array of all replies.
    if !sizes.is_empty()
        && let [Value::Array(_)] = values.as_slice()
        && let Some(Value::Array(transaction)) = values.pop()
    {
        values = transaction;
    }
    let now = clock(checked(values.pop())?)?;
    let mut values = values.into_iter();
    let mut found = Vec::with_capacity(reads.len());
    for (read, size) in reads.iter().zip(sizes) {
        let first = checked(values.next())?;
        let second = if *size == 2 {
            Some(checked(values.next())?)
        } else {
            None
        };
        found.push(one(read, first, second)?);
    }
    Ok(Snapshot { now, found })
}

fn clock(value: Value) -> Result<i64, StoreError> {
    let (seconds, micros): (i64, i64) = redis::from_redis_value(value).map_err(|_| unexpected())?;
    Ok(seconds * 1000 + micros / 1000)
}

fn one(read: &Read, first: Value, second: Option<Value>) -> Result<Found, StoreError> {
    Ok(match read {
        Read::Value(_) => Found::Value(match first {
            Value::Nil => None,
            value => Some(bytes(value)?),
        }),
        Read::Fields(_) => Found::Fields(fields(first)?),
        Read::Items { .. } => Found::Items(
            array(first)?
                .into_iter()
                .map(bytes)
                .collect::<Result<_, _>>()?,
        ),
        Read::Length(_) => match first {
            Value::Int(length) => Found::Count(u64::try_from(length).unwrap_or(0)),
            _ => return Err(unexpected()),
        },
        Read::Newest {
            before: Some((_, after)),
            limit,
            ..
        } => {
            let mut page: Vec<_> = members(first)?
                .into_iter()
                .filter(|(member, _)| member < after)
                .collect();
            if let Some(below) = second {
                page.extend(members(below)?);
            }
            page.truncate(*limit);
            Found::Members(page)
        }
        Read::Newest { .. } | Read::Since { .. } => Found::Members(members(first)?),
    })
}

fn bytes(value: Value) -> Result<Bytes, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into()),
        Value::Okay => Ok(Bytes::from_static(b"OK")),
        _ => Err(unexpected()),
    }
}

fn name(value: Value) -> Result<String, StoreError> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes)
            .map_err(|_| StoreError::Corrupt("a stored name is not text".into())),
        _ => Err(unexpected()),
    }
}

fn array(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(unexpected()),
    }
}

fn fields(value: Value) -> Result<HashMap<String, Bytes>, StoreError> {
    match value {
        Value::Map(pairs) => pairs
            .into_iter()
            .map(|(field, value)| Ok((name(field)?, bytes(value)?)))
            .collect(),
        _ => Err(unexpected()),
    }
}

fn members(value: Value) -> Result<Vec<(String, i64)>, StoreError> {
    let member = |pair| match <[Value; 2]>::try_from(array(pair)?) {
        Ok([member, Value::Double(score)]) => Ok((name(member)?, whole_score(score))),
        _ => Err(unexpected()),
    };
    array(value)?.into_iter().map(member).collect()
}

/// Scores are written as whole numbers, exact within ±2^53.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole, and saturating for what is not ours"
)]
fn whole_score(score: f64) -> i64 {
    score as i64
}
