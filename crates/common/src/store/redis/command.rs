//! How operations and transactions are spelled for Redis.

use std::{borrow::Cow, hash::BuildHasher as _, time::Duration};

use foldhash::fast::FixedState;
use redis::Cmd;
use smallvec::{SmallVec, smallvec};

use super::script::{
    CommandName::{self, *},
    FEW, Few, Look, Place, ScriptStep,
};
use crate::store::{
    Bucket, Bytes, Check, Op, StoreError, Txn,
    plan::{self, Precondition, family},
};

pub(super) type Arg<'a> = Cow<'a, [u8]>;

/// Most arguments of one command that was joined from several: Lua's stack holds 8,000.
const JOINED: usize = 1000;

/// The longest time to live, 100 years: Redis refuses what overflows its clock.
const LONGEST_TTL: u128 = 100 * 366 * 24 * 60 * 60 * 1000;

/// One command; of HINCRBY also several with the same key, which only a script joins.
pub(super) struct RedisCommand<'a> {
    name: CommandName,
    key: &'a str,
    /// Further keys, of DEL alone.
    more_keys: Vec<&'a str>,
    args: SmallVec<[Arg<'a>; 2]>,
}

fn text(text: &str) -> Arg<'_> {
    Cow::Borrowed(text.as_bytes())
}

fn number<'a>(number: impl std::fmt::Display) -> Arg<'a> {
    Cow::Owned(number.to_string().into_bytes())
}

/// The commands of an operation that stands alone. PERSIST says whether there was an expiry, not whether there was a key: EXISTS stands
/// before it.
pub(super) fn independent(op: &Op) -> SmallVec<[Cmd; 2]> {
    let command = RedisCommand::of(op).packed();
    match op {
        Op::Expire(key, None) => smallvec![std::mem::take(redis::cmd("EXISTS").arg(key)), command],
        _ => smallvec![command],
    }
}

