//! The example file with all settings. The tests generate the table in docs/operating.md.

use std::fmt::Write;

use super::setting::Setting;

/// The longest line of the example.
const WIDTH: usize = 96;

/// Every setting, commented out, by section.
pub(crate) fn example(settings: &[Setting]) -> String {
    let mut text = String::from(
        "# All settings of Bursar with their defaults. To change one, remove the # before it. The\n\
         # environment overrides this file. It separates the items of a list by commas.\n\
         # `bursar config check` prints the settings in force.\n",
    );
    let mut sections: Vec<&str> = Vec::new();
    for setting in settings {
        let section = setting.section_and_name().0;
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    // In TOML, settings without a section come first.
    sections.sort_by_key(|section| !section.is_empty());
    for head in sections {
        if !head.is_empty() {
            let _ = write!(text, "\n[{head}]\n");
        }
        let is_here = |setting: &&Setting| setting.section_and_name().0 == head;
        settings.iter().filter(is_here).for_each(|setting| push_setting(&mut text, setting));
    }
    text
}

fn push_setting(text: &mut String, setting: &Setting) {
    text.push('\n');
    let mut line = String::from("#");
    for word in setting.help().split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let (name, value) = (setting.section_and_name().1, setting.default_value());
    // Writing to a String cannot fail.
    let _ = write!(text, "{line}\n# Environment: {}\n#{name} = {value}\n", setting.env());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::settings::{Config, settings};

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    const WRITE: &str = "BURSAR_WRITE_SETTINGS";
    const COMMAND: &str =
        "BURSAR_WRITE_SETTINGS=1 cargo test -p bursar-server --lib settings_in_the";

    /// The head of the table in docs/operating.md.
    const TABLE_HEAD: &str = "| key | environment | default | what it does |\n|---|---|---|---|\n";

    /// The Markdown table of all settings.
    fn table(settings: &[Setting]) -> String {
        let mut text = TABLE_HEAD.to_owned();
        for setting in settings {
            let default = setting.default_text();
            let default = if default.is_empty() { default } else { format!("`{default}`") };
            let (key, env, help) = (setting.key, setting.env(), setting.help());
            let _ = writeln!(text, "| `{key}` | `{env}` | {default} | {help} |");
        }
        text
    }

    /// Asserts that a file of the repository has this content, or writes it.
    #[track_caller]
    fn check_file(path: &str, expected: impl FnOnce(&str) -> String) {
        let path = Path::new(ROOT).join(path);
        let found = std::fs::read_to_string(&path).expect("read");
        let expected = expected(&found);
        if std::env::var_os(WRITE).is_some_and(|value| value == "1") {
            std::fs::write(&path, &expected).expect("written");
        } else {
            assert!(found == expected, "{} is out of date: {COMMAND}", path.display());
        }
    }

    #[test]
    fn the_settings_in_the_example_are_these() {
        check_file("bursar.example.toml", |_| example(&settings()));
    }

    #[test]
    fn the_settings_in_the_guide_are_these() {
        check_file("docs/operating.md", |guide| {
            let (before, rest) = guide.split_once(TABLE_HEAD).expect("a table");
            let (_, after) = rest.split_once("\n\n").expect("an end of the table");
            format!("{before}{}\n{after}", table(&settings()))
        });
    }

    #[test]
    fn the_example_without_its_comment_marks_is_the_default() {
        let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let taken: Vec<String> = example(&settings())
            .lines()
            .map(|line| if is_setting(line) { line.replacen('#', "", 1) } else { line.to_owned() })
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bursar.toml");
        std::fs::write(&path, taken.join("\n")).expect("written");
        let nothing = || std::iter::empty::<(String, String)>();
        let texts = |file: Option<&Path>| {
            let found = Config::in_force(file, nothing()).expect("valid");
            found.into_iter().map(|row| (row.setting.key, row.text)).collect::<Vec<_>>()
        };
        assert_eq!(texts(Some(&path)), texts(None));
        assert!(Config::load(Some(&path), nothing()).is_ok());
        assert_eq!(taken.iter().filter(|line| line.contains(" = ")).count(), settings().len());
    }
}
