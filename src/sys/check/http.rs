//! What a request gets: from the destination itself, or from a proxy, which may answer for it or open a tunnel.

use super::wire::Ended;
use super::{Checking, HTTP_PORT, Opened, Route, cut_word};
use crate::proto::fields::Storage;
use crate::proto::proxy_status::{self, ProxyStatus};
use crate::proto::response::{self, AnswerTo, ResponseHead};
use crate::proto::scan::{Broken, Scan, Scanned};
use crate::proto::target::Target;
use crate::proto::tls_probe::printable;
use crate::proto::verdict::{Cause, Probed};

/// Of a field's value so much is shown.
const FIELD_BYTES: usize = 300;
const PROXY_STATUS: &str = "Proxy-Status";
/// What tells a person who has answered, and whether it was the destination.
const FIELDS_SHOWN: [&str; 4] = ["Via", PROXY_STATUS, "Proxy-Authenticate", "Location"];
/// No port is anybody's default.
const NO_PORT: u16 = 0;

/// The head of a response, as far as it matters.
struct Answer {
    status: u16,
    /// Status, reason phrase, and what `Proxy-Status` has to say.
    said: String,
    by: By,
}

/// Who has answered: the proxy or the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A proxy says that it has answered instead of the destination (RFC 9209 2.1.1).
    Proxy,
    /// One that says such things does not say this one.
    Destination,
    /// None says anything.
    Unknown,
}

impl Checking<'_> {
    /// Plain HTTP.
    pub(super) fn request(&mut self, route: Route<'_>) -> Probed {
        let mut opened = self.open_first(route)?;
        let mut request = b"GET ".to_vec();
        if self.proxy.is_some() {
            request.extend_from_slice(b"http://");
            route.target.push_host(HTTP_PORT, &mut request);
        }
        self.push_rest(route.target, HTTP_PORT, b"/ HTTP/1.1\r\nHost: ", &mut request);
        let Answer { status, said, by } = self.ask("http", &mut opened, &request)?;
        if self.proxy.is_none() {
            return Ok(Box::default());
        }
        match (status, by) {
            (407, _) => Err(Cause::ProxyCredentials),
            (_, By::Proxy) => Err(Cause::ProxyRefused(said.into())),
            (403 | 500..=599, By::Unknown) => Err(Cause::Unattributed(said.into())),
            (400..=499, By::Unknown) => {
                self.unattributed = Some(said.into());
                Ok(Box::default())
            }
            (_, By::Destination | By::Unknown) => Ok(Box::default()),
        }
    }

    /// Makes a connection to the proxy one to the target.
    pub(super) fn tunnel(&mut self, opened: &mut Opened, target: &Target) -> Result<(), Cause> {
        let mut request = b"CONNECT ".to_vec();
        target.push_host(NO_PORT, &mut request);
        self.push_rest(target, NO_PORT, b" HTTP/1.1\r\nHost: ", &mut request);
        match self.ask("proxy", opened, &request) {
            Ok(Answer { status: 200..=299, .. }) => Ok(()),
            Ok(Answer { status: 407, .. }) => Err(Cause::ProxyCredentials),
            Ok(Answer { said, .. }) => Err(Cause::ProxyRefused(said.into())),
            Err(_) => Err(Cause::ProxyBroken),
        }
    }

    fn push_rest(&self, target: &Target, default_port: u16, until_host: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(until_host);
        target.push_host(default_port, out);
        let fields = concat!("\r\nUser-Agent: adit/", env!("CARGO_PKG_VERSION"), "\r\nAccept: */*\r\n");
        out.extend_from_slice(fields.as_bytes());
        if let Some(basic) = self.check.through.as_ref().and_then(|through| through.basic.as_deref()) {
            out.extend_from_slice(b"Proxy-Authorization: Basic ");
            out.extend_from_slice(basic.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Connection: close\r\n\r\n");
    }

    /// Sends a request, and lines about the head that answers it. What comes behind that stays.
    fn ask(&mut self, label: &str, opened: &mut Opened, request: &[u8]) -> Result<Answer, Cause> {
        let (stream, bytes) = opened;
        let begun = self.wire.now();
        let has_head = |bytes: &[u8]| final_head(bytes).1 != Scanned::Incomplete;
        let ended = self.wire.ask(stream, request, bytes, &has_head);
        let (from, scanned) = final_head(bytes);
        let bad = match scanned {
            Scanned::Complete(length) => {
                let behind = bytes.split_off(from + length);
                let head = std::mem::replace(bytes, behind);
                match response::parse(
                    head.get(from..).unwrap_or_default(),
                    &mut Storage::new(),
                    AnswerTo::Head,
                ) {
                    Ok(head) => return Ok(self.show(label, &head, begun)),
                    Err(bad) => bad.0,
                }
            }
            Scanned::Bad(Broken::Byte(details)) => details,
            Scanned::Bad(Broken::FirstLineTooLong | Broken::TooLarge) => "its head is over 16 KiB",
            Scanned::Incomplete => match ended {
                Ended::Cut(cut) => {
                    self.timed_line(label, format_args!("{} after the request", cut_word(cut)), begun);
                    return Err(Cause::HttpCut(cut));
                }
                // What is incomplete was not enough.
                Ended::TooMuch | Ended::Enough => "interim responses without an end",
            },
        };
        self.timed_line(label, format_args!("not HTTP: {bad}"), begun);
        Err(Cause::NotHttp(bad))
    }

    fn show(&mut self, label: &str, head: &ResponseHead<'_>, begun: crate::proto::tick::Tick) -> Answer {
        let mut said = format!("{} {}", head.status, shown(head.reason));
        self.timed_line(label, format_args!("{said}"), begun);
        let mut by = By::Unknown;
        for name in FIELDS_SHOWN {
            for value in head.fields.values(name) {
                self.line("", format_args!("{name}: {}", shown(value)));
                if name != PROXY_STATUS || by == By::Proxy {
                    continue;
                }
                by = match proxy_status::read(value) {
                    ProxyStatus::Broken => by,
                    ProxyStatus::NoError => By::Destination,
                    ProxyStatus::Error(details) => {
                        if !details.is_empty() {
                            said.push_str(": ");
                            said.push_str(&shown(&details));
                        }
                        By::Proxy
                    }
                };
            }
        }
        Answer { status: head.status, said, by }
    }
}

fn shown(bytes: &[u8]) -> Box<str> {
    printable(bytes.get(..FIELD_BYTES).unwrap_or(bytes))
}

/// The head that answers, behind interim responses (RFC 9110 15.2), and where it begins. 101 is an answer.
fn final_head(bytes: &[u8]) -> (usize, Scanned) {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..).unwrap_or_default();
        let scanned = Scan::for_response().scan(rest);
        if let Scanned::Complete(length) = scanned
            && let Ok(ResponseHead { status: 100 | 102..=199, .. }) =
                response::parse(rest.get(..length).unwrap_or_default(), &mut Storage::new(), AnswerTo::Head)
        {
            from += length;
        } else {
            return (from, scanned);
        }
    }
}
