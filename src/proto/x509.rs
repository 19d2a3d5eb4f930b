//! What a certificate says of itself: whose it is, who issued it, from when to when and for which names. Nothing is verified:
//! this is for people to look at. A bounded walk over DER (X.690) without recursion; what is not understood is `None`.

use std::fmt::{self, Display};
use std::net::IpAddr;

use super::target::Host;
use super::tls_probe::printable;

/// Of a name in a certificate so much is shown.
const NAME_BYTES: usize = 64;
/// So many of the names that a certificate is for are kept to be shown.
const NAMES_SHOWN: usize = 3;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// GeneralName (RFC 5280 4.2.1.6).
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

const COMMON_NAME: &[u8] = b"\x55\x04\x03";
const ORGANIZATION: &[u8] = b"\x55\x04\x0a";
const SUBJECT_ALT_NAME: &[u8] = b"\x55\x1d\x11";

/// A moment as 14 digits, `YYYYMMDDhhmmss` in UTC: in this form moments compare as text.
pub type Moment = [u8; 14];

/// What is shown of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: Name,
    /// Who has issued it.
    pub issuer: Name,
    /// Whether these are the same to the last byte.
    pub is_self_issued: bool,
    /// Valid from here.
    pub not_before: Moment,
    /// To here.
    pub not_after: Moment,
    /// Of the names and addresses that it is for, the first few, with commas between them.
    pub names: String,
    /// Whether one of them is the host that was asked for (RFC 6125: a `*` is one whole label, the first one).
    pub is_for_host: bool,
}

/// Instead of a name that has nothing that is shown of it: some have a mail address only, and some nothing at all.
const NO_NAME: &str = "(no name)";

/// A distinguished name, as far as it is shown; printable ASCII, empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// CN
    pub common_name: Box<str>,
    /// O
    pub organization: Box<str>,
}

impl Certificate {
    /// Reads a certificate (RFC 5280 4.1). `None` if it is not one.
    #[must_use]
    pub fn parse(der: &[u8], asked_for: &Host) -> Option<Certificate> {
        let mut outer = Der(Der(der).expect(SEQUENCE)?);
        let mut fields = Der(outer.expect(SEQUENCE)?);
        fields.skip_if(VERSION);
        fields.expect(INTEGER)?;
        fields.expect(SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?;
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let subject = fields.expect(SEQUENCE)?;
        let mut certificate = Certificate {
            subject: Name::read(subject),
            issuer: Name::read(issuer),
            is_self_issued: subject == issuer,
            not_before: moment(validity.next()?)?,
            not_after: moment(validity.next()?)?,
            names: String::new(),
            is_for_host: false,
        };
        if let Some(names) = alternative_names(fields) {
            certificate.read_names(Der(names), asked_for);
        }
        Some(certificate)
    }

    fn read_names(&mut self, mut names: Der<'_>, asked_for: &Host) {
        let mut count = 0;
        while let Some((tag, content)) = names.next() {
            let shown = match tag {
                DNS_NAME => {
                    self.is_for_host |= is_name_of(content, asked_for);
                    text(tag, content)
                }
                IP_ADDRESS => {
                    let Some(address) = address(content) else { continue };
                    self.is_for_host |= *asked_for == Host::Ip(address);
                    address.to_string().into_boxed_str()
                }
                // A number of the peer's: mail addresses, URLs and the like.
                _ => continue,
            };
            if count < NAMES_SHOWN {
                self.names.push_str(if count == 0 { "" } else { ", " });
                self.names.push_str(&shown);
            }
            count += 1;
        }
    }
}

impl Name {
    /// The common name; without one, the organization.
    #[must_use]
    pub fn short(&self) -> &str {
        match (&*self.common_name, &*self.organization) {
            ("", "") => NO_NAME,
            ("", name) | (name, _) => name,
        }
    }

    fn read(name: &[u8]) -> Name {
        let mut read = Name::default();
        let mut sets = Der(name);
        while let Some((SET, set)) = sets.next() {
            let Some(attribute) = Der(set).expect(SEQUENCE) else { break };
            let mut attribute = Der(attribute);
            let (kind, value) = (attribute.expect(OID), attribute.next());
            let place = match kind {
                Some(COMMON_NAME) => &mut read.common_name,
                Some(ORGANIZATION) => &mut read.organization,
                Some(_) | None => continue,
            };
            if let Some((tag, value)) = value {
                *place = text(tag, value);
            }
        }
        read
    }
}

/// The names of the extension `subjectAltName`, behind the subject.
fn alternative_names(mut fields: Der<'_>) -> Option<&[u8]> {
    let extensions = loop {
        // Before them come the public key, and what nobody uses any more.
        if let (EXTENSIONS, extensions) = fields.next()? {
            break Der(extensions).expect(SEQUENCE)?;
        }
    };
    let mut extensions = Der(extensions);
    loop {
        let mut extension = Der(extensions.expect(SEQUENCE)?);
        let is_ours = extension.expect(OID)? == SUBJECT_ALT_NAME;
        if !is_ours {
            continue;
        }
        let value = match extension.next()? {
            (OCTET_STRING, value) => value,
            // Whether it is critical.
            (_, _) => extension.expect(OCTET_STRING)?,
        };
        return Der(value).expect(SEQUENCE);
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { common_name, organization } = self;
        match (&**common_name, &**organization) {
            ("", "") => f.write_str(NO_NAME),
            ("", organization) => write!(f, "O={organization}"),
            (common_name, "") => write!(f, "CN={common_name}"),
            (common_name, organization) => write!(f, "CN={common_name}, O={organization}"),
        }
    }
}

/// Values with their tags, one behind the other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let &[tag, first, ref rest @ ..] = self.0 else { return None };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // One to three bytes of length; nothing here is longer. 0x80 would be an indefinite length, which DER has not.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next value, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().and_then(|(found, content)| (found == tag).then_some(content))
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

/// A string of any type, of which only ASCII is shown.
fn text(tag: u8, bytes: &[u8]) -> Box<str> {
    if tag == BMP_STRING {
        let units = bytes.chunks_exact(2).take(NAME_BYTES);
        let bytes: Vec<u8> = units.map(|unit| if unit[0] == 0 { unit[1] } else { 0 }).collect();
        return printable(&bytes);
    }
    printable(bytes.get(..NAME_BYTES).unwrap_or(bytes))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` (RFC 5280 4.1.2.5).
fn moment((tag, content): (u8, &[u8])) -> Option<Moment> {
    let century: &[u8] = match (tag, content) {
        (UTC_TIME, [b'5'..=b'9', ..]) => b"19",
        (UTC_TIME, _) => b"20",
        (GENERALIZED_TIME, _) => b"",
        (_, _) => return None,
    };
    let digits = content.strip_suffix(b"Z")?;
    let moment: Moment = [century, digits].concat().try_into().ok()?;
    moment.iter().all(u8::is_ascii_digit).then_some(moment)
}

fn address(content: &[u8]) -> Option<IpAddr> {
    match content.len() {
        4 => <[u8; 4]>::try_from(content).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(content).ok().map(IpAddr::from),
        _ => None,
    }
}

fn is_name_of(pattern: &[u8], host: &Host) -> bool {
    let Host::Name(name) = host else { return false };
    let name = name.as_bytes();
    let (pattern, name) = match pattern.strip_prefix(b"*") {
        Some(rest) if rest.starts_with(b".") => {
            let Some(dot) = name.iter().position(|&byte| byte == b'.') else { return false };
            (rest, &name[dot..])
        }
        Some(_) | None => (pattern, name),
    };
    pattern.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests;
