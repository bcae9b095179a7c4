//! Exit codes, and the one line that says what was wrong.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use lapidary_models::ModelError;
use lapidary_models::checkpoint::CheckpointError;

use crate::output::OutputClosed;
use crate::recipe::RecipeError;

/// A call that cannot be carried out, whatever the files say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Of arguments that do not parse, or ask for help.
pub fn of_call(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => of_error(&error.into()),
            _ => ExitCode::SUCCESS,
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(2)
        }
        _ => {
            // What follows, the usage, is what `--help` shows.
            let text = error.to_string();
            let message = text.split("\n\nUsage:").next().unwrap_or(&text);
            let message = message.split("\n\nFor more information").next().unwrap_or(message);
            let message = message.trim().replace("\n\n", "; ");
            let words: Vec<&str> = message.split_whitespace().collect();
            say(words.join(" ").trim_start_matches("error: "));
            ExitCode::from(2)
        }
    }
}

/// Of a command that failed.
pub fn of_error(error: &anyhow::Error) -> ExitCode {
    // The reader has what it wanted: `lapidary inspect FOLDER | head` is no failure.
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    say(&one_line(error));
    ExitCode::from(if is_usage(error) { 2 } else { 1 })
}

/// The messages from the outermost to the cause.
fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let checkpoint = match cause.downcast_ref() {
            Some(ModelError::Checkpoint(error)) => Some(error),
            _ => cause.downcast_ref(),
        };
        // A server that does not answer is no fault of the recipe.
        let recipe = cause.downcast_ref().is_some_and(|error| !matches!(error, RecipeError::Remote(_)));
        cause.is::<Usage>() || recipe || checkpoint.is_some_and(CheckpointError::is_config)
    })
}

/// Prints the line. Messages may quote what files say, so control characters are made visible.
fn say(message: &str) {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let message: String = message.chars().map(escape).collect();
    // With standard error closed there is no one left to tell; the exit code still does.
    let _ = writeln!(io::stderr(), "error: {message}");
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_joined_on_one_line() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Err::<(), _>(cause).context("cannot read a.toml").context("recipe").unwrap_err();
        assert_eq!(one_line(&error), "recipe: cannot read a.toml: no such file");
        assert!(!is_usage(&error));
    }

    #[test]
    fn a_bad_call_is_told_from_a_failure_through_any_context() {
        let error = anyhow::Error::from(Usage::new("--seed: too large")).context("bench");
        assert!(is_usage(&error));
    }
}
