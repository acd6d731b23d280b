//! The configuration file: TOML whose keys are the options of the command line.
//!
//! A value becomes the default of its option, so a flag or an environment variable still wins. A key that no option has
//! is an error that names it, and so is a value that its option would refuse; nothing is ignored.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use megaring_corpus::import::unreadable;
use toml::{Table, Value};

/// The file that is read where no other is named, if it is there.
pub const DEFAULT_FILE: &str = "megaring.toml";

/// Why a file cannot be used; one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError(String);

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileError {}

/// Reads the file that was asked for, or [`DEFAULT_FILE`] of the working directory where there is one, into the
/// command.
///
/// # Errors
/// A file that cannot be read or whose content does not fit the command.
pub fn load(command: Command, asked: Option<PathBuf>) -> Result<Command, FileError> {
    let path = match asked {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).is_file() => PathBuf::from(DEFAULT_FILE),
        None => return Ok(command),
    };
    let name = path.display();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| FileError(format!("the configuration file {}", unreadable(&path, &error))))?;
    install(command, &text).map_err(|FileError(reason)| FileError(format!("the configuration file {name}: {reason}")))
}

/// Puts the values of a TOML text into the command as defaults.
///
/// # Errors
/// No TOML, a key that no option has, a value that its option refuses.
pub fn install(command: Command, text: &str) -> Result<Command, FileError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| FileError(error.to_string()))?;
    install_table(command, &table, &mut Vec::new())
}

/// Whether an option can stand in the file. The file's own name cannot, and help and version are no settings.
#[must_use]
pub fn is_setting(arg: &Arg) -> bool {
    arg.get_long().is_some() && !matches!(arg.get_id().as_str(), "config" | "help" | "version")
}

fn install_table(mut command: Command, table: &Table, path: &mut Vec<String>) -> Result<Command, FileError> {
    for (key, value) in table {
        path.push(key.clone());
        command = match value {
            Value::Table(inner) if command.find_subcommand(key).is_some() => {
                let subcommand = command.find_subcommand(key).cloned().unwrap_or_default();
                let subcommand = install_table(subcommand, inner, path)?;
                command.mut_subcommand(key, |_| subcommand)
            }
            _ => install_value(command, key, value, path)?,
        };
        path.pop();
    }
    Ok(command)
}

fn install_value(command: Command, key: &str, value: &Value, path: &[String]) -> Result<Command, FileError> {
    let dotted = path.join(".");
    let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == key && is_setting(arg)) else {
        return Err(FileError(format!("unknown key {dotted:?}{}", known(&command))));
    };
    let refused = |reason: String| FileError(format!("the key {dotted:?}: {reason}"));
    let text = value_text(arg, value).map_err(refused)?;
    check(&command, arg, &text).map_err(|reason| FileError(format!("the key {dotted:?}: {reason}")))?;
    Ok(command.mut_arg(key, |arg| arg.default_value(text).required(false)))
}

/// What the option would have been given on the command line.
fn value_text(arg: &Arg, value: &Value) -> Result<String, String> {
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    match value {
        Value::Boolean(value) if is_flag => Ok(value.to_string()),
        _ if is_flag => Err("true or false is expected".into()),
        Value::String(value) => Ok(value.clone()),
        Value::Integer(value) => Ok(value.to_string()),
        Value::Float(value) => Ok(value.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err("a text or a number is expected".into())
        }
    }
}

/// Lets the option's own parser judge: clap takes defaults for sound, so it must be asked before.
fn check(command: &Command, arg: &Arg, text: &str) -> Result<(), String> {
    let Some(long) = arg.get_long().filter(|_| arg.get_action().takes_values()) else { return Ok(()) };
    let line = [command.get_name().to_owned(), format!("--{long}={text}")];
    let Err(error) = command.clone().try_get_matches_from(line) else { return Ok(()) };
    let about_this = matches!(error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(name)) if name.split(' ').next() == Some(&format!("--{long}")));
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue if about_this => {
            let reason = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            Err(format!("invalid value {text:?}{reason}"))
        }
        // The line is incomplete, or the environment holds another wrong value, which the real line will tell.
        _ => Ok(()),
    }
}

fn known(command: &Command) -> String {
    let keys: Vec<&str> =
        command.get_arguments().filter(|arg| is_setting(arg)).map(|arg| arg.get_id().as_str()).collect();
    if keys.is_empty() { String::new() } else { format!("; known here: {}", keys.join(", ")) }
}
