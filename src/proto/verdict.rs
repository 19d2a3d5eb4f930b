//! Why a destination is not reachable, as `adit check` says it: one table from cause to sentence and exit code, and the one
//! sentence about everything that was probed.

use std::borrow::Cow;

use super::reply::Refusal;
use super::tls_probe::alert_name;

/// Exit code for a destination that is reachable.
pub const EXIT_REACHABLE: u8 = 0;
/// Exit code when the system failed, before anything can be said of the destination.
pub const EXIT_SYSTEM: u8 = 1;

/// How a connection ended that stood, before it had brought an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// By a RST.
    Reset,
    /// By a FIN.
    Closed,
    /// Nothing came in time.
    Silence,
}

/// What becomes of a handshake without what filters look for: the name in the ClientHello, or a certificate in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// It was not there, or not the question.
    NotTried,
    /// It is cut off as well.
    CutToo,
    /// It is answered.
    Answered,
}

/// Why a client that verifies certificates would go no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// It is not for the host that was asked for.
    OtherName,
    /// Not yet or no longer.
    NotValidNow,
    /// Its issuer is its subject.
    SelfSigned,
}

/// Why a destination is not reachable: one variant a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client of the proxy would be told so.
    Refused(Refusal),
    /// The server answers the ClientHello with this alert.
    TlsAlert(u8),
    /// The connection stands, and the ClientHello is its end; what becomes of one without the name.
    TlsCut(Cut, Without),
    /// The ServerHello of TLS 1.2 or older comes, and not all that must follow it; whether one of TLS 1.3 comes.
    FlightCut(Cut, Without),
    /// The server answers the ClientHello with something else; what it looks like.
    NotTls(&'static str),
    /// TLS is spoken, with a certificate that a client does not accept, from this issuer.
    Certificate(CertificateFault, Box<str>),
    /// The connection stands, and the request is its end.
    HttpCut(Cut),
    /// The answer to the request is not HTTP, or ambiguous. One sentence says what.
    NotHttp(&'static str),
    /// The request is answered with this error, through a proxy, and nothing says which of the two has answered. Status and reason
    /// phrase.
    Unattributed(Box<str>),
    /// What this cause says is not so at all addresses that accept connections, or was asked at several: which behave how.
    At(Box<Cause>, Box<str>),
    /// The proxy that is asked through refuses; its status and reason phrase.
    ProxyRefused(Box<str>),
    /// It wants credentials, or others.
    ProxyCredentials,
    /// There is no way to it: one word says why.
    ProxyUnreachable(&'static str),
    /// It does not answer as a proxy does.
    ProxyBroken,
}

impl Cause {
    /// The exit code of `adit check`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Cause::Refused(refusal) => refusal_exit_code(refusal),
            Cause::TlsAlert(_) => 40,
            Cause::TlsCut(Cut::Reset, _) | Cause::FlightCut(Cut::Reset, _) => 41,
            Cause::TlsCut(Cut::Closed, _) | Cause::FlightCut(Cut::Closed, _) => 42,
            Cause::TlsCut(Cut::Silence, _) | Cause::FlightCut(Cut::Silence, _) => 43,
            Cause::NotTls(_) => 44,
            Cause::Certificate(CertificateFault::OtherName, _) => 45,
            Cause::Certificate(CertificateFault::NotValidNow, _) => 46,
            Cause::Certificate(CertificateFault::SelfSigned, _) => 47,
            Cause::HttpCut(Cut::Reset) => 50,
            Cause::HttpCut(Cut::Closed) => 51,
            Cause::HttpCut(Cut::Silence) => 52,
            Cause::NotHttp(_) => 53,
            Cause::Unattributed(_) => 54,
            Cause::At(cause, _) => cause.exit_code(),
            Cause::ProxyRefused(_) => 60,
            Cause::ProxyCredentials => 61,
            Cause::ProxyUnreachable(_) => 62,
            Cause::ProxyBroken => 63,
        }
    }

    /// Whether it may be so at one address of the destination and not at others.
    #[must_use]
    pub fn may_differ_by_address(&self) -> bool {
        matches!(self, Cause::TlsAlert(_) | Cause::TlsCut(..) | Cause::FlightCut(..) | Cause::HttpCut(_))
    }

    /// Whether two addresses behave alike, as far as both were asked.
    #[must_use]
    pub fn is_like(&self, other: &Cause) -> bool {
        match (self, other) {
            (Cause::TlsCut(cut, _), Cause::TlsCut(other, _))
            | (Cause::FlightCut(cut, _), Cause::FlightCut(other, _)) => cut == other,
            (cause, other) => cause == other,
        }
    }

    /// Completes "it is not reachable:".
    #[must_use]
    pub fn sentence(&self) -> Cow<'static, str> {
        match self {
            // What the table says is for clients, for whom the whole of --dial-timeout is waited.
            Cause::Refused(Refusal::DialTimeout) => {
                "the destination does not answer a connection attempt".into()
            }
            Cause::Refused(refusal) => refusal.details(),
            Cause::TlsAlert(112) => "the server does not know this name (TLS alert unrecognized_name)".into(),
            Cause::TlsAlert(alert) => {
                ["the server answers the ClientHello with the alert ", alert_name(*alert)].concat().into()
            }
            Cause::TlsCut(cut, nameless) => tls_cut(*cut, *nameless).concat().into(),
            Cause::FlightCut(cut, hidden) => flight_cut(*cut, *hidden).concat().into(),
            Cause::NotTls(looks_like) => {
                ["the server does not speak TLS on this port; it looks like ", looks_like].concat().into()
            }
            Cause::Certificate(fault, issuer) => {
                let fault = match fault {
                    CertificateFault::OtherName => "the certificate is for another name, issued by \"",
                    CertificateFault::NotValidNow => {
                        "the certificate has expired or is not valid yet, or the clock here is wrong; issued by \""
                    }
                    CertificateFault::SelfSigned => {
                        "the certificate is self-signed, no client trusts it unless told to; issued by \""
                    }
                };
                [fault, issuer, "\""].concat().into()
            }
            Cause::HttpCut(cut) => match cut {
                Cut::Reset => "the connection is reset after the request",
                Cut::Closed => "the connection is closed without an answer to the request",
                Cut::Silence => "the request gets no answer",
            }
            .into(),
            Cause::NotHttp(details) => ["the answer is not HTTP: ", details].concat().into(),
            Cause::Unattributed(status) => {
                let who = ": by the proxy or the destination, it does not say";
                ["the request is answered ", status, who].concat().into()
            }
            Cause::At(cause, which) => [&cause.sentence(), &**which].concat().into(),
            Cause::ProxyRefused(status) => ["the proxy says ", status].concat().into(),
            Cause::ProxyCredentials => "the proxy wants credentials: http://USER:PASSWORD@PROXY:PORT".into(),
            Cause::ProxyUnreachable(why) => ["there is no way to the proxy: ", why].concat().into(),
            Cause::ProxyBroken => "the proxy does not answer as a proxy does".into(),
        }
    }
}

