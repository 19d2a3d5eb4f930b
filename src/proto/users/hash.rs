//! One password hash: its text becomes salt, cost and digest, and a password is compared with it.

use super::BadUser;
#[cfg(feature = "users-bcrypt")]
use super::bcrypt;
use super::crypt;
use super::digest::{Digest, Function, MAX_DIGEST_BYTES};
use crate::proto::base64;
use std::hint::black_box;

/// The most that `htpasswd -C` takes: 2 to the 17th rounds are about 7 s of a fast core. Each step doubles that.
#[cfg(feature = "users-bcrypt")]
const MAX_BCRYPT_COST: u32 = 17;
/// By definition, as is what a hash means that does not say it.
#[cfg(feature = "users-sha2")]
const MIN_SHA_ROUNDS: u32 = 1_000;
#[cfg(feature = "users-sha2")]
const DEFAULT_SHA_ROUNDS: u32 = 5_000;
/// About 0.7 s of a fast core, and three times that for the longest password. By definition there could be 999,999,999.
#[cfg(feature = "users-sha2")]
const MAX_SHA_ROUNDS: u32 = 1_000_000;
const MAX_SALT_BYTES: usize = 16;
const MAX_MD5_SALT_BYTES: usize = 8;

#[cfg(test)]
thread_local! {
    /// Kinds and rounds of the hashes that this thread has computed.
    pub(super) static COMPUTED: std::cell::RefCell<Vec<(u8, u32)>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(feature = "users-bcrypt")]
    Bcrypt,
    /// Apache's variant of md5-crypt.
    Apr1,
    Md5,
    Sha1,
    #[cfg(feature = "users-sha2")]
    Sha256,
    #[cfg(feature = "users-sha2")]
    Sha512,
}

/// One password hash.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash {
    kind: Kind,
    /// bcrypt: the cost, which is the binary logarithm of the rounds.
    rounds: u32,
    salt: [u8; MAX_SALT_BYTES],
    salt_bytes: u8,
    /// Behind its own length zero.
    digest: [u8; MAX_DIGEST_BYTES],
}

/// Costs as much as a hash that `htpasswd -B` writes, and no password is right.
#[cfg(feature = "users-bcrypt")]
pub(super) const NOBODY: Hash = Hash { kind: Kind::Bcrypt, rounds: 5, ..BLANK };
#[cfg(not(feature = "users-bcrypt"))]
pub(super) const NOBODY: Hash = BLANK;
const BLANK: Hash = Hash {
    kind: Kind::Sha1,
    rounds: 1,
    salt: [0; MAX_SALT_BYTES],
    salt_bytes: 16,
    digest: [0; MAX_DIGEST_BYTES],
};

impl Hash {
    /// Reads what stands behind the colon.
    pub(super) fn parse(text: &[u8]) -> Result<Hash, BadUser> {
        match text {
            [] => Err(BadUser::NoHash),
            // Implementations call it 2a, 2b or 2y; they differ by mistakes of old versions, which no hash shows.
            [b'$', b'2', b'a' | b'b' | b'y', b'$', rest @ ..] => bcrypt(rest),
            [b'$', b'a', b'p', b'r', b'1', b'$', rest @ ..] => apr1(rest),
            [b'$', b'1', b'$', rest @ ..] => md5(rest),
            [b'{', b'S', b'H', b'A', b'}', rest @ ..] => sha1(rest),
            [b'$', b'5', b'$', rest @ ..] => sha256(rest),
            [b'$', b'6', b'$', rest @ ..] => sha512(rest),
            // Bytes, not an enum of ours.
            [b'$' | b'{', ..] => Err(BadUser::UnknownHash),
            _ if text.len() == 13 && text.iter().all(|&byte| base64::CRYPT.value(byte).is_some()) => {
                Err(BadUser::Des)
            }
            _ => Err(BadUser::PlainText),
        }
    }

