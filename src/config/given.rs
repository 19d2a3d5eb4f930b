//! What was given for which option, and where: words of the command line, and lines of the file of `--config`.

use super::usage::UsageError;
use getopts::{Matches, Options};

/// All options: short name (or none), long name.
pub(super) static OPTIONS: [(Kind, &str, &str); 36] = [
    (Kind::Once, "c", "config"),
    (Kind::Once, "n", "loops"),
    (Kind::Once, "", "users"),
    (Kind::Once, "", "default"),
    (Kind::Once, "", "connect-port"),
    (Kind::Once, "", "http-port"),
    (Kind::Once, "", "hosts"),
    (Kind::Once, "", "family"),
    (Kind::Once, "", "max-sessions"),
    (Kind::Once, "", "max-sessions-per-client"),
    (Kind::Once, "", "buffer-memory"),
    (Kind::Once, "", "head-timeout"),
    (Kind::Once, "", "resolve-timeout"),
    (Kind::Once, "", "dial-timeout"),
    (Kind::Once, "", "response-timeout"),
    (Kind::Once, "", "keepalive-timeout"),
    (Kind::Once, "", "idle-timeout"),
    (Kind::Once, "", "half-open-timeout"),
    (Kind::Once, "", "grace"),
    (Kind::Once, "", "access-log"),
    (Kind::Once, "", "log-format"),
    (Kind::Once, "", "via"),
    (Kind::Repeatable, "l", "listen"),
    (Kind::Repeatable, "", "client"),
    (Kind::Repeatable, "", "allow"),
    (Kind::Repeatable, "", "deny"),
    (Kind::Repeatable, "", "allow-file"),
    (Kind::Repeatable, "", "deny-file"),
    (Kind::Repeatable, "", "nameserver"),
    (Kind::Repeatable, "", "bind"),
    (Kind::Flag, "", "forwarded"),
    (Kind::Flag, "v", "verbose"),
    (Kind::Flag, "q", "quiet"),
    (Kind::Flag, "", "check-config"),
    (Kind::Flag, "h", "help"),
    (Kind::Flag, "V", "version"),
];

/// Options that say what to do, not how: they make no sense in a file.
pub(super) const NOT_IN_FILE: [&str; 4] = ["config", "check-config", "help", "version"];

/// Everything that was given. What the command line says comes first.
#[derive(Debug)]
pub(super) struct Given {
    said: Vec<Said>,
    /// The file of `--config`, as given.
    file: String,
    /// Words that belong to no option.
    pub(super) free: Vec<String>,
}

/// One value.
#[derive(Debug)]
pub(super) struct Said {
    option: &'static str,
    pub(super) text: String,
    /// In the file; else on the command line.
    line: Option<usize>,
}

/// How often an option may be given, and whether it takes a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Once,
    Repeatable,
    /// As `Repeatable`, without a value.
    Flag,
}

impl Given {
    /// The command line.
    pub(super) fn from_words(words: Vec<String>) -> Result<Given, UsageError> {
        let mut options = Options::new();
        for &(kind, short, long) in &OPTIONS {
            match kind {
                Kind::Once => options.optopt(short, long, "", ""),
                Kind::Repeatable => options.optmulti(short, long, "", ""),
                Kind::Flag => options.optflagmulti(short, long, ""),
            };
        }
        let matches: Matches = options.parse(words)?;
        let mut given = Given { said: Vec::new(), file: String::new(), free: Vec::new() };
        for &(kind, _, option) in &OPTIONS {
            let texts = match kind {
                Kind::Once | Kind::Repeatable => matches.opt_strs(option),
                Kind::Flag => vec![String::new(); matches.opt_count(option)],
            };
            given.said.extend(texts.into_iter().map(|text| Said { option, text, line: None }));
        }
        given.free = matches.free;
        Ok(given)
    }

    /// Adds what a file says: one option a line, without dashes. `#` at the beginning of a line or behind white space
    /// starts a comment.
    pub(super) fn add_file(&mut self, file: &str, content: &[u8]) -> Result<(), UsageError> {
        self.file = file.to_owned();
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
            let number = index + 1;
            self.add_line(line, number).map_err(|error| self.in_file(Some(number), error))?;
        }
        Ok(())
    }

    fn add_line(&mut self, line: &[u8], number: usize) -> Result<(), UsageError> {
        let line = std::str::from_utf8(line)
            .map_err(|_| UsageError::NotUtf8 { word: String::from_utf8_lossy(line).into_owned() })?;
        let line = without_comment(line).trim();
        if line.is_empty() {
            return Ok(());
        }
        let (name, text) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let text = text.trim();
        let Some(&(kind, _, option)) = OPTIONS.iter().find(|(_, _, long)| *long == name) else {
            return Err(UsageError::UnknownInFile { word: name.to_owned() });
        };
        if NOT_IN_FILE.contains(&option) {
            return Err(UsageError::NotInFile { option });
        }
        let said_before = || self.said.iter().any(|said| said.option == option && said.line.is_some());
        let dashed = || format!("--{option}");
        match kind {
            Kind::Once if said_before() => return Err(UsageError::Twice { option: dashed() }),
            Kind::Once | Kind::Repeatable if text.is_empty() => {
                return Err(UsageError::NoValue { option: dashed() });
            }
            Kind::Flag if !text.is_empty() => return Err(UsageError::NeedlessValue { option: dashed() }),
            Kind::Once | Kind::Repeatable | Kind::Flag => {}
        }
        self.said.push(Said { option, text: text.to_owned(), line: Some(number) });
        Ok(())
    }

    /// All values of an option.
    pub(super) fn all(&self, option: &str) -> impl Iterator<Item = &Said> {
        self.said.iter().filter(move |said| said.option == option)
    }

    /// The value that counts, of an option that makes sense once: the command line's before the file's.
    pub(super) fn one(&self, option: &str) -> Option<&Said> {
        self.all(option).next()
    }

    pub(super) fn has(&self, option: &str) -> bool {
        self.one(option).is_some()
    }

    /// The error for a value that is wrong.
    pub(super) fn wrong(&self, said: &Said, expected: impl Into<String>) -> UsageError {
        let Said { option, text: value, line } = said;
        self.in_file(*line, UsageError::Wrong { option, value: value.clone(), expected: expected.into() })
    }

    /// The error for options that do not fit together: where the first of them stands that is in the file.
    pub(super) fn together(&self, options: &[&str], error: UsageError) -> UsageError {
        self.in_file(options.iter().find_map(|option| self.one(option)?.line), error)
    }

    fn in_file(&self, line: Option<usize>, error: UsageError) -> UsageError {
        match line {
            Some(line) => UsageError::InFile { file: self.file.clone(), line, error: Box::new(error) },
            None => error,
        }
    }
}

fn without_comment(line: &str) -> &str {
    let starts_comment = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let start = line.match_indices('#').map(|(at, _)| at).find(|&at| starts_comment(at));
    &line[..start.unwrap_or(line.len())]
}