fn tls_cut(cut: Cut, nameless: Without) -> [&'static str; 2] {
    let cut = match cut {
        Cut::Reset => "the connection is reset after the ClientHello",
        Cut::Closed => "the connection is closed after the ClientHello",
        Cut::Silence => "the ClientHello gets no answer",
    };
    let why = match nameless {
        Without::NotTried => ": a filter between here and the destination, or no TLS server",
        Without::CutToo => {
            ", with and without the name in it: a filter between here and the destination, or no TLS server"
        }
        Without::Answered => {
            ", and is not without the name in it: a filter on the name between here and the destination"
        }
    };
    [cut, why]
}

fn flight_cut(cut: Cut, hidden: Without) -> [&'static str; 2] {
    let cut = match cut {
        Cut::Reset => "the connection is reset after the ServerHello",
        Cut::Closed => "the connection is closed after the ServerHello",
        // The long packets of the certificate are the first that are too long for a narrow path (RFC 2923 2.1).
        Cut::Silence => {
            return [
                "nothing comes after the ServerHello",
                ": large packets get lost on the way (path MTU), or a filter on the certificate",
            ];
        }
    };
    let why = match hidden {
        Without::NotTried | Without::CutToo => {
            ": a filter between here and the destination, or a server that fails"
        }
        Without::Answered => {
            ", and with TLS 1.3, which hides the certificate, a ServerHello comes too: a filter on the certificate, or a server that fails"
        }
    };
    [cut, why]
}