    /// Whether `password`, which has no NUL, is the right one.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        #[cfg(test)]
        COMPUTED.with_borrow_mut(|computed| computed.push((self.kind as u8, self.rounds)));
        let salt = self.salt.get(..usize::from(self.salt_bytes)).unwrap_or_default();
        match self.kind {
            #[cfg(feature = "users-bcrypt")]
            Kind::Bcrypt => {
                let digest = bcrypt::bcrypt(password, salt, self.rounds);
                self.has_digest(&digest[..bcrypt::DIGEST_BYTES])
            }
            Kind::Apr1 => self.has_digest(&crypt::md5_crypt(b"$apr1$", password, salt)),
            Kind::Md5 => self.has_digest(&crypt::md5_crypt(b"$1$", password, salt)),
            Kind::Sha1 => {
                let mut digest = Digest::new(Function::Sha1);
                digest.update(password);
                self.has_digest(&digest.finish())
            }
            #[cfg(feature = "users-sha2")]
            Kind::Sha256 => {
                self.has_digest(&crypt::sha_crypt(Function::Sha256, 32, password, salt, self.rounds))
            }
            #[cfg(feature = "users-sha2")]
            Kind::Sha512 => {
                self.has_digest(&crypt::sha_crypt(Function::Sha512, 64, password, salt, self.rounds))
            }
        }
    }

    /// Takes the same time wherever they differ.
    fn has_digest(&self, digest: &[u8]) -> bool {
        let difference =
            self.digest.iter().zip(digest).fold(0, |all, (ours, theirs)| black_box(all | (ours ^ theirs)));
        difference == 0
    }
}

fn new(kind: Kind, rounds: u32, salt: &[u8], digest: &[u8]) -> Hash {
    let mut hash = Hash { kind, rounds, salt_bytes: salt.len() as u8, ..BLANK };
    hash.salt[..salt.len()].copy_from_slice(salt);
    hash.digest[..digest.len()].copy_from_slice(digest);
    hash
}

/// `05$`, 22 characters of salt and 31 of digest.
#[cfg(feature = "users-bcrypt")]
fn bcrypt(rest: &[u8]) -> Result<Hash, BadUser> {
    let [tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'$', rest @ ..] = rest else {
        return Err(BadUser::Garbled);
    };
    let cost = u32::from(tens - b'0') * 10 + u32::from(ones - b'0');
    let (salt, digest) = rest.split_at_checked(22).ok_or(BadUser::Garbled)?;
    let salt = base64::decode_unpadded(salt, &base64::BCRYPT).ok_or(BadUser::Garbled)?;
    let digest = base64::decode_unpadded(digest, &base64::BCRYPT).ok_or(BadUser::Garbled)?;
    if salt.len() != bcrypt::SALT_BYTES || digest.len() != bcrypt::DIGEST_BYTES || cost < bcrypt::MIN_COST {
        return Err(BadUser::Garbled);
    }
    if cost > MAX_BCRYPT_COST {
        return Err(BadUser::BcryptCost);
    }
    Ok(new(Kind::Bcrypt, cost, &salt, &digest))
}

fn apr1(rest: &[u8]) -> Result<Hash, BadUser> {
    salt_and_digest(Kind::Apr1, crypt::MD5_ROUNDS, rest, MAX_MD5_SALT_BYTES, &MD5_ORDER)
}

fn md5(rest: &[u8]) -> Result<Hash, BadUser> {
    salt_and_digest(Kind::Md5, crypt::MD5_ROUNDS, rest, MAX_MD5_SALT_BYTES, &MD5_ORDER)
}

fn sha1(rest: &[u8]) -> Result<Hash, BadUser> {
    let digest = base64::decode(rest).filter(|digest| digest.len() == 20).ok_or(BadUser::Garbled)?;
    Ok(new(Kind::Sha1, 1, &[], &digest))
}

#[cfg(feature = "users-sha2")]
fn sha256(rest: &[u8]) -> Result<Hash, BadUser> {
    let (rounds, rest) = sha_rounds(rest)?;
    salt_and_digest(Kind::Sha256, rounds, rest, MAX_SALT_BYTES, &SHA256_ORDER)
}

#[cfg(feature = "users-sha2")]
fn sha512(rest: &[u8]) -> Result<Hash, BadUser> {
    let (rounds, rest) = sha_rounds(rest)?;
    salt_and_digest(Kind::Sha512, rounds, rest, MAX_SALT_BYTES, &SHA512_ORDER)
}

