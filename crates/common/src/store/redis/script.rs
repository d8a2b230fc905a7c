//! Transactions as Lua scripts.
//!
//! Each shape of a transaction (which checks, guards and commands, on which of its keys) is a script of its own, which has nothing
//! left to decide, and is given the keys and values. How many there are depends on the code and hardly on what is
//! stored: where a number of items varies, the script is given it.
//!
//! A script is not rolled back when a command fails halfway. So nothing that can fail for the state it finds may come after the first
//! write of a transaction (the rate limit's stands before it): the guards look at types and numbers first. There is no `#!lua` line on purpose: without it Redis refuses for want of
//! memory, for a full disk or as a replica only at the first write, so that a transaction which frees memory passes, and after the
//! first write it refuses no more.

use std::{fmt::Write as _, sync::Arc};

use quick_cache::sync::Cache;
use redis::Script;

use crate::store::plan::KeyType;

/// Most items of one command that are part of the shape.
pub(super) const FEW: usize = 4;

/// At most so many positions (from 1), and 0 for what is left: shapes are compared for every transaction, these without a loop.
pub(super) type Few = [u32; FEW];

/// Scripts that are remembered here; one that is forgotten is made again.
const SCRIPTS: usize = 1000;

/// The caller's rate limit; `said` is what it answers, with what the transaction says behind it.
const ADMIT: &str = concat!(
    include_str!("../admit.lua"),
    "local said=admit(K[1],tonumber(A[1]),tonumber(A[2]),1) if said[1]==0 then return {said,A[#A]} end\n"
);

