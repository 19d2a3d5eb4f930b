//! `Proxy-Status` (RFC 9209), as far as it is asked for: whether an intermediary has answered itself, and why.

/// What the field says of who has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyStatus {
    /// An intermediary, instead of the destination (RFC 9209 2.1.1): the `details` of the first entry with an `error`, empty if that
    /// has none.
    Error(Vec<u8>),
    /// No entry has an `error`.
    NoError,
    /// A string has no end: then the field does not count (RFC 8941 4.2).
    Broken,
}

/// Reads the value of one field.
#[must_use]
pub fn read(value: &[u8]) -> ProxyStatus {
    let mut first = ProxyStatus::NoError;
    let (mut is_error, mut details) = (false, Vec::new());
    // The first part of an entry is who speaks.
    let mut is_parameter = false;
    let mut rest = value;
    loop {
        let Some((part, end)) = next_part(&mut rest) else { return ProxyStatus::Broken };
        if let (true, Some(equals)) = (is_parameter, part.iter().position(|&byte| byte == b'=')) {
            match part[..equals].trim_ascii() {
                b"error" => is_error = true,
                b"details" => details = text(&part[equals + 1..]),
                // All the other parameters, of this RFC and of others.
                _ => {}
            }
        }
        is_parameter = end == Some(b';');
        if !is_parameter {
            let details = std::mem::take(&mut details);
            if std::mem::take(&mut is_error) && first == ProxyStatus::NoError {
                first = ProxyStatus::Error(details);
            }
        }
        if end.is_none() {
            return first;
        }
    }
}

/// What stands before the next `;` or `,` outside strings, and which of them it is, or neither at the end.
fn next_part<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<u8>)> {
    let (mut in_string, mut is_escaped) = (false, false);
    for (at, &byte) in rest.iter().enumerate() {
        match byte {
            _ if std::mem::take(&mut is_escaped) => {}
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b';' | b',' if !in_string => {
                let (part, behind) = rest.split_at(at);
                *rest = &behind[1..];
                return Some((part, Some(byte)));
            }
            _ => {}
        }
    }
    (!in_string).then_some((*rest, None))
}

/// A string without its quotation marks and escapes; a token as it is.
fn text(value: &[u8]) -> Vec<u8> {
    let mut bytes = value.trim_ascii().iter();
    let mut text = Vec::new();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => {}
            b'\\' => text.extend(bytes.next()),
            _ => text.push(byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_error_has_answered_itself() {
        for (value, details) in [
            ("adit; error=http_request_denied; details=\"--deny *\"", Some("--deny *")),
            ("\"a; b\";error=x;details=\"a \\\"b\\\" \\\\ c; d, e\" ; rcode=3", Some("a \"b\" \\ c; d, e")),
            ("a.test;received-status=200, b.test ; error=y", Some("")),
            ("a;error=x;details=\"one\", b;error=x;details=\"two\"", Some("one")),
            ("a;details=\"one\", b;error=x", Some("")),
            ("a;error=x;details=token", Some("token")),
            // Not parameters.
            ("", None),
            ("a", None),
            ("error=x", None),
            ("a, error=x", None),
            ("a;details=\"error=x\"", None),
            ("a;details=\"b; error=x\"", None),
            ("a;details=\"b\\\"; error=x\"", None),
            ("\"a;error=x\"", None),
            ("a;next-hop-error=x", None),
            ("a;error-code=x", None),
            ("a;error", None),
        ] {
            let says =
                details.map_or(ProxyStatus::NoError, |details| ProxyStatus::Error(details.as_bytes().into()));
            assert_eq!(read(value.as_bytes()), says, "{value}");
        }
        for broken in ["a;error=x;details=\"b", "a;error=x;details=\"b\\\"", "\"a"] {
            assert_eq!(read(broken.as_bytes()), ProxyStatus::Broken, "{broken}");
        }
    }
}
