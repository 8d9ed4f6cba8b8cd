//! Arguments in the way of the commands that the suites know: `--name value`, `--name=value`,
//! `-n value`, and one dash before a long name as well.

use std::collections::VecDeque;

use runtime::{Error, Result};

/// What an argument brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    Value,
}

/// An argument: its names, with bars between them, the first of which is what it is asked for by.
pub(crate) type Flag = (&'static str, Takes);

/// Where arguments end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operands {
    /// They may be anywhere.
    Between,
    /// What follows the first operand is not ours: another command's arguments.
    Last,
}

/// Arguments, taken apart.
#[derive(Debug)]
pub(crate) struct Args {
    flags: Vec<(&'static str, String)>,
    operands: VecDeque<String>,
}

impl Args {
    /// Takes arguments apart.
    pub(crate) fn parse(
        words: impl IntoIterator<Item = String>,
        known: &[Flag],
        operands: Operands,
    ) -> Result<Args> {
        let mut words = words.into_iter();
        let mut args = Args { flags: Vec::new(), operands: VecDeque::new() };
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }
            let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
                args.operands.push_back(word);
                match operands {
                    Operands::Between => continue,
                    Operands::Last => break,
                }
            };
            args.flag(name.strip_prefix('-').unwrap_or(name), known, &mut words)?;
        }
        args.operands.extend(words);
        Ok(args)
    }

    fn flag(
        &mut self,
        text: &str,
        known: &[Flag],
        words: &mut impl Iterator<Item = String>,
    ) -> Result<()> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let is_it = |(names, _): &&Flag| names.split('|').any(|known| known == name);
        let Some((names, takes)) = known.iter().find(is_it) else {
            return Err(Error::argument(format!("-{name}"), "no such flag"));
        };
        let missing = || Error::argument(format!("-{name}"), "needs a value");
        let value = match (takes, value) {
            (Takes::Nothing, value) => value.unwrap_or_else(|| "true".into()),
            (Takes::Value, Some(value)) => value,
            (Takes::Value, None) => words.next().ok_or_else(missing)?,
        };
        self.flags.push((names.split('|').next().unwrap_or(names), value));
        Ok(())
    }

    /// The last value that was given.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next_back()
    }

    /// All values that were given, in order.
    pub(crate) fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.flags.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Whether it was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }

    /// A value that is a number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>> {
        self.value(name).map(|text| number(name, text)).transpose()
    }

    /// The next operand, which has to be there.
    pub(crate) fn operand(&mut self, what: &str) -> Result<String> {
        self.operands.pop_front().ok_or_else(|| Error::argument(what, "missing"))
    }

    /// The next operand.
    pub(crate) fn optional(&mut self) -> Option<String> {
        self.operands.pop_front()
    }

    /// All other operands.
    pub(crate) fn rest(self) -> Vec<String> {
        self.operands.into()
    }
}

/// A number in decimal.
pub(crate) fn number(name: &str, text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::argument(name, format!("{text:?} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Flag; 3] =
        [("detach|d", Takes::Nothing), ("env|e", Takes::Value), ("preserve-fds", Takes::Value)];

    fn parse(line: &str, operands: Operands) -> Result<Args> {
        Args::parse(line.split(' ').map(str::to_owned), &KNOWN, operands)
    }

    #[test]
    fn flags_have_two_names_and_values_two_forms() {
        let args = parse("-d --env A=1 -e=B=2 c1 -preserve-fds 2", Operands::Between).unwrap();
        assert!(args.has("detach"));
        assert_eq!(args.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(args.number("preserve-fds").unwrap(), Some(2));
        assert_eq!(args.rest(), ["c1"]);
    }

    #[test]
    fn what_follows_the_operand_of_exec_is_another_commands() {
        let args = parse("--detach=false c1 ls -d", Operands::Last).unwrap();
        assert!(!args.has("detach"));
        assert_eq!(args.rest(), ["c1", "ls", "-d"]);
    }

    #[test]
    fn an_unknown_flag_and_a_missing_value_are_errors() {
        assert!(parse("--nope", Operands::Between).is_err());
        assert!(parse("--env", Operands::Between).is_err());
    }
}
