//! Commands on the pages of `docs/`: each in a block marked `sh`, on a line of its own, with how it ends behind it.
//!
//! | behind the command | means |
//! | --- | --- |
//! | `    # exits 0` | it is run, and ends with this code |
//! | `    # exits 0 or 1: WORDS` | with one of these codes, and it says these words |
//! | `    # exits 1 without TDX: WORDS` | so where the machine has not what is named; elsewhere it is not run |
//! | `    # not run: WHY` | a test cannot run it |

use std::path::Path;
use std::process::{Command, Stdio};

/// One command of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its words, `cocoon` first.
    pub words: Vec<&'static str>,
    /// The line as it stands on the page.
    pub line: &'static str,
    /// How it ends.
    pub ends: Ends,
}

/// How a command ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ends {
    /// With one of these codes, and saying these words if there are any.
    With {
        /// Exit codes.
        codes: Vec<i32>,
        /// What it says, on either output.
        says: Option<&'static str>,
        /// What a machine must not have for that to hold.
        without: Option<&'static str>,
    },
    /// It is not run, and this is why.
    NotRun(&'static str),
}

/// The commands of a page, in order.
///
/// # Panics
/// If a line in a block does not say how it ends.
pub fn examples(page: &'static str) -> Vec<Example> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => found.push(example(line)),
            _ => {}
        }
    }
    found
}

fn example(line: &'static str) -> Example {
    let (command, comment) =
        line.split_once("    # ").unwrap_or_else(|| panic!("each command says how it ends: {line}"));
    let ends = match (comment.strip_prefix("exits "), comment.strip_prefix("not run: ")) {
        (Some(rest), _) => with(rest),
        (None, Some(why)) => Ends::NotRun(why),
        (None, None) => panic!("neither `exits CODE` nor `not run: WHY`: {line}"),
    };
    Example { words: command.split_whitespace().collect(), line, ends }
}

/// `0`, `0 or 1: WORDS`, `1 without TDX: WORDS`.
fn with(text: &'static str) -> Ends {
    let (how, says) = text.split_once(": ").map_or((text, None), |(how, says)| (how, Some(says)));
    let (codes, without) =
        how.split_once(" without ").map_or((how, None), |(codes, without)| (codes, Some(without)));
    let codes = codes.split(" or ").map(|code| code.parse().expect("an exit code is a number")).collect();
    Ends::With { codes, says, without }
}

impl Example {
    /// Runs the program in a folder and holds how it ends against the page.
    ///
    /// # Panics
    /// If it ends otherwise, or this example is not to be run.
    pub fn run(&self, program: &Path, folder: &Path, environment: &[(&str, &Path)]) {
        let Ends::With { codes, says, .. } = &self.ends else { panic!("not to be run: {}", self.line) };
        let ["cocoon", arguments @ ..] = &self.words[..] else { panic!("not of ours: {}", self.line) };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).envs(environment.iter().copied()).stdin(Stdio::null());
        let output = command.output().expect("it starts");
        let said = format!(
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let code = output.status.code().expect("no signal ends it");
        assert!(codes.contains(&code), "{} ended with {code}\n{said}", self.line);
        if let Some(words) = says {
            assert!(said.contains(words), "{} does not say {words:?}\n{said}", self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_how_it_ends() {
        let page = "```sh\ncocoon a b    # exits 0\ncocoon c    # exits 0 or 1: in words: two\n```\ncocoon no\n```sh\n\
                    cocoon d    # exits 1 without TDX: not ready\ncocoon e    # not run: for root\n```\n";
        let found = examples(page);
        let ends: Vec<&Ends> = found.iter().map(|example| &example.ends).collect();
        assert_eq!(found[0].words, ["cocoon", "a", "b"]);
        assert_eq!(ends[0], &Ends::With { codes: vec![0], says: None, without: None });
        assert_eq!(ends[1], &Ends::With { codes: vec![0, 1], says: Some("in words: two"), without: None });
        assert_eq!(ends[2], &Ends::With { codes: vec![1], says: Some("not ready"), without: Some("TDX") });
        assert_eq!(ends[3..], [&Ends::NotRun("for root")]);
    }
}