/// What is refused before and while dialing; the rest of the table is about requests and clients.
fn refusal_exit_code(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::DeniedByRule { .. } | Refusal::AddressDenied { .. } => 10,
        Refusal::DeniedByDefault => 11,
        Refusal::PortNotAllowed { .. } => 12,
        Refusal::Guarded { .. } => 13,
        Refusal::Loop | Refusal::ViaLoop => 14,
        Refusal::NameNotFound { .. } => 20,
        Refusal::ResolverFailed { .. } | Refusal::NoNameserver => 21,
        Refusal::DnsTimeout { .. } => 22,
        Refusal::FamilyExcluded => 23,
        Refusal::ConnectionRefused => 30,
        Refusal::Unroutable => 31,
        Refusal::DialTimeout => 32,
        Refusal::ConnectionReset | Refusal::DialFailed => 33,
        Refusal::BadRequest(_)
        | Refusal::BadTarget(_)
        | Refusal::NotAuthenticated(_)
        | Refusal::LoginsBusy
        | Refusal::ClientLoginsBusy
        | Refusal::ClientNotAllowed
        | Refusal::HeadTimeout
        | Refusal::RequestLineTooLong
        | Refusal::HeadTooLarge
        | Refusal::TooManyHeaders
        | Refusal::UnknownTransferCoding
        | Refusal::UnsupportedVersion
        | Refusal::ResolverBusy
        | Refusal::ResponseIncomplete
        | Refusal::BadResponse(_)
        | Refusal::ResponseHeadTooLarge
        | Refusal::ResponseTimeout
        | Refusal::BodyTimeout
        | Refusal::SessionLimit
        | Refusal::ClientSessionLimit
        | Refusal::BufferMemory
        | Refusal::Descriptors
        | Refusal::ShuttingDown => EXIT_SYSTEM,
    }
}

/// How one probe ended: well, with what is worth being said about it (possibly nothing), or not.
pub type Probed = Result<Box<str>, Cause>;

