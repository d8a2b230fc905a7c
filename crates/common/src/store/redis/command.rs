//! How operations and transactions are spelled for Redis.

use std::{borrow::Cow, time::Duration};

use redis::Cmd;

use super::script::{FEW, Place, Step};
use crate::store::{
    Bucket, Check, Op, StoreError, Txn,
    plan::{self, KeyType, Precondition, family},
};

pub(super) type Arg<'a> = Cow<'a, [u8]>;

/// Most arguments of one command that was joined from several: Lua's stack holds 8,000.
const JOINED: usize = 1000;

/// The longest time to live, 100 years: Redis refuses what overflows its clock.
const LONGEST_TTL: u128 = 100 * 366 * 24 * 60 * 60 * 1000;

pub(super) struct RedisCommand<'a> {
    pub(super) name: &'static str,
    pub(super) key: &'a str,
    /// Further keys, of DEL alone.
    pub(super) more_keys: Vec<&'a str>,
    pub(super) args: Vec<Arg<'a>>,
    /// A word that always stands there, and before which of the arguments.
    pub(super) word: Option<(usize, &'static str)>,
}

fn text(text: &str) -> Arg<'_> {
    Cow::Borrowed(text.as_bytes())
}

fn number<'a>(number: impl std::fmt::Display) -> Arg<'a> {
    Cow::Owned(number.to_string().into_bytes())
}

fn millis<'a>(ttl: Duration) -> Arg<'a> {
    number(ttl.as_millis().clamp(1, LONGEST_TTL))
}

impl<'a> RedisCommand<'a> {
    pub(super) fn of(op: &'a Op) -> Self {
        let mut word = None;
        let (name, args) = match op {
            Op::Set { value, ttl: None, .. } => ("SET", vec![Cow::Borrowed(&value[..])]),
            Op::Set { value, ttl: Some(ttl), .. } => {
                word = Some((1, "PX"));
                ("SET", vec![Cow::Borrowed(&value[..]), millis(*ttl)])
            }
            Op::Delete(_) => ("DEL", vec![]),
            Op::Expire(_, None) => ("PERSIST", vec![]),
            Op::Expire(_, Some(ttl)) => ("PEXPIRE", vec![millis(*ttl)]),
            Op::FieldSet(_, field, value) => ("HSET", vec![text(field), Cow::Borrowed(&value[..])]),
            Op::FieldDelete(_, field) => ("HDEL", vec![text(field)]),
            Op::FieldAdd(_, field, by) => ("HINCRBY", vec![text(field), number(by)]),
            Op::Push(_, item) => ("RPUSH", vec![Cow::Borrowed(&item[..])]),
            Op::PushExisting(_, item) => ("RPUSHX", vec![Cow::Borrowed(&item[..])]),
            Op::ItemSet(_, at, item) => ("LSET", vec![number(at), Cow::Borrowed(&item[..])]),
            Op::Pop(_) => ("RPOP", vec![]),
            Op::MemberSet(_, member, score) => ("ZADD", vec![number(score), text(member)]),
            Op::MemberDelete(_, member) => ("ZREM", vec![text(member)]),
            Op::MembersBelow(_, score) => {
                word = Some((0, "-inf"));
                ("ZREMRANGEBYSCORE", vec![number(format_args!("({score}"))])
            }
        };
        Self { name, key: op.key(), more_keys: Vec::new(), args, word }
    }

    pub(super) fn packed(&self) -> Cmd {
        let mut cmd = redis::cmd(self.name);
        cmd.arg(self.key).arg(&self.more_keys);
        for (at, arg) in self.args.iter().enumerate() {
            if let Some((_, word)) = self.word.filter(|(before, _)| *before == at) {
                cmd.arg(word);
            }
            cmd.arg(arg.as_ref());
        }
        cmd
    }

    /// Takes the next command in, if the two are one for Redis.
    fn join(&mut self, next: &mut RedisCommand<'a>) -> bool {
        let joins = self.name == next.name
            && match self.name {
                "DEL" => self.more_keys.len() < JOINED,
                "HSET" | "HDEL" | "RPUSH" | "ZADD" | "ZREM" => {
                    self.key == next.key && self.args.len() < JOINED
                }
                _ => false,
            };
        if joins {
            self.more_keys.extend((self.name == "DEL").then_some(next.key));
            self.args.append(&mut next.args);
        }
        joins
    }
}

/// A transaction as Redis takes it: what the script of its shape does, and what that is given.
#[derive(Default)]
pub(super) struct ScriptCall<'a> {
    pub(super) steps: Vec<Step>,
    keys: Vec<&'a str>,
    /// Of [`Step::DeleteMany`], which takes them from the end.
    last_keys: Vec<&'a str>,
    pub(super) args: Vec<Arg<'a>>,
}

