//! Base64 (RFC 4648 4), strictly: padded, and only the one spelling that an encoder writes. Other alphabets likewise.
//! Layer 0.

/// Where letters, digits and the two other characters stand among the 64.
pub(crate) struct Alphabet {
    upper: u8,
    lower: u8,
    digits: u8,
    others: [u8; 2],
    others_from: u8,
}

/// RFC 4648 4.
const STANDARD: Alphabet = Alphabet { upper: 0, lower: 26, digits: 52, others: *b"+/", others_from: 62 };
/// `./A-Za-z0-9`, which is bcrypt's.
#[cfg(any(test, feature = "users-bcrypt"))]
pub(crate) const BCRYPT: Alphabet =
    Alphabet { upper: 2, lower: 28, digits: 54, others: *b"./", others_from: 0 };
/// `./0-9A-Za-z`, which is that of all other schemes of crypt(3).
pub(crate) const CRYPT: Alphabet =
    Alphabet { upper: 12, lower: 38, digits: 2, others: *b"./", others_from: 0 };

impl Alphabet {
    /// The six bits that a character stands for.
    pub(crate) fn value(&self, character: u8) -> Option<u8> {
        Some(match character {
            b'A'..=b'Z' => self.upper + (character - b'A'),
            b'a'..=b'z' => self.lower + (character - b'a'),
            b'0'..=b'9' => self.digits + (character - b'0'),
            _ if character == self.others[0] => self.others_from,
            _ if character == self.others[1] => self.others_from + 1,
            _ => return None,
        })
    }
}

/// `bytes` in whole groups of four characters, padded with `=`.
#[must_use]
pub fn encode(bytes: &[u8]) -> Box<str> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out.into_boxed_str()
}

/// The bytes that `text` stands for, if it is just what an encoder writes: whole groups of four, padded with `=`.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let text = text.strip_suffix(b"=").unwrap_or(text);
    let text = text.strip_suffix(b"=").unwrap_or(text);
    decode_unpadded(text, &STANDARD)
}

/// As [`decode`] for text without padding. The bits that fill up the last character are zero.
pub(crate) fn decode_unpadded(text: &[u8], alphabet: &Alphabet) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for &character in text {
        bits = bits << 6 | u32::from(alphabet.value(character)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // Six bits that are left over are a character too many.
    (count < 6 && bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn vectors_of_rfc_4648_10() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(decode(text.as_bytes()).unwrap(), bytes.as_bytes());
            assert_eq!(&*encode(bytes.as_bytes()), text);
        }
        assert_eq!(decode(b"+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        assert_eq!(&*encode(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn only_the_one_spelling_counts() {
        for text in [
            "Zg",
            "Zg=",
            "Zg===",
            "Z===",
            "=",
            "==",
            "====",
            "Zh==",
            "Zm9=",
            "Zm8",
            "Z",
            "Zm9vY",
            "Zg==Zg==",
            "Z=g=",
            "Zm9v ",
            " Zm9",
            "Zm-_",
            "Zm9\n",
            "Zm9v\r\n\r\n",
            "Zm9\u{e9}",
            "Zm9v====",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn each_alphabet_has_64_characters() {
        for (alphabet, first, last) in [(STANDARD, b'A', b'/'), (BCRYPT, b'.', b'9'), (CRYPT, b'.', b'z')] {
            let mut values: Vec<u8> = (0..=255).filter_map(|character| alphabet.value(character)).collect();
            values.sort_unstable();
            assert_eq!(values, (0..64).collect::<Vec<u8>>());
            assert_eq!((alphabet.value(first), alphabet.value(last)), (Some(0), Some(63)));
        }
    }
}
