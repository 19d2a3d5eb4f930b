//! Who may use the proxy: the text of an htpasswd file becomes users, and their passwords are verified.
//! Layer 0.5.

#[cfg(feature = "users-bcrypt")]
mod bcrypt;
mod compress;
mod crypt;
mod digest;
mod hash;

use hash::Hash;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::Arc;

/// Most users of a file.
pub const MAX_USERS: usize = 10_000;
/// Longest file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Longest name of a user.
pub const MAX_NAME_BYTES: usize = 255;
/// A longer password is wrong: the tools that write hashes take 255 or 256 bytes, and some kinds of hashes take time for each.
pub const MAX_PASSWORD_BYTES: usize = 256;
const _: () = assert!(MAX_USERS <= u16::MAX as usize, "positions are counted in 16 bits");

/// Who may use the proxy, as an htpasswd file says. About 150 bytes of memory a user.
#[derive(Clone)]
pub struct Users {
    /// In file order.
    entries: Vec<Entry>,
    /// Positions in `entries`, sorted by name.
    by_name: Vec<u16>,
    /// Makes an unknown user look like one of `entries`, and nobody can tell beforehand like which.
    key: RandomState,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    name: Arc<str>,
    hash: Hash,
}

impl Users {
    /// Reads the text of an htpasswd file, as Apache does: `name:hash`, one a line; what may stand behind another colon is a
    /// comment; white space around a line does not count, and empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is wrong. One bad line refuses the file: to leave out a user silently, or to let one in by
    /// a hash that somebody has mistyped, helps nobody.
    pub fn parse(text: &[u8]) -> Result<Users, BadUsers> {
        let mut users = Users { entries: Vec::new(), by_name: Vec::new(), key: RandomState::new() };
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        if let Some(whole) = text.get(..MAX_FILE_BYTES).filter(|_| text.len() > MAX_FILE_BYTES) {
            let line = 1 + whole.iter().filter(|&&byte| byte == b'\n').count();
            return Err(BadUsers { line, why: BadUser::FileTooLarge });
        }
        for (line, text) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            users.add_line(text.trim_ascii()).map_err(|why| BadUsers { line, why })?;
        }
        Ok(users)
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody can log in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a user of this name, to the letter.
    #[must_use]
    pub fn contains(&self, user: &str) -> bool {
        self.find(user.as_bytes()).is_ok()
    }

    /// The user's name as it is known, if there is such a user and this is the password.
    ///
    /// Takes from microseconds to seconds of CPU time: never called on a loop. An unknown user costs as much time as a wrong
    /// password: the password is tried on another user's hash, always the same one for the same name as long as that user
    /// is there, so that a file of different kinds does not give away who is in it either.
    ///
    /// As with Apache, bcrypt takes the first 72 bytes of a password for the whole. A password with a NUL, or of more
    /// than [`MAX_PASSWORD_BYTES`], is wrong.
    #[must_use]
    pub fn verify(&self, user: &[u8], password: &[u8]) -> Option<Arc<str>> {
        if password.len() > MAX_PASSWORD_BYTES || password.contains(&0) {
            return None;
        }
        // For a known user, too: it takes time.
        let stand_in = black_box(self.stand_in(user));
        let known = self.find(user).ok();
        let tried = known.or(stand_in);
        // The compiler may not find out that the result is of no use.
        let is_right = black_box(tried.map_or(&hash::NOBODY, |entry| &entry.hash).is_of(password));
        known.filter(|_| is_right).map(|entry| entry.name.clone())
    }

    /// From now on unknown users look like the same ones as by `old`, which this file replaces: who saw a name change its
    /// time would know that there is no such user.
    pub fn keep_key_of(&mut self, old: &Users) {
        self.key.clone_from(&old.key);
    }

    #[cfg(test)]
    pub(crate) fn looks_like(&self, nobody: &str) -> Option<Arc<str>> {
        self.stand_in(nobody.as_bytes()).map(|entry| Arc::clone(&entry.name))
    }

    /// Whether `name` is a user of both with the same hash: what was right by `old` is right by this one.
    #[must_use]
    pub fn keeps(&self, old: &Users, name: &str) -> bool {
        let hash = |users: &Users| users.find(name.as_bytes()).ok().map(|entry| entry.hash.clone());
        hash(self).is_some_and(|own| hash(old) == Some(own))
    }