impl<'a> ScriptCall<'a> {
    /// Given a `bucket`, the rate limit counts the request first.
    pub(super) fn of(txn: &'a Txn, bucket: Option<&'a Bucket>) -> Result<Self, StoreError> {
        let mut call = Self::default();
        if let Some(bucket) = bucket {
            call.keys.push(&bucket.key);
            call.args.extend([number(bucket.quota.burst()), number(bucket.quota.step())]);
            call.steps.push(Step::Admit);
        }
        let first = txn.ops.first();
        for check in &txn.checks {
            call.check(check, first.map(|op| family(op.key())));
        }
        // Where the first operation fails for its key's type, nothing is done yet.
        let typed = first.filter(|op| op.needs().is_some()).map(Op::key);
        for guard in &plan::guards(txn)? {
            if !matches!(guard, Precondition::KeyType(key, _) if Some(*key) == typed) {
                call.guard(guard);
            }
        }
        let mut open: Option<RedisCommand<'a>> = None;
        for op in &txn.ops {
            let mut next = RedisCommand::of(op);
            if open.as_mut().is_some_and(|command| command.join(&mut next)) {
                continue;
            }
            if let Some(command) = open.replace(next) {
                call.command(command);
            }
        }
        if let Some(command) = open {
            call.command(command);
        }
        Ok(call)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.keys.iter().chain(self.last_keys.iter().rev()).copied()
    }

    /// The place of a key among those of the script, from 1.
    fn key(&mut self, key: &'a str) -> usize {
        let known = self.keys.iter().position(|known| *known == key);
        known.unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        }) + 1
    }

    /// A key of another family than the caller writes to is not among `keys`: EVALSHA asks for leave to write to all of these, and
    /// what one service writes the other may only read.
    fn check(&mut self, check: &'a Check, own: Option<&str>) {
        let key = match own {
            Some(own) if family(check.key()) != own => {
                self.args.push(text(check.key()));
                Place::Argument
            }
            _ => Place::Key(self.key(check.key())),
        };
        let (lua, args) = match check {
            Check::Absent(_) => ("if c('EXISTS',$k)==1 then $r end", vec![]),
            Check::Exists(_) => ("if c('EXISTS',$k)==0 then $r end", vec![]),
            Check::Equals(_, value) => {
                ("if c('GET',$k)~=$1 then $r end", vec![Cow::Borrowed(&value[..])])
            }
            Check::FieldEquals(_, field, value) => {
                ("if c('HGET',$k,$1)~=$2 then $r end", vec![text(field), Cow::Borrowed(&value[..])])
            }
            Check::FieldAbsent(_, field) => {
                ("if c('HEXISTS',$k,$1)==1 then $r end", vec![text(field)])
            }
            Check::FieldAtMost(_, field, most) => (
                "do local held=c('HGET',$k,$1) or '0' if not whole(held) then return corrupt end \
                 if tonumber(held)>tonumber($2) then $r end end",
                vec![text(field), number(most)],
            ),
            Check::LengthIs(_, length) => {
                ("if c('LLEN',$k)~=tonumber($1) then $r end", vec![number(length)])
            }
            Check::Before(_, time) => (
                "do local now=c('TIME') \
                 if now[1]*1000+math.floor(now[2]/1000)>=tonumber($1) then $r end end",
                vec![number(time)],
            ),
        };
        self.steps.push(Step::Look { lua, key, args: args.len() });
        self.args.extend(args);
    }

    /// A command that fails for a key of another type changes nothing.
    fn guard(&mut self, guard: &Precondition<'a>) {
        let (lua, key, fields) = match guard {
            Precondition::KeyType(key, KeyType::Value) => ("c('STRLEN',$k)", key, &[][..]),
            Precondition::KeyType(key, KeyType::Hash) => ("c('HLEN',$k)", key, &[][..]),
            Precondition::KeyType(key, KeyType::List) => ("c('LLEN',$k)", key, &[][..]),
            Precondition::KeyType(key, KeyType::Index) => ("c('ZCARD',$k)", key, &[][..]),
            Precondition::Numbers(key, fields) => (
                "for _,held in ipairs(c('HMGET',$k,$*)) do \
                 if held and not whole(held) then return corrupt end end",
                key,
                &fields[..],
            ),
        };
        let key = Place::Key(self.key(key));
        self.steps.push(Step::Look { lua, key, args: fields.len() });
        self.args.extend(fields.iter().copied().map(text));
    }

    fn command(&mut self, command: RedisCommand<'a>) {
        let RedisCommand { name, key, more_keys, args, word } = command;
        if more_keys.len() > FEW {
            self.args.push(number(more_keys.len() + 1));
            self.last_keys.push(key);
            self.last_keys.extend(more_keys);
            self.steps.push(Step::DeleteMany);
            return;
        }
        let keys = std::iter::once(key).chain(more_keys).map(|key| self.key(key)).collect();
        let count = (args.len() <= FEW).then_some(args.len());
        if count.is_none() {
            self.args.push(number(args.len()));
        }
        self.args.extend(args);
        self.steps.push(Step::Run { name, keys, args: count, word });
    }
}
