//! What a ClientHello gets: one with the name in it, and where that is cut off, what becomes of others.

use rustix::rand::{GetRandomFlags, getrandom};

use super::wire::Ended;
use super::{Checking, Opened, Place, Route, cut_word};
use crate::proto::target::Host;
use crate::proto::tls_probe::{Answer, Offer, RANDOM_BYTES, Reading, alert_name, client_hello, read};
use crate::proto::unix_time::UnixTime;
use crate::proto::verdict::{Cause, CertificateFault, Cut, Probed, Without};
use crate::proto::x509::{Certificate, Moment};
use crate::sys::clock::unix_time;

/// What has no end looks like this.
const ENDLESS: &str = "TLS, but without an end";

/// What became of a hello.
enum Heard {
    /// With the server's certificate, where it comes in clear.
    Hello(Option<Vec<u8>>),
    /// It began well, as before, and then ended so.
    HelloCut(Option<Vec<u8>>, Cut),
    Alert(u8),
    NotTls(&'static str),
    Cut(Cut),
}

impl Checking<'_> {
    /// Says hello on a fresh connection, and on more of them where the answer leaves open why it is what it is.
    pub(super) fn tls(&mut self, route: Route<'_>) -> Probed {
        let name = match &self.check.host {
            Host::Name(name) => Some(&**name),
            Host::Ip(_) => None,
        };
        let opened = self.open(route)?;
        let cause = match self.hello("", opened, Offer::UpTo12, name) {
            Heard::Hello(Some(der)) => return self.certificate(&der),
            Heard::Hello(None) => return Ok(Box::default()),
            Heard::NotTls(looks_like) => return Err(Cause::NotTls(looks_like)),
            Heard::HelloCut(certificate, cut) => {
                if let Some(der) = certificate {
                    // What is wrong with it comes second.
                    let _ = self.certificate(&der);
                }
                Cause::FlightCut(cut, Without::NotTried)
            }
            Heard::Alert(alert) => Cause::TlsAlert(alert),
            Heard::Cut(cut) => Cause::TlsCut(cut, Without::NotTried),
        };
        // Perhaps only because nothing newer was offered. Who is silent, is so for longer.
        let is_silent = matches!(cause, Cause::TlsCut(Cut::Silence, _) | Cause::FlightCut(Cut::Silence, _));
        if !is_silent {
            let newer = self.hello_again("with TLS 1.3 offered: ", route, Offer::UpTo13, name);
            match (newer, &cause) {
                // Nothing is known of what follows it, of which the certificate is a part.
                (Heard::Hello(_), Cause::FlightCut(cut, _)) => {
                    return Err(Cause::FlightCut(*cut, Without::Answered));
                }
                (Heard::Hello(_), _) => {
                    return Ok(" (TLS 1.3 only, so its certificate is not seen from outside)".into());
                }
                (Heard::HelloCut(..) | Heard::Alert(_) | Heard::NotTls(_) | Heard::Cut(_), _) => {}
            }
        }
        let Cause::TlsCut(cut, _) = cause else { return Err(cause) };
        if name.is_none() || route.place == Place::Other {
            return Err(cause);
        }
        // Is it the name?
        Err(Cause::TlsCut(
            cut,
            match self.hello_again("without the name in it: ", route, Offer::UpTo12, None) {
                Heard::Hello(_) | Heard::HelloCut(..) | Heard::Alert(_) => Without::Answered,
                Heard::NotTls(_) | Heard::Cut(_) => Without::CutToo,
            },
        ))
    }

    /// On another connection.
    fn hello_again(&mut self, what: &str, route: Route<'_>, offer: Offer, name: Option<&str>) -> Heard {
        self.muted = true;
        let opened = self.open(route);
        self.muted = false;
        match opened {
            Ok(opened) => self.hello(what, opened, offer, name),
            Err(_) => {
                let begun = self.wire.now();
                self.timed_line("tls", format_args!("{what}no connection any more"), begun);
                Heard::Cut(Cut::Closed)
            }
        }
    }