/// Numbers of at most 15 digits: Lua's are doubles, exact up to 2^53.
const NUMBERS: &str = "\
local function whole(text)
return text=='0' or text:find('^%-?[1-9]%d*$') and (#text<=15 or (#text==16 and text:sub(1,1)=='-'))
end
";

const CORRUPT: &str = "return redis.error_reply('WRONGTYPE a stored value is not a whole number')";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ScriptStep {
    /// Counts the request against the bucket of the first key.
    Admit,
    /// A check or guard, with the next so many arguments.
    Look { look: Look, key: Place, args: usize },
    /// Looks whether fields of a hash hold whole numbers; and, as a check, whether the next argument's field holds the one behind it.
    Numbers { key: usize, fields: usize, checks: bool },
    /// Adds to some of the fields (from 1; 0 for none) that [`Self::Numbers`] has read of that key, and sets others by the next so
    /// many arguments.
    Add { key: usize, fields: Few, set: usize },
    /// A command; `None` arguments: as many as the next argument says.
    Run { name: CommandName, key: usize, more_keys: Few, args: Option<usize> },
    /// Deletes as many keys as the next argument says, from the end of all keys.
    DeleteMany,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Look {
    Absent,
    Exists,
    Equals,
    StartsWith,
    FieldEquals,
    FieldAbsent,
    FieldAtMost,
    LengthIs,
    Before,
    /// A command that fails for a key of another type, and changes nothing.
    IsOf(KeyType),
}

impl Look {
    /// `$k` is its key, `$1` its first argument, `$r` what refuses the transaction, `$c` what says that a number is none.
    fn lua(self) -> &'static str {
        match self {
            Self::Absent => "if c('EXISTS',$k)==1 then $r end",
            Self::Exists => "if c('EXISTS',$k)==0 then $r end",
            Self::Equals => "if c('GET',$k)~=$1 then $r end",
            Self::StartsWith => "if c('GETRANGE',$k,0,#$1-1)~=$1 then $r end",
            Self::FieldEquals => "if c('HGET',$k,$1)~=$2 then $r end",
            Self::FieldAbsent => "if c('HEXISTS',$k,$1)==1 then $r end",
            Self::FieldAtMost => {
                "do local held=c('HGET',$k,$1) or '0' if not whole(held) then $c end \
                 if tonumber(held)>tonumber($2) then $r end end"
            }
            Self::LengthIs => "if c('LLEN',$k)~=tonumber($1) then $r end",
            Self::Before => {
                "do local now=c('TIME') \
                 if now[1]*1000+math.floor(now[2]/1000)>=tonumber($1) then $r end end"
            }
            Self::IsOf(KeyType::Value) => "c('STRLEN',$k)",
            Self::IsOf(KeyType::Hash) => "c('HLEN',$k)",
            Self::IsOf(KeyType::List) => "c('LLEN',$k)",
            Self::IsOf(KeyType::Index) => "c('ZCARD',$k)",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CommandName {
    Set,
    SetFor,
    Del,
    Persist,
    Pexpire,
    Hset,
    Hdel,
    Hincrby,
    Rpush,
    Rpushx,
    Lset,
    Rpop,
    Zadd,
    Zrem,
    Zremrangebyscore,
}

impl CommandName {
    /// The command, and a word that always stands in it, with the argument (from 0) that it stands before.
    pub(super) fn text(self) -> (&'static str, Option<(usize, &'static str)>) {
        let name = match self {
            Self::Set => "SET",
            Self::SetFor => return ("SET", Some((1, "PX"))),
            Self::Del => "DEL",
            Self::Persist => "PERSIST",
            Self::Pexpire => "PEXPIRE",
            Self::Hset => "HSET",
            Self::Hdel => "HDEL",
            Self::Hincrby => "HINCRBY",
            Self::Rpush => "RPUSH",
            Self::Rpushx => "RPUSHX",
            Self::Lset => "LSET",
            Self::Rpop => "RPOP",
            Self::Zadd => "ZADD",
            Self::Zrem => "ZREM",
            Self::Zremrangebyscore => return ("ZREMRANGEBYSCORE", Some((0, "-inf"))),
        };
        (name, None)
    }
}

/// The place of a key: among the keys (from 1), or the next argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Key(usize),
    Argument,
}

/// A script that Redis knows by its hash once it was sent whole.
pub(super) struct StoredScript {
    pub(super) source: String,
    script: Script,
}

impl StoredScript {
    pub(super) fn new(source: String) -> Arc<Self> {
        Arc::new(Self { script: Script::new(&source), source })
    }

    pub(super) fn hash(&self) -> &str {
        self.script.get_hash()
    }
}

/// The scripts of the transactions seen so far.
pub(super) struct Scripts(Cache<Vec<ScriptStep>, Arc<StoredScript>>);

impl Default for Scripts {
    fn default() -> Self {
        Self(Cache::new(SCRIPTS))
    }
}

impl Scripts {
    pub(super) fn of(&self, steps: &[ScriptStep]) -> Arc<StoredScript> {
        self.0.get(steps).unwrap_or_else(|| {
            let script = StoredScript::new(source(steps));
            self.0.insert(steps.to_vec(), Arc::clone(&script));
            script
        })
    }
}

/// The script: answers -1 if everything was done, else the position (from 0) of the first check that did not hold; and behind it the
/// word that is its last argument.
fn source(steps: &[ScriptStep]) -> String {
    let admits = steps.first() == Some(&ScriptStep::Admit);
    let mut lua = Lua { text: String::new(), args: 0, is_moved: false };
    lua.text.push_str("local c,K,A,d,e=redis.call,KEYS,ARGV,0,#KEYS\n");
    let counts = |step: &ScriptStep| match step {
        ScriptStep::Look { look, .. } => *look == Look::FieldAtMost,
        step => matches!(step, ScriptStep::Numbers { .. }),
    };
    if steps.iter().any(counts) {
        lua.text.push_str(NUMBERS);
    }
    let mut checks = 0;
    for step in steps {
        let refuse = match admits {
            true => format!("said[5]={checks} return {{said,A[#A]}}"),
            false => format!("return {{{checks},A[#A]}}"),
        };
        match step {
            ScriptStep::Admit => {
                lua.text.push_str(ADMIT);
                lua.args = 2;
            }
            ScriptStep::Look { look, key, args } => {
                let template = look.lua();
                checks += usize::from(template.contains("$r"));
                lua.look(template, *key, *args, &refuse);
            }
            ScriptStep::Numbers { key, fields, checks: compares } => {
                checks += usize::from(*compares);
                lua.numbers(*key, *fields, compares.then_some(&refuse));
            }
            ScriptStep::Add { key, fields, set } => lua.add(*key, fields, *set),
            ScriptStep::Run { name, key, more_keys, args } => {
                lua.run(*name, [*key].into_iter().chain(positions(more_keys)), *args);
            }
            ScriptStep::DeleteMany => {
                let count = lua.arg();
                let _ = write!(lua.text, "c('DEL',unpack(K,e-{count}+1,e)) e=e-{count}");
            }
        }
        lua.text.push('\n');
    }
    lua.text.push_str(if admits { "said[5]=-1 return {said,A[#A]}" } else { "return {-1,A[#A]}" });
    lua.text
}

fn positions(few: &Few) -> impl Iterator<Item = usize> {
    few.iter().take_while(|at| **at > 0).map(|at| *at as usize)
}

struct Lua {
    text: String,
    /// Arguments that were taken, but for those whose number the script is given: these are counted in `d`.
    args: usize,
    is_moved: bool,
}

impl Lua {
    fn arg(&mut self) -> String {
        self.args += 1;
        let d = if self.is_moved { "d+" } else { "" };
        format!("A[{d}{}]", self.args)
    }

    fn look(&mut self, template: &str, key: Place, args: usize, refuse: &str) {
        let key = match key {
            Place::Key(at) => format!("K[{at}]"),
            Place::Argument => self.arg(),
        };
        let args: Vec<_> = (0..args).map(|_| self.arg()).collect();
        let mut text = template.replace("$k", &key).replace("$r", refuse).replace("$c", CORRUPT);
        for (name, arg) in ["$1", "$2"].into_iter().zip(&args) {
            text = text.replace(name, arg);
        }
        self.text.push_str(&text);
    }

    /// Keeps in variables, for [`Self::add`], the numbers read and the place of the names of their fields.
    fn numbers(&mut self, key: usize, fields: usize, refuse: Option<&String>) {
        let first = self.args;
        let names = fields + usize::from(refuse.is_some());
        let args: Vec<_> = (0..names).map(|_| self.arg()).collect();
        let _ = write!(
            self.text,
            "local n{key},f{key}=c('HMGET',K[{key}],{}),{first} ",
            args.join(",")
        );
        if let Some(refuse) = refuse {
            let held = self.arg();
            let _ = write!(self.text, "if n{key}[{names}]~={held} then {refuse} end ");
        }
        let _ = write!(
            self.text,
            "for i=1,{fields} do if n{key}[i] and not whole(n{key}[i]) then {CORRUPT} end end"
        );
    }

    /// `%.0f`, since not every Redis writes a large number as digits.
    fn add(&mut self, key: usize, fields: &Few, set: usize) {
        let _ = write!(self.text, "c('HSET',K[{key}]");
        for at in positions(fields) {
            let by = self.arg();
            let _ =
                write!(self.text, ",A[f{key}+{at}],string.format('%.0f',(n{key}[{at}] or 0)+{by})");
        }
        for _ in 0..set {
            let arg = self.arg();
            let _ = write!(self.text, ",{arg}");
        }
        self.text.push(')');
    }

    fn run(
        &mut self,
        command: CommandName,
        keys: impl Iterator<Item = usize>,
        args: Option<usize>,
    ) {
        let (name, word) = command.text();
        let mut call = format!("'{name}'");
        for key in keys {
            let _ = write!(call, ",K[{key}]");
        }
        let Some(args) = args else {
            let count = self.arg();
            let first = self.args + 1;
            let _ = write!(
                self.text,
                "c({call},unpack(A,d+{first},d+{}+{count})) d=d+{count}",
                self.args
            );
            self.is_moved = true;
            return;
        };
        for at in 0..args {
            if let Some((_, word)) = word.filter(|(before, _)| *before == at) {
                let _ = write!(call, ",'{word}'");
            }
            let arg = self.arg();
            let _ = write!(call, ",{arg}");
        }
        match command {
            // A position that is not there changes nothing; that is the only thing which can be wrong by now.
            CommandName::Lset => {
                let _ = write!(
                    self.text,
                    "do local r=redis.pcall({call}) if r.err and not r.err:find('no such key') \
                     and not r.err:find('index out of range') then return r end end"
                );
            }
            _ => {
                let _ = write!(self.text, "c({call})");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: CommandName, key: usize, args: Option<usize>) -> ScriptStep {
        ScriptStep::Run { name, key, more_keys: Few::default(), args }
    }

    #[test]
    fn a_shape_is_one_script_that_is_given_keys_and_values() {
        let steps = [
            ScriptStep::Look { look: Look::Equals, key: Place::Key(1), args: 1 },
            ScriptStep::Look { look: Look::IsOf(KeyType::List), key: Place::Key(2), args: 0 },
            ScriptStep::Look { look: Look::Absent, key: Place::Argument, args: 0 },
            ScriptStep::Numbers { key: 3, fields: 2, checks: true },
            run(CommandName::Rpush, 2, None),
            run(CommandName::SetFor, 1, Some(2)),
            ScriptStep::Add { key: 3, fields: [2, 0, 0, 0], set: 2 },
            ScriptStep::DeleteMany,
        ];
        assert_eq!(
            source(&steps),
            format!(
                "local c,K,A,d,e=redis.call,KEYS,ARGV,0,#KEYS\n{NUMBERS}\
                 if c('GET',K[1])~=A[1] then return {{0,A[#A]}} end\n\
                 c('LLEN',K[2])\n\
                 if c('EXISTS',A[2])==1 then return {{1,A[#A]}} end\n\
                 local n3,f3=c('HMGET',K[3],A[3],A[4],A[5]),2 if n3[3]~=A[6] then return {{2,A[#A]}} end \
                 for i=1,2 do if n3[i] and not whole(n3[i]) then {CORRUPT} end end\n\
                 c('RPUSH',K[2],unpack(A,d+8,d+7+A[7])) d=d+A[7]\n\
                 c('SET',K[1],A[d+8],'PX',A[d+9])\n\
                 c('HSET',K[3],A[f3+2],string.format('%.0f',(n3[2] or 0)+A[d+10]),A[d+11],A[d+12])\n\
                 c('DEL',unpack(K,e-A[d+13]+1,e)) e=e-A[d+13]\n\
                 return {{-1,A[#A]}}"
            )
        );
    }
}