/// The place of one of the few keys or fields that are part of a shape.
fn short(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn millis<'a>(ttl: Duration) -> Arg<'a> {
    number(ttl.as_millis().clamp(1, LONGEST_TTL))
}

impl<'a> RedisCommand<'a> {
    pub(super) fn of(op: &'a Op) -> Self {
        let (name, args): (_, SmallVec<[_; 2]>) = match op {
            Op::Set { value, ttl: None, .. } => (Set, smallvec![Cow::Borrowed(&value[..])]),
            Op::Set { value, ttl: Some(ttl), .. } => {
                (SetFor, smallvec![Cow::Borrowed(&value[..]), millis(*ttl)])
            }
            Op::Delete(_) => (Del, smallvec![]),
            Op::Expire(_, None) => (Persist, smallvec![]),
            Op::Expire(_, Some(ttl)) => (Pexpire, smallvec![millis(*ttl)]),
            Op::FieldSet(_, field, value) => {
                (Hset, smallvec![text(field), Cow::Borrowed(&value[..])])
            }
            Op::FieldDelete(_, field) => (Hdel, smallvec![text(field)]),
            Op::FieldAdd(_, field, by) => (Hincrby, smallvec![text(field), number(by)]),
            Op::Push(_, item) => (Rpush, smallvec![Cow::Borrowed(&item[..])]),
            Op::PushExisting(_, item) => (Rpushx, smallvec![Cow::Borrowed(&item[..])]),
            Op::ItemSet(_, at, item) => (Lset, smallvec![number(at), Cow::Borrowed(&item[..])]),
            Op::Pop(_) => (Rpop, smallvec![]),
            Op::MemberSet(_, member, score) => (Zadd, smallvec![number(score), text(member)]),
            Op::MemberDelete(_, member) => (Zrem, smallvec![text(member)]),
            Op::MembersBelow(_, score) => {
                (Zremrangebyscore, smallvec![number(format_args!("({score}"))])
            }
        };
        Self { name, key: op.key(), more_keys: Vec::new(), args }
    }

    pub(super) fn packed(&self) -> Cmd {
        let (name, word) = self.name.text();
        let mut cmd = redis::cmd(name);
        cmd.arg(self.key).arg(&self.more_keys);
        for (at, arg) in self.args.iter().enumerate() {
            if let Some((_, word)) = word.filter(|(before, _)| *before == at) {
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
                Del => self.more_keys.len() < JOINED,
                Hset | Hdel | Hincrby | Rpush | Zadd | Zrem => {
                    self.key == next.key && self.args.len() < JOINED
                }
                _ => false,
            };
        if joins {
            self.more_keys.extend((self.name == Del).then_some(next.key));
            self.args.append(&mut next.args);
        }
        joins
    }
}

/// A transaction as Redis takes it: what the script of its shape does, and what that is given.
#[derive(Default)]
pub(super) struct ScriptCall<'a> {
    pub(super) steps: Vec<ScriptStep>,
    keys: Vec<&'a str>,
    /// Of each of these keys: most of a key is the same in all, so that comparing hashes is faster.
    hashes: Vec<u64>,
    /// Of [`ScriptStep::DeleteMany`], which takes them from the end.
    last_keys: Vec<&'a str>,
    pub(super) args: Vec<Arg<'a>>,
    /// Numbers that were looked at: their key, and their fields; `None` for one that was changed since.
    numbers: Vec<(usize, Vec<Option<&'a [u8]>>)>,
}

impl<'a> ScriptCall<'a> {
    /// Given a `bucket`, the rate limit counts the request first.
    pub(super) fn of(txn: &'a Txn, bucket: Option<&'a Bucket>) -> Result<Self, StoreError> {
        let (mut call, size) = (Self::default(), txn.checks.len() + txn.ops.len() + 1);
        call.steps.reserve(2 * size);
        call.keys.reserve(size);
        call.hashes.reserve(size);
        call.args.reserve(3 * size);
        if let Some(bucket) = bucket {
            call.key(&bucket.key);
            call.args.extend([number(bucket.quota.burst()), number(bucket.quota.step())]);
            call.steps.push(ScriptStep::Admit);
        }
        let (first, mut guards) = (txn.ops.first(), plan::guards(txn)?);
        for check in &txn.checks {
            if !call.check_beside_numbers(check, &mut guards) {
                call.check(check, first.map(|op| family(op.key())));
            }
        }
        // Where the first operation fails for its key's type, nothing is done yet.
        let typed = first.filter(|op| op.needs().is_some()).map(Op::key);
        for guard in guards {
            if !matches!(&guard, Precondition::KeyType(key, _) if Some(*key) == typed) {
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
        let hash = FixedState::default().hash_one(key);
        let mut known = self.keys.iter().zip(&self.hashes);
        let known = known.position(|(known, of)| *of == hash && *known == key);
        known.unwrap_or_else(|| {
            self.keys.push(key);
            self.hashes.push(hash);
            self.keys.len() - 1
        }) + 1
    }

    /// A key of another family than the caller writes to is not among `keys`: EVALSHA asks for leave to write to all of these, and
    /// what one service writes the other may only read.
    fn check(&mut self, check: &'a Check, own: Option<&str>) {
        let is_own = |own| check.key().strip_prefix(own).is_some_and(|rest| rest.starts_with(':'));
        let key = match own {
            Some(own) if !is_own(own) => {
                self.args.push(text(check.key()));
                Place::Argument
            }
            _ => Place::Key(self.key(check.key())),
        };
        let (look, args): (_, SmallVec<[_; 2]>) = match check {
            Check::Absent(_) => (Look::Absent, smallvec![]),
            Check::Exists(_) => (Look::Exists, smallvec![]),
            Check::Equals(_, value) => (Look::Equals, smallvec![Cow::Borrowed(&value[..])]),
            Check::StartsWith(_, start) => (Look::StartsWith, smallvec![Cow::Borrowed(&start[..])]),
            Check::FieldEquals(_, field, value) => {
                (Look::FieldEquals, smallvec![text(field), Cow::Borrowed(&value[..])])
            }
            Check::FieldAbsent(_, field) => (Look::FieldAbsent, smallvec![text(field)]),
            Check::FieldAtMost(_, field, most) => {
                (Look::FieldAtMost, smallvec![text(field), number(most)])
            }
            Check::LengthIs(_, length) => (Look::LengthIs, smallvec![number(length)]),
            Check::Before(_, time) => (Look::Before, smallvec![number(time)]),
        };
        self.steps.push(ScriptStep::Look { look, key, args: args.len() });
        self.args.extend(args);
    }

    /// A command that fails for a key of another type changes nothing.
    fn guard(&mut self, guard: Precondition<'a>) {
        let step = match guard {
            Precondition::KeyType(key, kind) => {
                ScriptStep::Look { look: Look::IsOf(kind), key: Place::Key(self.key(key)), args: 0 }
            }
            Precondition::Numbers(key, fields) => return self.numbers(key, fields, None),
        };
        self.steps.push(step);
    }

    /// Reads what is checked of a hash together with the numbers that a guard looks at; `false` where there are none.
    fn check_beside_numbers(
        &mut self,
        check: &'a Check,
        guards: &mut Vec<Precondition<'a>>,
    ) -> bool {
        let Check::FieldEquals(key, field, value) = check else { return false };
        let at = guards
            .iter()
            .position(|guard| matches!(guard, Precondition::Numbers(of, _) if of == key));
        let Some(Precondition::Numbers(key, fields)) = at.map(|at| guards.remove(at)) else {
            return false;
        };
        self.numbers(key, fields, Some((field, value)));
        true
    }

    fn numbers(&mut self, key: &'a str, fields: Vec<&'a str>, check: Option<(&'a str, &'a Bytes)>) {
        let (key, count) = (self.key(key), fields.len());
        self.args.extend(fields.iter().copied().map(text));
        let compared = check.map(|(field, value)| [text(field), Cow::Borrowed(&value[..])]);
        self.args.extend(compared.into_iter().flatten());
        let known = fields.into_iter().map(|field| Some(field.as_bytes()));
        self.numbers.push((key, known.collect()));
        self.steps.push(ScriptStep::Numbers { key, fields: count, checks: check.is_some() });
    }

    fn command(&mut self, command: RedisCommand<'a>) {
        let RedisCommand { name, key, more_keys, args } = command;
        if more_keys.len() > FEW {
            self.args.push(number(more_keys.len() + 1));
            self.last_keys.push(key);
            self.last_keys.extend(more_keys);
            self.steps.push(ScriptStep::DeleteMany);
            return;
        }
        let key = self.key(key);
        match self.steps.last_mut() {
            _ if name == Hincrby => return self.add(key, &args),
            Some(ScriptStep::Add { key: added, set: set @ 0, .. })
                if name == Hset && *added == key && args.len() <= FEW =>
            {
                *set = args.len();
                self.args.extend(args);
                return;
            }
            _ => {}
        }
        let mut positions = Few::default();
        for (position, key) in positions.iter_mut().zip(more_keys) {
            *position = short(self.key(key));
        }
        let count = (args.len() <= FEW).then_some(args.len());
        if count.is_none() {
            self.args.push(number(args.len()));
        }
        self.args.extend(args);
        self.steps.push(ScriptStep::Run { name, key, more_keys: positions, args: count });
    }

    /// Adds to fields: to what the guard has read of them, where it has.
    fn add(&mut self, key: usize, args: &[Arg<'a>]) {
        let known = self.numbers.iter().position(|(of, _)| *of == key);
        let (_, mut fields) = known.map(|at| self.numbers.swap_remove(at)).unwrap_or_default();
        let added = args.chunks_exact(2).map(|pair| {
            let at = fields.iter().position(|known| *known == Some(pair[0].as_ref()))?;
            fields[at] = None;
            Some(at)
        });
        match added.collect::<Option<Vec<_>>>() {
            Some(added) if added.len() <= FEW => {
                self.args.extend(args.iter().skip(1).step_by(2).cloned());
                let mut fields = Few::default();
                for (field, at) in fields.iter_mut().zip(added) {
                    *field = short(at + 1);
                }
                self.steps.push(ScriptStep::Add { key, fields, set: 0 });
            }
            _ => {
                for pair in args.chunks_exact(2) {
                    self.args.extend_from_slice(pair);
                    let (more_keys, args) = (Few::default(), Some(2));
                    self.steps.push(ScriptStep::Run { name: Hincrby, key, more_keys, args });
                }
            }
        }
    }
}