    /// The line is trimmed.
    fn add_line(&mut self, line: &[u8]) -> Result<(), BadUser> {
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(());
        }
        let mut parts = line.split(|&byte| byte == b':');
        let name = parts.next().unwrap_or_default();
        let hash = parts.next().ok_or(BadUser::NoColon)?;
        let name = std::str::from_utf8(name).map_err(|_| BadUser::Name)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(BadUser::Name);
        }
        let hash = Hash::parse(hash)?;
        let Err(at) = self.find(name.as_bytes()) else { return Err(BadUser::Twice) };
        if self.entries.len() == MAX_USERS {
            return Err(BadUser::TooMany);
        }
        self.by_name.insert(at, self.entries.len() as u16);
        self.entries.push(Entry { name: name.into(), hash });
        Ok(())
    }

    /// The user, or where in `by_name` it would stand.
    fn find(&self, user: &[u8]) -> Result<&Entry, usize> {
        let entry = |at: &u16| &self.entries[usize::from(*at)];
        let found = self.by_name.binary_search_by(|at| entry(at).name.as_bytes().cmp(user))?;
        Ok(entry(&self.by_name[found]))
    }

    /// None if there are no users. The one whose name makes the greatest keyed hash together with `user`: in another file it
    /// is another one only if that user is gone, or a new one makes a greater.
    fn stand_in(&self, user: &[u8]) -> Option<&Entry> {
        self.entries.iter().max_by_key(|entry| self.key.hash_one((user, &*entry.name)))
    }
}

impl PartialEq for Users {
    /// The same users with the same hashes in the same order.
    fn eq(&self, other: &Users) -> bool {
        self.entries == other.entries
    }
}

impl fmt::Debug for Users {
    /// Names and hashes are nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.len())
    }
}

/// Why a file is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUsers {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub why: BadUser,
}

/// What is wrong with a line of an htpasswd file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadUser {
    /// No colon.
    NoColon,
    /// The name is empty, too long, not UTF-8, or has control characters.
    Name,
    /// The name stands there for the second time.
    Twice,
    /// Nothing behind the colon.
    NoHash,
    /// DES crypt: 8 characters of the password count, and all of them are tried in hours.
    Des,
    /// Not a hash.
    PlainText,
    /// A hash of a kind that is known nowhere here: argon2, yescrypt, SSHA.
    UnknownHash,
    /// A hash of a kind that was left out when this program was built.
    NotBuiltIn,
    /// A known kind, but not spelt as it is written: cut off, too long, or with characters that do not belong there.
    Garbled,
    /// bcrypt with a cost over 17.
    BcryptCost,
    /// sha256-crypt or sha512-crypt with more than 1,000,000 rounds.
    ShaRounds,
    /// More than [`MAX_USERS`].
    TooMany,
    /// More than [`MAX_FILE_BYTES`].
    FileTooLarge,
}

impl BadUser {
    /// What was expected, as it stands behind "expected" in an error line. Never repeats what stands in the file.
    #[must_use]
    pub fn expected(self) -> &'static str {
        match self {
            BadUser::NoColon => "NAME:HASH, as htpasswd -B writes it",
            BadUser::Name => "a name of 1 to 255 bytes in UTF-8, without control characters",
            BadUser::Twice => "each user once: this name stands further up already",
            BadUser::NoHash => "a hash behind the colon, as htpasswd -B writes it",
            BadUser::Des => {
                "no DES crypt, which is broken in hours: set this password again with htpasswd -B"
            }
            BadUser::PlainText => "a hash, never the password itself: set it with htpasswd -B",
            BadUser::UnknownHash => {
                "bcrypt, apr1, {SHA}, sha256-crypt or sha512-crypt: set this password again with htpasswd -B"
            }
            BadUser::NotBuiltIn => {
                "a kind of hash that this build knows (cargo features users-bcrypt, users-sha2)"
            }
            BadUser::Garbled => {
                "a whole hash: this one is cut off or damaged; set this password again with htpasswd -B"
            }
            BadUser::BcryptCost => "a bcrypt cost of 4 to 17: more takes too long",
            BadUser::ShaRounds => "1,000 to 1,000,000 rounds: more take too long",
            BadUser::TooMany => "at most 10,000 users",
            BadUser::FileTooLarge => "a file of at most 1 MiB",
        }
    }
}

#[cfg(test)]
mod tests;
