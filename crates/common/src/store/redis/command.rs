//! How operations and transactions are spelled for Redis.

use std::{borrow::Cow, time::Duration};

use redis::Cmd;

use crate::store::{
    Bucket, Check, Op, Txn,
    plan::{KeyType, Precondition, family},
};

pub(super) type Arg<'a> = Cow<'a, [u8]>;

/// Most arguments of one command that was joined from several: Lua's stack holds 8,000.
const JOINED: usize = 1000;

/// The longest time to live, 100 years: Redis refuses what overflows its clock.
const LONGEST_TTL: u128 = 100 * 366 * 24 * 60 * 60 * 1000;

pub(super) struct RedisCommand<'a> {
    name: &'static str,
    key: &'a str,
    args: Vec<Arg<'a>>,
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
        let (name, args) = match op {
            Op::Set { value, ttl: None, .. } => ("SET", vec![Cow::Borrowed(&value[..])]),
            Op::Set { value, ttl: Some(ttl), .. } => {
                ("SET", vec![Cow::Borrowed(&value[..]), text("PX"), millis(*ttl)])
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
                ("ZREMRANGEBYSCORE", vec![text("-inf"), number(format_args!("({score}"))])
            }
        };
        Self { name, key: op.key(), args }
    }

    pub(super) fn packed(&self) -> Cmd {
        let mut cmd = redis::cmd(self.name);
        cmd.arg(self.key);
        for arg in &self.args {
            cmd.arg(arg.as_ref());
        }
        cmd
    }

    /// Takes the next command in, if the two are one for Redis.
    fn join(&mut self, next: &mut RedisCommand<'a>) -> bool {
        let joins = self.name == next.name
            && self.key == next.key
            && matches!(self.name, "HSET" | "HDEL" | "RPUSH" | "ZADD" | "ZREM")
            && self.args.len() < JOINED;
        if joins {
            self.args.append(&mut next.args);
        }
        joins
    }
}

/// A transaction as `commit.lua` takes it.
pub(super) struct ScriptArgs<'a> {
    pub(super) keys: Vec<&'a str>,
    pub(super) args: Vec<Arg<'a>>,
}

impl<'a> ScriptArgs<'a> {
    pub(super) fn of(txn: &'a Txn, guards: &[Precondition<'a>]) -> Self {
        let mut flat =
            Self { keys: Vec::new(), args: vec![number(txn.checks.len()), number(guards.len())] };
        let own = txn.ops.first().map(|op| family(op.key()));
        for check in &txn.checks {
            flat.check(check, own);
        }
        for guard in guards {
            flat.guard(guard);
        }
        let mut open: Option<RedisCommand<'a>> = None;
        for op in &txn.ops {
            let mut next = RedisCommand::of(op);
            if open.as_mut().is_some_and(|command| command.join(&mut next)) {
                continue;
            }
            if let Some(command) = open.replace(next) {
                flat.command(command);
            }
        }
        if let Some(command) = open {
            flat.command(command);
        }
        flat
    }

    pub(super) fn bucket(&mut self, bucket: &'a Bucket) {
        self.keys.push(&bucket.key);
        self.args.extend([number(bucket.quota.burst()), number(bucket.quota.step())]);
    }

    /// A key of another family than the caller writes to is not among `keys`: EVALSHA asks for leave to write to all of these, and
    /// what one service writes the other may only read.
    fn check(&mut self, check: &'a Check, own: Option<&str>) {
        let (name, args) = match check {
            Check::Absent(_) => ("absent", vec![]),
            Check::Exists(_) => ("exists", vec![]),
            Check::Equals(_, value) => ("equals", vec![Cow::Borrowed(&value[..])]),
            Check::FieldEquals(_, field, value) => {
                ("field", vec![text(field), Cow::Borrowed(&value[..])])
            }
            Check::FieldAbsent(_, field) => ("nofield", vec![text(field)]),
            Check::FieldAtMost(_, field, most) => ("atmost", vec![text(field), number(most)]),
            Check::LengthIs(_, length) => ("length", vec![number(length)]),
            Check::Before(_, time) => ("before", vec![number(time)]),
        };
        match own {
            Some(own) if family(check.key()) != own => {
                self.args.extend([text("other"), text(check.key())]);
            }
            _ => self.keys.push(check.key()),
        }
        self.args.push(text(name));
        self.args.extend(args);
    }

    fn guard(&mut self, guard: &Precondition<'a>) {
        match guard {
            Precondition::KeyType(key, kind) => {
                self.keys.push(key);
                self.args.push(text(match kind {
                    KeyType::Value => "string",
                    KeyType::Hash => "hash",
                    KeyType::List => "list",
                    KeyType::Index => "zset",
                }));
            }
            Precondition::Numbers(key, fields) => {
                self.keys.push(key);
                self.args.extend([text("numbers"), number(fields.len())]);
                self.args.extend(fields.iter().copied().map(text));
            }
        }
    }

    fn command(&mut self, command: RedisCommand<'a>) {
        self.keys.push(command.key);
        self.args.extend([text(command.name), number(command.args.len())]);
        self.args.extend(command.args);
    }
}