/// Everything in one sentence, and the exit code: that of what ended badly, of CONNECT before plain HTTP. One of them at least
/// was probed.
#[must_use]
pub fn verdict(connect: Option<&Probed>, http: Option<&Probed>) -> (String, u8) {
    let mut text = String::new();
    let mut say = |parts: &[&str]| parts.iter().for_each(|part| text.push_str(part));
    let code = match (connect, http) {
        (Some(Ok(note)), Some(Ok(_)) | None) | (None, Some(Ok(note))) => {
            say(&["reachable", note]);
            EXIT_REACHABLE
        }
        (Some(Err(cause)), Some(Ok(_))) => {
            say(&["HTTP works and HTTPS does not: ", &cause.sentence()]);
            cause.exit_code()
        }
        (Some(Ok(note)), Some(Err(cause))) => {
            say(&["HTTPS works", note, " and HTTP does not: ", &cause.sentence()]);
            cause.exit_code()
        }
        (Some(Err(cause)), Some(Err(http))) if cause.sentence() != http.sentence() => {
            say(&["not reachable: HTTPS: ", &cause.sentence(), "; HTTP: ", &http.sentence()]);
            cause.exit_code()
        }
        (Some(Err(cause)), Some(Err(_)) | None) | (None, Some(Err(cause))) => {
            let so_far = if matches!(cause, Cause::Certificate(..)) {
                "reachable, but "
            } else if matches!(cause, Cause::Unattributed(_)) {
                "unclear: "
            } else {
                "not reachable: "
            };
            say(&[so_far, &cause.sentence()]);
            cause.exit_code()
        }
        // The caller's slip.
        (None, None) => EXIT_SYSTEM,
    };
    (text, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Cause {
        Cause::Refused(Refusal::DeniedByRule { rule: "--deny .example.com".into() })
    }

    #[test]
    fn every_cause_has_its_own_exit_code_and_sentence() {
        let causes = [
            denied(),
            Cause::Refused(Refusal::DeniedByDefault),
            Cause::Refused(Refusal::PortNotAllowed { port: 22, option: "--connect-port" }),
            Cause::Refused(Refusal::Guarded { range: "private" }),
            Cause::Refused(Refusal::Loop),
            Cause::Refused(Refusal::NameNotFound { rcode: 3 }),
            Cause::Refused(Refusal::ResolverFailed { rcode: Some(2) }),
            Cause::Refused(Refusal::DnsTimeout { servers: "192.0.2.53:53".into() }),
            Cause::Refused(Refusal::FamilyExcluded),
            Cause::Refused(Refusal::ConnectionRefused),
            Cause::Refused(Refusal::Unroutable),
            Cause::Refused(Refusal::DialTimeout),
            Cause::Refused(Refusal::ConnectionReset),
            Cause::TlsAlert(40),
            Cause::TlsCut(Cut::Reset, Without::Answered),
            Cause::TlsCut(Cut::Closed, Without::CutToo),
            Cause::TlsCut(Cut::Silence, Without::NotTried),
            Cause::NotTls("SSH"),
            Cause::Certificate(CertificateFault::OtherName, "X".into()),
            Cause::Certificate(CertificateFault::NotValidNow, "X".into()),
            Cause::Certificate(CertificateFault::SelfSigned, "X".into()),
            Cause::HttpCut(Cut::Reset),
            Cause::HttpCut(Cut::Closed),
            Cause::HttpCut(Cut::Silence),
            Cause::NotHttp("it does not begin with HTTP/"),
            Cause::Unattributed("403 No".into()),
            Cause::ProxyRefused("403 No".into()),
            Cause::ProxyCredentials,
            Cause::ProxyUnreachable("refused"),
            Cause::ProxyBroken,
        ];
        for (nth, cause) in causes.iter().enumerate() {
            assert!(cause.exit_code() >= 10, "{cause:?}");
            for other in &causes[..nth] {
                assert_ne!(cause.exit_code(), other.exit_code(), "{cause:?} {other:?}");
                assert_ne!(cause.sentence(), other.sentence());
            }
        }
    }

    #[test]
    fn a_handshake_that_is_cut_later_has_the_code_of_the_cut_and_its_own_sentence() {
        let without = [Without::NotTried, Without::CutToo, Without::Answered];
        for cut in [Cut::Reset, Cut::Closed, Cut::Silence] {
            for without in without {
                let (early, late) = (Cause::TlsCut(cut, without), Cause::FlightCut(cut, without));
                assert_eq!(early.exit_code(), late.exit_code());
                assert!(early.sentence().contains("ClientHello") && late.sentence().contains("ServerHello"));
                assert!(early.may_differ_by_address() && late.may_differ_by_address());
                assert!(!early.is_like(&late) && early.is_like(&Cause::TlsCut(cut, Without::NotTried)));
            }
        }
        assert!(!Cause::TlsAlert(40).is_like(&Cause::TlsAlert(80)));
        assert!(!Cause::NotTls("SSH").may_differ_by_address());
    }

    #[test]
    fn the_last_line_tells_http_and_https_apart() {
        let well = || Ok(Box::default());
        for (connect, http, text, code) in [
            (Some(well()), Some(well()), "reachable", 0),
            (None, Some(well()), "reachable", 0),
            (
                Some(Ok(", certificate issued by \"X\"".into())),
                None,
                "reachable, certificate issued by \"X\"",
                0,
            ),
            (
                Some(Err(Cause::TlsCut(Cut::Reset, Without::Answered))),
                Some(well()),
                "HTTP works and HTTPS does not: the connection is reset after the ClientHello, and is not without the \
                 name in it: a filter on the name between here and the destination",
                41,
            ),
            (
                Some(well()),
                Some(Err(Cause::HttpCut(Cut::Closed))),
                "HTTPS works and HTTP does not: the connection is closed without an answer to the request",
                51,
            ),
            (
                None,
                Some(Err(Cause::Unattributed("403 No".into()))),
                "unclear: the request is answered 403 No: by the proxy or the destination, it does not say",
                54,
            ),
            (
                Some(Err(Cause::At(Cause::TlsAlert(80).into(), " (at 192.0.2.1; 192.0.2.2 answers)".into()))),
                None,
                "not reachable: the server answers the ClientHello with the alert internal_error \
                 (at 192.0.2.1; 192.0.2.2 answers)",
                40,
            ),
            (
                Some(Err(denied())),
                Some(Err(denied())),
                "not reachable: --deny .example.com names this destination",
                10,
            ),
            (
                Some(Err(Cause::TlsAlert(40))),
                Some(Err(Cause::Refused(Refusal::ConnectionRefused))),
                "not reachable: HTTPS: the server answers the ClientHello with the alert handshake_failure; \
                 HTTP: the destination does not listen on this port",
                40,
            ),
        ] {
            assert_eq!(verdict(connect.as_ref(), http.as_ref()), (text.to_owned(), code));
        }
    }
}