    /// Sends a hello, and a line about its answer.
    fn hello(&mut self, what: &str, opened: Opened, offer: Offer, name: Option<&str>) -> Heard {
        let (mut stream, mut flight) = opened;
        let mut random = [0; RANDOM_BYTES];
        // Without any it is a hello all the same: nothing is kept secret by it.
        let _ = getrandom(&mut random[..], GetRandomFlags::empty());
        let hello = client_hello(offer, name, &random);
        let begun = self.wire.now();
        let decided = |bytes: &[u8]| matches!(read(bytes), Reading::Complete(_));
        let ended = self.wire.ask(&mut stream, &hello, &mut flight, &decided);
        match (read(&flight), ended) {
            // Whoever does not speak TLS, has then begun to say what he is.
            (Reading::Incomplete(Some(Answer::Hello { version, certificate })), Ended::Cut(cut)) => {
                let word = cut_word(cut);
                self.timed_line("tls", format_args!("{what}server hello, {version}, then {word}"), begun);
                Heard::HelloCut(certificate, cut)
            }
            (Reading::Incomplete(None), Ended::Cut(cut)) => {
                self.timed_line("tls", format_args!("{what}{} after ClientHello", cut_word(cut)), begun);
                Heard::Cut(cut)
            }
            // What is incomplete was not enough.
            (Reading::Incomplete(_), Ended::TooMuch | Ended::Enough) => {
                self.timed_line("tls", format_args!("{what}{ENDLESS}"), begun);
                Heard::NotTls(ENDLESS)
            }
            (Reading::Complete(answer) | Reading::Incomplete(Some(answer)), _) => match answer {
                Answer::Hello { version, certificate } => {
                    self.timed_line("tls", format_args!("{what}server hello, {version}"), begun);
                    Heard::Hello(certificate)
                }
                Answer::Alert(alert) => {
                    self.timed_line("tls", format_args!("{what}alert {}", alert_name(alert)), begun);
                    Heard::Alert(alert)
                }
                Answer::NotTls { looks_like, begins } => {
                    self.timed_line("tls", format_args!("{what}not TLS, {looks_like} ({begins})"), begun);
                    Heard::NotTls(looks_like)
                }
            },
        }
    }

    /// Says whose certificate it is, and whether a client would believe it as far as that can be told without its list of issuers.
    fn certificate(&mut self, der: &[u8]) -> Probed {
        let Some(certificate) = Certificate::parse(der, &self.check.host) else {
            self.line("cert", format_args!("not understood"));
            return Ok(Box::default());
        };
        self.line("cert", format_args!("subject  {}", certificate.subject));
        self.line("", format_args!("issuer   {}", certificate.issuer));
        let (from, to) = (day(&certificate.not_before), day(&certificate.not_after));
        self.line("", format_args!("valid    {from} to {to}"));
        self.line("", format_args!("names    {}", certificate.names));
        let issuer = certificate.issuer.short();
        let now = moment(unix_time());
        let fault = if !certificate.is_for_host {
            CertificateFault::OtherName
        } else if now < certificate.not_before || certificate.not_after < now {
            CertificateFault::NotValidNow
        } else if certificate.is_self_issued {
            CertificateFault::SelfSigned
        } else {
            return Ok(format!(" (certificate issued by \"{issuer}\")").into());
        };
        Err(Cause::Certificate(fault, issuer.into()))
    }
}

fn moment(time: UnixTime) -> Moment {
    let mut moment: Moment = [b'0'; 14];
    let digits = time.rfc3339().into_iter().filter(u8::is_ascii_digit);
    for (place, digit) in moment.iter_mut().zip(digits) {
        *place = digit;
    }
    moment
}

/// `2026-11-20`
fn day(moment: &Moment) -> String {
    let mut day = String::new();
    for (at, &digit) in moment.iter().take(8).enumerate() {
        if at == 4 || at == 6 {
            day.push('-');
        }
        day.push(char::from(digit));
    }
    day
}
