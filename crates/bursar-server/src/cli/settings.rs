//! `bursar config`: an example file, and the configuration in force.

use std::fmt::Write;
use std::path::Path;

use clap::Subcommand;

use super::command_error::CommandError;
use super::configuration::environment;
use crate::cli::terminal;
use crate::cli::terminal::say;
use crate::config::database;
use crate::config::settings::{Config, Origin, SETTINGS, Setting};

/// The width of a line in the example.
const WIDTH: usize = 96;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a configuration file with every setting, its default and its environment variable
    Example,
    /// Read the configuration and print the values in force and where they come from
    Check,
}

pub(super) fn run(file: Option<&Path>, command: &ConfigCommand) -> Result<(), CommandError> {
    let text = match command {
        ConfigCommand::Example => example(),
        ConfigCommand::Check => check(file)?,
    };
    Ok(say(&text)?)
}

/// Every setting, commented out, by section.
fn example() -> String {
    let mut text = String::from(
        "# The settings of Bursar. Each one is shown with what holds when nothing is said; take\n\
         # the first # away to change it. The environment overrides this file. `bursar config check`\n\
         # tells what is in force.\n",
    );
    let mut sections: Vec<&str> = Vec::new();
    for setting in SETTINGS {
        let section = section(setting).0;
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    // In TOML, settings without a section come before all sections.
    sections.sort_by_key(|section| !section.is_empty());
    for head in sections {
        if !head.is_empty() {
            let _ = write!(text, "\n[{head}]\n");
        }
        for setting in SETTINGS.iter().filter(|setting| section(setting).0 == head) {
            push_setting(&mut text, setting);
        }
    }
    text
}

/// The section of a setting and its name in it.
fn section(setting: &Setting) -> (&'static str, &'static str) {
    setting.key.rsplit_once('.').unwrap_or(("", setting.key))
}

fn push_setting(text: &mut String, setting: &Setting) {
    let Setting { env, default, help, .. } = setting;
    text.push('\n');
    let mut line = String::from("#");
    for word in help.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    // Numbers and booleans are written bare, everything else as a string.
    let is_bare = default.parse::<i64>().is_ok() || ["true", "false"].contains(default);
    let value =
        if is_bare { (*default).to_owned() } else { toml::Value::from(*default).to_string() };
    // Writing to a String cannot fail.
    let _ = write!(text, "{line}\n# Environment: {env}\n#{} = {value}\n", section(setting).1);
}

fn check(file: Option<&Path>) -> Result<String, CommandError> {
    // Errors come before any output.
    Config::load(file, environment())?;
    let mut text = String::new();
    for (setting, value, origin) in Config::in_force(file, environment())? {
        let value = match value.as_str() {
            "" => "(nothing)".to_owned(),
            _ if is_secret(setting.key) => "(set)".to_owned(),
            value if setting.key == "database" => database::shown(value),
            value => value.to_owned(),
        };
        let origin = match origin {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => setting.env,
        };
        let _ = writeln!(text, "{} = {}  # {origin}", setting.key, terminal::line(&value));
    }
    Ok(text)
}

/// Whether the value of a setting must be hidden. When in doubt, it is.
fn is_secret(key: &str) -> bool {
    ["token", "secret", "password", "_key"].iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_repository_is_this_one() {
        let known = include_str!("../../../../bursar.example.toml");
        let example = example();
        assert!(known == example, "write it anew: bursar config example > bursar.example.toml");
    }

    #[test]
    fn the_example_with_everything_taken_in_is_the_default() {
        let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let taken: Vec<String> = example()
            .lines()
            .map(|line| if is_setting(line) { line.replacen('#', "", 1) } else { line.to_owned() })
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bursar.toml");
        std::fs::write(&path, taken.join("\n")).expect("written");
        let nothing = || std::iter::empty::<(String, String)>();
        let values = |file: Option<&Path>| {
            let found = Config::in_force(file, nothing()).expect("valid");
            found.into_iter().map(|(setting, value, _)| (setting.key, value)).collect::<Vec<_>>()
        };
        assert_eq!(values(Some(&path)), values(None));
        assert_eq!(taken.iter().filter(|line| line.contains(" = ")).count(), SETTINGS.len());
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        assert!(is_secret("operator_token") && is_secret("secret_key"));
        assert!(!is_secret("listen") && !is_secret("credentials.env_prefixes"));
    }
}
