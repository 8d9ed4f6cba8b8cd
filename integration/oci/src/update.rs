//! `update`.

use std::io::Read;

use runtime::process::{Request, UpdateRequest};
use runtime::{Call, Error, Result};
use serde_json::{Value, json};

use crate::args::{Args, Flag, Operands, Takes};
use crate::container::Container;
use crate::{Context, chain};

/// What a flag's value is.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Number,
    /// Bytes, with a letter behind for powers of 1024.
    Bytes,
    Text,
}

/// Flags, and what of `linux.resources` they are.
const LIMITS: [(&str, &str, Unit); 17] = [
    ("blkio-weight", "/blockIO/weight", Unit::Number),
    ("cpu-period", "/cpu/period", Unit::Number),
    ("cpu-quota", "/cpu/quota", Unit::Number),
    ("cpu-burst", "/cpu/burst", Unit::Number),
    ("cpu-share", "/cpu/shares", Unit::Number),
    ("cpu-shares", "/cpu/shares", Unit::Number),
    ("cpu-rt-period", "/cpu/realtimePeriod", Unit::Number),
    ("cpu-rt-runtime", "/cpu/realtimeRuntime", Unit::Number),
    ("cpu-idle", "/cpu/idle", Unit::Number),
    ("cpuset-cpus", "/cpu/cpus", Unit::Text),
    ("cpuset-mems", "/cpu/mems", Unit::Text),
    ("memory", "/memory/limit", Unit::Bytes),
    ("memory-reservation", "/memory/reservation", Unit::Bytes),
    ("memory-swap", "/memory/swap", Unit::Bytes),
    ("kernel-memory", "/memory/kernel", Unit::Bytes),
    ("kernel-memory-tcp", "/memory/kernelTCP", Unit::Bytes),
    ("pids-limit", "/pids/limit", Unit::Number),
];

/// `update [flags] ID`.
pub(crate) fn update(context: &Context, words: Vec<String>) -> Result<()> {
    let limits = LIMITS.iter().map(|(name, ..)| (*name, Takes::Value));
    let known: Vec<Flag> = limits.chain([("resources|r", Takes::Value)]).collect();
    let mut args = Args::parse(words, &known, Operands::Between)?;
    let container = Container::open(&context.root, &args.operand("container id")?)?;
    let resources = match args.value("resources") {
        Some(path) => read(path)?,
        None => of_flags(&args)?.to_string(),
    };
    chain::run(&Request::Update(UpdateRequest { state_dir: container.dir, resources }))
}

fn read(path: &str) -> Result<String> {
    if path != "-" {
        return std::fs::read_to_string(path).call(|| format!("read({path:?})"));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).call(|| "read(stdin)".into())?;
    Ok(text)
}

fn of_flags(args: &Args) -> Result<Value> {
    let mut resources = json!({});
    for (name, place, unit) in LIMITS {
        let Some(text) = args.value(name) else { continue };
        let value = match unit {
            Unit::Number => json!(crate::args::number(name, text)?),
            Unit::Bytes => json!(bytes(name, text)?),
            Unit::Text => json!(text),
        };
        let mut steps = place.trim_start_matches('/').splitn(2, '/');
        if let (Some(group), Some(field)) = (steps.next(), steps.next()) {
            resources[group][field] = value;
        }
    }
    Ok(resources)
}

fn bytes(name: &str, text: &str) -> Result<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase();
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(Error::argument(name, format!("{text:?} is no size"))),
    };
    let number = crate::args::number(name, digits)?;
    let too_large = || Error::argument(name, format!("{text:?} is too large"));
    number.checked_mul(1 << (10 * power)).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_fields_of_the_resources() {
        let known: Vec<Flag> = LIMITS.iter().map(|(name, ..)| (*name, Takes::Value)).collect();
        let line = "--memory 64M --cpu-share 100 --cpuset-cpus 0-1 --memory-swap -1";
        let words = line.split(' ').map(str::to_owned);
        let args = Args::parse(words, &known, Operands::Between).unwrap();
        let expected = json!({
            "memory": {"limit": 64 << 20, "swap": -1},
            "cpu": {"shares": 100, "cpus": "0-1"},
        });
        assert_eq!(of_flags(&args).unwrap(), expected);
    }
}
