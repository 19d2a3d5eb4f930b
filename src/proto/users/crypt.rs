//! The schemes of crypt(3) that stretch a digest by thousands of rounds: md5-crypt, of which Apache's apr1 is a variant
//! with another magic, and sha-crypt (Drepper, "Unix crypt using SHA-256 and SHA-512").

use super::digest::{Digest, Function, MAX_DIGEST_BYTES};

/// Rounds of md5-crypt.
pub(super) const MD5_ROUNDS: u32 = 1_000;

/// The digest of md5-crypt. `magic` is `$1$` or `$apr1$`.
pub(super) fn md5_crypt(magic: &[u8], password: &[u8], salt: &[u8]) -> [u8; MAX_DIGEST_BYTES] {
    let start = digest_of(Function::Md5, &[password, salt, password]);
    let mut digest = Digest::new(Function::Md5);
    for part in [password, magic, salt] {
        digest.update(part);
    }
    digest.update_cycled(&start[..16], password.len());
    let mut bits = password.len();
    while bits != 0 {
        // For a set bit the original takes the first byte of an array that it has just cleared.
        digest.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    stretch(Function::Md5, digest.finish(), 16, password, salt, MD5_ROUNDS)
}

/// The digest of sha256-crypt and sha512-crypt; the steps are those of the paper.
#[cfg(feature = "users-sha2")]
pub(super) fn sha_crypt(
    function: Function,
    digest_bytes: usize,
    password: &[u8],
    salt: &[u8],
    rounds: u32,
) -> [u8; MAX_DIGEST_BYTES] {
    // Steps 4 to 8: digest B.
    let start = digest_of(function, &[password, salt, password]);
    let start = &start[..digest_bytes];
    // Steps 1 to 3 and 9 to 12: digest A.
    let mut digest = Digest::new(function);
    digest.update(password);
    digest.update(salt);
    digest.update_cycled(start, password.len());
    let mut bits = password.len();
    while bits != 0 {
        digest.update(if bits & 1 == 1 { start } else { password });
        bits >>= 1;
    }
    let digest = digest.finish();
    // Steps 13 to 20: the sequences P and S.
    let long_password = repeated(function, digest_bytes, password, password.len());
    let long_salt = repeated(function, digest_bytes, salt, 16 + usize::from(digest[0]));
    stretch(function, digest, digest_bytes, &long_password, &long_salt, rounds)
}

/// As many bytes as `text` has of the digest of `text` taken `times` times.
#[cfg(feature = "users-sha2")]
fn repeated(function: Function, digest_bytes: usize, text: &[u8], times: usize) -> Vec<u8> {
    let mut digest = Digest::new(function);
    for _ in 0..times {
        digest.update(text);
    }
    digest.finish()[..digest_bytes].iter().copied().cycle().take(text.len()).collect()
}

fn digest_of(function: Function, parts: &[&[u8]]) -> [u8; MAX_DIGEST_BYTES] {
    let mut digest = Digest::new(function);
    for part in parts {
        digest.update(part);
    }
    digest.finish()
}

/// The rounds, which both schemes have in common.
fn stretch(
    function: Function,
    mut digest: [u8; MAX_DIGEST_BYTES],
    digest_bytes: usize,
    password: &[u8],
    salt: &[u8],
    rounds: u32,
) -> [u8; MAX_DIGEST_BYTES] {
    for round in 0..rounds {
        let before = &digest[..digest_bytes];
        let (first, last) = if round & 1 == 1 { (password, before) } else { (before, password) };
        let salt = if round % 3 == 0 { &[][..] } else { salt };
        let again = if round % 7 == 0 { &[][..] } else { password };
        digest = digest_of(function, &[first, salt, again, last]);
    }
    digest
}