#[cfg(not(feature = "users-bcrypt"))]
use self::not_built_in as bcrypt;
#[cfg(not(feature = "users-sha2"))]
use self::{not_built_in as sha256, not_built_in as sha512};

#[cfg(not(all(feature = "users-bcrypt", feature = "users-sha2")))]
fn not_built_in(_rest: &[u8]) -> Result<Hash, BadUser> {
    Err(BadUser::NotBuiltIn)
}

/// `rounds=10000$`, which may be missing.
#[cfg(feature = "users-sha2")]
fn sha_rounds(rest: &[u8]) -> Result<(u32, &[u8]), BadUser> {
    let Some(rest) = rest.strip_prefix(b"rounds=") else { return Ok((DEFAULT_SHA_ROUNDS, rest)) };
    let dollar = rest.iter().position(|&byte| byte == b'$').ok_or(BadUser::Garbled)?;
    let (digits, rest) = rest.split_at(dollar);
    if digits.is_empty() || digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadUser::Garbled);
    }
    let add = |rounds: u32, digit: &u8| rounds.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
    let rounds = digits.iter().fold(0, add);
    // crypt(3) writes 1,000 for fewer, so with fewer no password would be right.
    if !(MIN_SHA_ROUNDS..=MAX_SHA_ROUNDS).contains(&rounds) {
        return Err(BadUser::ShaRounds);
    }
    Ok((rounds, rest.get(1..).unwrap_or_default()))
}

/// `salt$digest`.
fn salt_and_digest(
    kind: Kind,
    rounds: u32,
    rest: &[u8],
    max_salt_bytes: usize,
    order: &[u8],
) -> Result<Hash, BadUser> {
    let dollar = rest.iter().position(|&byte| byte == b'$').ok_or(BadUser::Garbled)?;
    let (salt, text) = (&rest[..dollar], &rest[dollar + 1..]);
    let mut digest = [0; MAX_DIGEST_BYTES];
    let is_good = salt.len() <= max_salt_bytes && decode_in_order(text, order, &mut digest);
    if is_good { Ok(new(kind, rounds, salt, &digest)) } else { Err(BadUser::Garbled) }
}

/// Three bytes in four characters, the least six bits first; `order` says which bytes, the highest first. The last group is
/// shorter.
fn decode_in_order(text: &[u8], order: &[u8], digest: &mut [u8; MAX_DIGEST_BYTES]) -> bool {
    if text.len() != (order.len() * 8).div_ceil(6) {
        return false;
    }
    for (characters, places) in text.chunks(4).zip(order.chunks(3)) {
        let mut bits = 0;
        for &character in characters.iter().rev() {
            let Some(value) = base64::CRYPT.value(character) else { return false };
            bits = bits << 6 | u32::from(value);
        }
        for &place in places.iter().rev() {
            digest[usize::from(place)] = bits as u8;
            bits >>= 8;
        }
        if bits != 0 {
            return false;
        }
    }
    true
}

#[rustfmt::skip]
const MD5_ORDER: [u8; 16] = [0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 4, 10, 5, 11];
#[cfg(feature = "users-sha2")]
#[rustfmt::skip]
const SHA256_ORDER: [u8; 32] = [
    0, 10, 20, 21, 1, 11, 12, 22, 2, 3, 13, 23, 24, 4, 14, 15, 25, 5, 6, 16, 26, 27, 7, 17, 18, 28, 8, 9, 19, 29, 31, 30,
];
#[cfg(feature = "users-sha2")]
#[rustfmt::skip]
const SHA512_ORDER: [u8; 64] = [
    0, 21, 42, 22, 43, 1, 44, 2, 23, 3, 24, 45, 25, 46, 4, 47, 5, 26, 6, 27, 48, 28, 49, 7, 50, 8, 29, 9, 30, 51, 31, 52,
    10, 53, 11, 32, 12, 33, 54, 34, 55, 13, 56, 14, 35, 15, 36, 57, 37, 58, 16, 59, 17, 38, 18, 39, 60, 40, 61, 19, 62, 20,
    41, 63,
];
