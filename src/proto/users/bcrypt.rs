//! bcrypt (Provos and Mazieres, "A Future-Adaptable Password Scheme"), on top of the Blowfish of a crate.

use blowfish::Blowfish;

/// Salt, and digest without the last byte of the cipher text, which every implementation leaves out.
pub(super) const SALT_BYTES: usize = 16;
pub(super) const DIGEST_BYTES: usize = 23;
/// By definition.
pub(super) const MIN_COST: u32 = 4;
/// What of a password counts: Blowfish takes 18 words of key. Apache, PHP and OpenBSD cut longer ones likewise.
const MAX_KEY_BYTES: usize = 72;

/// The digest after 2 to the power of `cost` rounds. `password` has no NUL.
pub(super) fn bcrypt(password: &[u8], salt: &[u8], cost: u32) -> [u8; 24] {
    let mut key = [0; MAX_KEY_BYTES];
    let password = password.get(..MAX_KEY_BYTES).unwrap_or(password);
    key[..password.len()].copy_from_slice(password);
    // A password ends with a NUL, as in C, unless it is cut.
    let key = key.get(..=password.len()).unwrap_or(&key);
    let mut blowfish = Blowfish::bc_init_state();
    blowfish.salted_expand_key(salt, key);
    for _ in 0..1_u64 << cost {
        blowfish.bc_expand_key(key);
        blowfish.bc_expand_key(salt);
    }
    let mut digest = *b"OrpheanBeholderScryDoubt";
    for block in digest.chunks_exact_mut(8) {
        let mut words =
            [0, 4].map(|at| block[at..at + 4].iter().fold(0, |word, &byte| word << 8 | u32::from(byte)));
        for _ in 0..64 {
            words = blowfish.bc_encrypt(words);
        }
        block[..4].copy_from_slice(&words[0].to_be_bytes());
        block[4..].copy_from_slice(&words[1].to_be_bytes());
    }
    digest
}
