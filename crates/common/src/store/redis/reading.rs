//! How reads are spelled for Redis, and what its answers hold.

use std::collections::HashMap;

use redis::{FromRedisValue, Pipeline, Value};

use super::reply::{checked, unexpected};
use crate::store::{Bytes, Found, Read, Snapshot, StoreError};

/// Redis gives all for a negative number.
const NO_LIMIT: i64 = -1;

/// One pipeline for all reads and the clock, and how many answers each read has. `as_one`: from MULTI to EXEC.
pub(super) fn pipeline(reads: &[Read], as_one: bool) -> (Pipeline, Vec<usize>) {
    let mut pipeline = redis::pipe();
    if as_one {
        pipeline.cmd("MULTI");
    }
    let sizes: Vec<usize> = reads.iter().map(|read| add(&mut pipeline, read)).collect();
    pipeline.cmd("TIME");
    if as_one {
        pipeline.cmd("EXEC");
    }
    (pipeline, sizes)
}

/// Whether the reads must be one transaction to see one moment.
pub(super) fn needs_transaction(reads: &[Read]) -> bool {
    match reads {
        [] => false,
        [one] => matches!(one, Read::Newest { before: Some(_), .. }),
        _ => true,
    }
}

fn add(pipeline: &mut Pipeline, read: &Read) -> usize {
    match read {
        Read::Value(key) => pipeline.cmd("GET").arg(key),
        Read::Fields(key) => pipeline.cmd("HGETALL").arg(key),
        Read::Items { key, start, stop } => pipeline.cmd("LRANGE").arg(key).arg(start).arg(stop),
        Read::Length(key) => pipeline.cmd("LLEN").arg(key),
        Read::Newest { key, before: None, limit } => {
            newest(pipeline, key, "+inf", "-inf", redis_limit(*limit))
        }
        Read::Newest { key, before: Some((score, _)), limit } => {
            // Those of the same score are told apart here, by member: Redis cannot page by both.
            let (same, below) = (score.to_string(), format!("({score}"));
            newest(pipeline, key, &same, &same, NO_LIMIT);
            newest(pipeline, key, &below, "-inf", redis_limit(*limit));
            return 2;
        }
        Read::Since { key, score, limit } => {
            let limit = redis_limit(*limit);
            let range = pipeline.cmd("ZRANGEBYSCORE").arg(key).arg(score).arg("+inf");
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
    limit: i64,
) -> &'a mut Pipeline {
    let range = pipeline.cmd("ZREVRANGEBYSCORE").arg(key).arg(max).arg(min);
    range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit)
}

fn redis_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn snapshot(
    reads: &[Read],
    sizes: &[usize],
    mut values: Vec<Value>,
) -> Result<Snapshot, StoreError> {
    let now = clock(checked(values.pop())?)?;
    let mut values = values.into_iter();
    let mut found = Vec::with_capacity(reads.len());
    for (read, size) in reads.iter().zip(sizes) {
        let first = checked(values.next())?;
        let second = if *size == 2 { Some(checked(values.next())?) } else { None };
        found.push(one(read, first, second)?);
    }
    Ok(Snapshot { now, found })
}

fn clock(value: Value) -> Result<i64, StoreError> {
    let (seconds, micros): (i64, i64) = parsed(value)?;
    Ok(seconds * 1000 + micros / 1000)
}

fn one(read: &Read, first: Value, second: Option<Value>) -> Result<Found, StoreError> {
    Ok(match read {
        Read::Value(_) => Found::Value(parsed::<Option<Vec<u8>>>(first)?.map(Bytes::from)),
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
            if let Some(below) = second {
                page.extend(members(below)?);
            }
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
