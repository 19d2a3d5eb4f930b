//! MD5, SHA-1, SHA-256 and SHA-512 behind one type that is not generic, so that what uses them is there once.
//! Padding and the rest of Merkle and Damgard are the same for all; only the compression functions differ.

use super::compress;

/// Longest digest.
pub(super) const MAX_DIGEST_BYTES: usize = 64;
const MAX_BLOCK_BYTES: usize = 128;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// RFC 1321.
    Md5,
    /// FIPS 180-4, as the next two.
    Sha1,
    #[cfg(feature = "users-sha2")]
    Sha256,
    #[cfg(feature = "users-sha2")]
    Sha512,
}

enum State {
    Md5([u32; 4]),
    Sha1([u32; 5]),
    #[cfg(feature = "users-sha2")]
    Sha256([u32; 8]),
    #[cfg(feature = "users-sha2")]
    Sha512([u64; 8]),
}

/// A digest in the making.
pub(super) struct Digest {
    state: State,
    /// The first `filled` bytes wait for the rest of their block.
    block: [u8; MAX_BLOCK_BYTES],
    filled: usize,
    block_bytes: usize,
    total_bytes: usize,
}

impl Digest {
    pub(super) fn new(function: Function) -> Digest {
        let (state, block_bytes) = match function {
            Function::Md5 => (State::Md5([SHA1_START[0], SHA1_START[1], SHA1_START[2], SHA1_START[3]]), 64),
            Function::Sha1 => (State::Sha1(SHA1_START), 64),
            // By definition the upper halves of the words that SHA-512 starts from.
            #[cfg(feature = "users-sha2")]
            Function::Sha256 => (State::Sha256(SHA512_START.map(|word| (word >> 32) as u32)), 64),
            #[cfg(feature = "users-sha2")]
            Function::Sha512 => (State::Sha512(SHA512_START), 128),
        };
        Digest { state, block: [0; MAX_BLOCK_BYTES], filled: 0, block_bytes, total_bytes: 0 }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.total_bytes += bytes.len();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.block_bytes - self.filled));
            self.block[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == self.block_bytes {
                self.compress();
            }
        }
    }

    /// `digest` over and over, until it is so many bytes.
    pub(super) fn update_cycled(&mut self, digest: &[u8], mut bytes: usize) {
        while bytes > 0 {
            let now = bytes.min(digest.len());
            self.update(&digest[..now]);
            bytes -= now;
        }
    }

    /// The digest; behind its own length the array is zero.
    pub(super) fn finish(mut self) -> [u8; MAX_DIGEST_BYTES] {
        let total_bits = (self.total_bytes as u64) << 3;
        self.update(&[0x80]);
        // The length stands in the last 8 bytes (SHA-512 has 16, of which 8 are always zero here).
        let length_bytes = self.block_bytes / 8;
        while self.filled != self.block_bytes - length_bytes {
            self.update(&[0]);
        }
        let end = self.block_bytes;
        self.block[end - length_bytes..end].fill(0);
        let length =
            if self.is_little_endian() { total_bits.to_le_bytes() } else { total_bits.to_be_bytes() };
        self.block[end - 8..end].copy_from_slice(&length);
        self.compress();
        let mut digest = [0; MAX_DIGEST_BYTES];
        match &self.state {
            State::Md5(words) => put(&mut digest, words.iter().map(|word| word.to_le_bytes())),
            State::Sha1(words) => put(&mut digest, words.iter().map(|word| word.to_be_bytes())),
            #[cfg(feature = "users-sha2")]
            State::Sha256(words) => put(&mut digest, words.iter().map(|word| word.to_be_bytes())),
            #[cfg(feature = "users-sha2")]
            State::Sha512(words) => put(&mut digest, words.iter().map(|word| word.to_be_bytes())),
        }
        digest
    }

    fn is_little_endian(&self) -> bool {
        match self.state {
            State::Md5(_) => true,
            State::Sha1(_) => false,
            #[cfg(feature = "users-sha2")]
            State::Sha256(_) | State::Sha512(_) => false,
        }
    }

    fn compress(&mut self) {
        let Some(short) = self.block.first_chunk::<64>() else { return };
        match &mut self.state {
            State::Md5(words) => compress::md5(words, short),
            State::Sha1(words) => compress::sha1(words, short),
            #[cfg(feature = "users-sha2")]
            State::Sha256(words) => sha2::compress256(words, &[(*short).into()]),
            #[cfg(feature = "users-sha2")]
            State::Sha512(words) => sha2::compress512(words, &[self.block.into()]),
        }
        self.filled = 0;
    }
}

fn put<const N: usize>(digest: &mut [u8; MAX_DIGEST_BYTES], words: impl Iterator<Item = [u8; N]>) {
    for (place, word) in digest.chunks_exact_mut(N).zip(words) {
        place.copy_from_slice(&word);
    }
}

/// MD5 starts from the first four.
const SHA1_START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
#[cfg(feature = "users-sha2")]
const SHA512_START: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(function: Function, text: &[u8], digest_bytes: usize) -> String {
        let mut digest = Digest::new(function);
        digest.update(text);
        digest.finish()[..digest_bytes].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn md5_of_rfc_1321() {
        assert_eq!(hex(Function::Md5, b"", 16), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex(Function::Md5, b"abc", 16), "900150983cd24fb0d6963f7d28e17f72");
        let long = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        assert_eq!(hex(Function::Md5, long, 16), "57edf4a22be3c955ac49da2e2107b67a");
    }

    #[test]
    fn sha1_of_fips_180() {
        assert_eq!(hex(Function::Sha1, b"abc", 20), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(Function::Sha1, long, 20), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    }

    #[cfg(feature = "users-sha2")]
    #[test]
    fn sha2_of_fips_180() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(Function::Sha256, b"abc", 32), abc);
        let abc = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(hex(Function::Sha512, b"abc", 64), abc);
    }

    /// Lengths around the ends of blocks, in pieces of every length, against another implementation.
    #[test]
    fn lengths_around_the_ends_of_blocks() {
        let text: Vec<u8> = (0..300_u32).map(|n| (n * 7) as u8).collect();
        let functions = [
            (Function::Sha1, &ring::digest::SHA1_FOR_LEGACY_USE_ONLY),
            #[cfg(feature = "users-sha2")]
            (Function::Sha256, &ring::digest::SHA256),
            #[cfg(feature = "users-sha2")]
            (Function::Sha512, &ring::digest::SHA512),
        ];
        for (function, other) in functions {
            for bytes in 0..text.len() {
                let mut digest = Digest::new(function);
                text[..bytes].chunks(1 + bytes % 70).for_each(|piece| digest.update(piece));
                let expected = ring::digest::digest(other, &text[..bytes]);
                assert_eq!(
                    digest.finish()[..expected.as_ref().len()],
                    *expected.as_ref(),
                    "{function:?} {bytes}"
                );
            }
        }
    }

    /// A digest of the digests of all lengths, which Python's `hashlib` gave too.
    #[test]
    fn md5_of_all_lengths() {
        let text: Vec<u8> = (0..300_u32).map(|n| (n * 7) as u8).collect();
        let mut all = Digest::new(Function::Md5);
        for bytes in 0..text.len() {
            let mut digest = Digest::new(Function::Md5);
            text[..bytes].chunks(1 + bytes % 70).for_each(|piece| digest.update(piece));
            all.update(&digest.finish()[..16]);
        }
        let all: String = all.finish()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(all, "b9d5b0ec0d207bb96cccb77036c15f87");
    }
}
