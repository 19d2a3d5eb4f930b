//! `Proxy-Authorization: Basic`, decoded (RFC 7617). Anything but the exact bytes is no credentials.
//! Layer 0.5.

use super::base64;
use std::fmt;

/// What a client says it is. Shown as the user's name alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// Without colon and control characters (RFC 7617 2); may be empty.
    pub user: Vec<u8>,
    /// Everything behind the first colon; may be empty.
    pub password: Vec<u8>,
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Basic({})", self.user.escape_ascii())
    }
}

/// Reads the value of a `Proxy-Authorization` field: a [`token`] in base64, with the padding that it must have.
#[must_use]
pub fn basic(value: &[u8]) -> Option<Basic> {
    decode(token(value)?)
}

/// What stands behind `Basic`, in whatever case, and white space (RFC 9110 11.4): where it is equal, so are the credentials,
/// and nowhere else.
#[must_use]
pub fn token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    // RFC 9110 11.4 writes one or more spaces; a tab is none.
    let token = rest.get(rest.iter().position(|&byte| byte != b' ')?..)?;
    (scheme.eq_ignore_ascii_case(SCHEME) && token.len() < rest.len()).then_some(token)
}

/// The credentials in a [`token`].
#[must_use]
pub fn decode(token: &[u8]) -> Option<Basic> {
    let mut user = base64::decode(token)?;
    let password = user.split_off(user.iter().position(|&byte| byte == b':')? + 1);
    user.pop();
    (!user.iter().any(u8::is_ascii_control)).then_some(Basic { user, password })
}

const SCHEME: &[u8] = b"Basic";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(value: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        basic(value.as_bytes()).map(|basic| (basic.user, basic.password))
    }

    #[test]
    fn examples_of_rfc_7617() {
        let (user, password) = read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").unwrap();
        assert_eq!((&user[..], &password[..]), (&b"Aladdin"[..], &b"open sesame"[..]));
        let (user, password) = read("Basic dGVzdDoxMjPCow==").unwrap();
        assert_eq!((&user[..], &password[..]), (&b"test"[..], &b"123\xc2\xa3"[..]));
    }

    #[test]
    fn the_scheme_has_no_case_and_the_first_colon_counts() {
        for value in ["Basic YTpi", "basic YTpi", "BASIC   YTpi"] {
            assert_eq!(read(value), Some((b"a".to_vec(), b"b".to_vec())), "{value}");
            assert_eq!(token(value.as_bytes()), Some(&b"YTpi"[..]), "{value}");
        }
        assert_eq!(read("Basic YTpiOmM="), Some((b"a".to_vec(), b"b:c".to_vec())));
        assert_eq!(read("Basic YTo="), Some((b"a".to_vec(), Vec::new())));
        assert_eq!(read("Basic OmI="), Some((Vec::new(), b"b".to_vec())));
        assert_eq!(read("Basic Og=="), Some((Vec::new(), Vec::new())));
    }

    #[test]
    fn anything_else_is_no_credentials() {
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic    ",
            "BasicYTpi",
            "Basic\tYTpi",
            "Basic \tYTpi",
            "Basic YTpi ",
            " Basic YTpi",
            "Basic YTpi,",
            "Basic YTpi YTpi",
            "Basic YTpi, Basic YTpi",
            "Basic YTpi=",
            "Basic YTo",
            "Basic YTp=",
            "Basic YWI=",
            "Basic ====",
            "Basic YT-_",
            "Bearer YTpi",
            "Digest YTpi",
            "Basi YTpi",
            "Basic realm=\"a\"",
            // A NUL, a line feed and DEL in the user's name.
            "Basic YQA6Yg==",
            "Basic YQo6Yg==",
            "Basic YX86Yg==",
        ] {
            assert_eq!(read(value), None, "{value:?}");
        }
        assert!(basic(b"Basic YTp\xff").is_none());
    }

    #[test]
    fn a_prefix_is_never_the_whole() {
        let value = b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        let whole = basic(value).unwrap();
        for end in 0..value.len() {
            assert_ne!(basic(&value[..end]), Some(whole.clone()), "{end}");
        }
    }

    #[test]
    fn debug_does_not_show_the_password() {
        let shown = format!("{:?}", basic(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").unwrap());
        assert_eq!(shown, "Basic(Aladdin)");
    }
}
