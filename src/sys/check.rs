//! `adit check`: walks the way of a request with the proxy's own code, one step after the other, says what each step finds, and
//! at the end why the destination is, or is not, reachable. Layer 5.9.

mod http;
mod tls;
mod wire;

use std::fmt::{self, Write};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use mio::net::TcpStream;

use self::wire::{Found, Wire};
use super::names::NamesConfig;
use super::settings::Settings;
use crate::config::{Check, Config, TlsProbe};
use crate::proto::eyeballs::{self, ATTEMPT_DELAY_MS, Eyeballs};
use crate::proto::failure::Failure;
use crate::proto::reply::Refusal;
use crate::proto::rules::{Early, Rules, Service, Verdict, Who};
use crate::proto::session::resolve_refusal;
use crate::proto::target::{Host, Target};
use crate::proto::tick::Tick;
use crate::proto::verdict::{Cause, Cut, Probed, verdict};

/// The longest wait for a connection or an answer; `--dial-timeout` where that is shorter. Who waits for longer, waits in vain.
pub const PROBE_WAIT_MAX_MS: u64 = 5_000;
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Of a destination's other addresses that accept connections so many are asked how they behave.
const OTHERS_ASKED: usize = 4;
/// How what is said of an answer begins.
const STATUS_DIGITS: usize = 3;

/// Probes what `check` names and says to `out` what it finds, which ends with the verdict. Returns the exit code. `settings` and
/// `names` are those that a proxy with the same options has.
///
/// # Errors
/// When the system has no descriptor left.
pub fn run(
    check: &Check,
    settings: &Settings,
    names: NamesConfig,
    out: &mut dyn FnMut(&str),
) -> io::Result<u8> {
    let config = &settings.config;
    let policy = settings.policy(&config.listen);
    let rules = &policy.rules;
    let wire = Wire::new(names, config.sources, PROBE_WAIT_MAX_MS.min(config.timeouts.dial_ms))?;
    let client = client(config, rules);
    let mut checking = Checking {
        check,
        config,
        rules,
        client,
        wire,
        out,
        found: None,
        proxy: None,
        muted: false,
        at: String::new(),
        unattributed: None,
    };
    let (http, connect) = checking.probes();
    let (sentence, code) = verdict(connect.as_ref(), http.as_ref());
    checking.text(format_args!("\nverdict: {sentence}\n"));
    Ok(code)
}

/// For whom it is asked: loopback, if it may use the proxy at all, else the first address that may.
fn client(config: &Config, rules: &Rules) -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match config.policy.clients.first() {
        Some(net) if !rules.client_may(loopback) => net.address(),
        Some(_) | None => loopback,
    }
}

struct Checking<'a> {
    check: &'a Check,
    config: &'a Config,
    rules: &'a Rules,
    client: IpAddr,
    wire: Wire,
    out: &'a mut dyn FnMut(&str),
    /// What the name was found to be.
    found: Option<Result<Rc<Found>, Refusal>>,
    /// Where the proxy of `--through` is.
    proxy: Option<SocketAddr>,
    /// What is done once more is not said once more.
    muted: bool,
    /// Stands before what one of several addresses is found to do.
    at: String,
    /// The answer to plain HTTP, if it is an error of whom the proxy does not say that it is its own, and most are not.
    unattributed: Option<Box<str>>,
}

/// A connection that stands, and what has come over it.
type Opened = (TcpStream, Vec<u8>);

/// The way to a destination: by what address, of its own or of the proxy.
#[derive(Clone, Copy)]
struct Route<'a> {
    address: SocketAddr,
    target: &'a Target,
    place: Place,
}

/// How much is asked at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Everything: here a client gets its connection.
    First,
    /// As much as it takes to tell whether it behaves like the first.
    Other,
}

impl Checking<'_> {
    /// Plain HTTP and CONNECT, as far as they are asked for.
    fn probes(&mut self) -> (Option<Probed>, Option<Probed>) {
        let host = &self.check.host;
        match &self.check.through {
            None => {
                let nameless = if self.config.users.is_some() { " without a user name" } else { "" };
                let client = self.client;
                self.text(format_args!("{host}, for a client at {client}{nameless}\n"));
            }
            Some(through) => {
                let proxy = &through.proxy;
                self.text(format_args!(
                    "{host} through the proxy http://{proxy}: its options decide, not these\n\n"
                ));
                match self.reach(&through.proxy) {
                    Ok(address) => self.proxy = Some(address),
                    Err(cause) => return (None, Some(Err(cause))),
                }
            }
        }
        let (http, connect) = match (self.check.port, self.check.tls) {
            (None, TlsProbe::ByPort) => (Some(HTTP_PORT), Some(HTTPS_PORT)),
            (Some(HTTP_PORT), TlsProbe::ByPort) => (Some(HTTP_PORT), None),
            (port, TlsProbe::ByPort | TlsProbe::Always) => (None, port.or(Some(HTTPS_PORT))),
        };
        let http = http.map(|port| self.probe(Service::Http, port));
        let connect = connect.map(|port| self.probe(Service::Connect, port));
        // An error that answers CONNECT is the proxy's: the same one may well be, where it answers plain HTTP.
        let http = match (self.unattributed.take(), http, &connect) {
            (Some(said), Some(Ok(_)), Some(Err(Cause::ProxyRefused(other))))
                if said.get(..STATUS_DIGITS) == other.get(..STATUS_DIGITS) =>
            {
                Some(Err(Cause::Unattributed(said)))
            }
            (_, http, _) => http,
        };
        match (&http, &connect, self.check.port) {
            // A port of neither kind may be open for the other one.
            (None, Some(Err(Cause::Refused(Refusal::PortNotAllowed { .. }))), Some(port)) => {
                match self.probe(Service::Http, port) {
                    Err(Cause::Refused(Refusal::PortNotAllowed { .. })) => (None, connect),
                    Err(cause) => (Some(Err(cause)), None),
                    Ok(_) => {
                        let note = " by plain HTTP, and not by CONNECT, whose ports are in --connect-port";
                        (Some(Ok(note.into())), None)
                    }
                }
            }
            _ => (http, connect),
        }
    }

    fn probe(&mut self, service: Service, port: u16) -> Probed {
        let target = &Target { host: self.check.host.clone(), port, is_absolute: self.check.is_absolute };
        let what = match service {
            Service::Connect => "\nCONNECT ",
            Service::Http => "\nplain HTTP to ",
        };
        self.text(format_args!("{what}{target}\n"));
        let addresses = match self.proxy {
            Some(proxy) => vec![proxy],
            None => self.judge_and_dial(service, target)?,
        };
        match service {
            Service::Http => self.ask_each(target, &addresses, Checking::request),
            Service::Connect if port == HTTPS_PORT || self.check.tls == TlsProbe::Always => {
                self.ask_each(target, &addresses, Checking::tls)
            }
            // All of them have been connected to.
            Service::Connect if self.proxy.is_none() => Ok(Box::default()),
            Service::Connect => {
                self.ask_each(target, &addresses, |this, route| this.open(route).map(|_| Box::default()))
            }
        }
    }

    /// Asks at the first address, as a client would; where that fails in a way that others need not, at some of the others too.
    fn ask_each(
        &mut self,
        target: &Target,
        addresses: &[SocketAddr],
        ask: fn(&mut Self, Route<'_>) -> Probed,
    ) -> Probed {
        let Some((&first, others)) = addresses.split_first() else { return Ok(Box::default()) };
        let width = addresses.iter().map(|address| address.ip().to_string().len()).max().unwrap_or(0);
        let mut ask_at = |address: SocketAddr, place| {
            if !others.is_empty() {
                self.at = format!("{:width$}  ", address.ip());
            }
            let probed = ask(self, Route { address, target, place });
            self.at.clear();
            probed
        };
        let cause = match ask_at(first, Place::First) {
            Err(cause) if cause.may_differ_by_address() && !others.is_empty() => cause,
            probed => return probed,
        };
        let mut which = format!(" (at {}", first.ip());
        for (nth, other) in others.iter().enumerate() {
            // Writing to a String cannot fail.
            if nth == OTHERS_ASKED {
                let _ = write!(which, "; {} more not asked", others.len() - nth);
                break;
            }
            let how = match ask_at(*other, Place::Other) {
                Ok(_) | Err(Cause::Certificate(..)) => "answers",
                Err(other) if other.is_like(&cause) => "likewise",
                Err(_) => "fails otherwise",
            };
            let _ = write!(which, "; {} {how}", other.ip());
        }
        which.push(')');
        Err(Cause::At(Box::new(cause), which.into()))
    }

    /// As the proxy would: the name, its addresses, each of them.
    fn judge_and_dial(&mut self, service: Service, target: &Target) -> Result<Vec<SocketAddr>, Cause> {
        match self.rules.judge_name(self.who(), target, service) {
            Early::Refuse(refusal, rule) => {
                self.line("name", format_args!("rule={rule}  {}", refusal.details()));
                return Err(Cause::Refused(refusal));
            }
            Early::Resolve(Some(rule)) => self.line("name", format_args!("rule={rule}")),
            Early::Resolve(None) if matches!(target.host, Host::Ip(_)) => {}
            Early::Resolve(None) => {
                self.line("name", format_args!("no rule speaks for it; its addresses decide"))
            }
        }
        let found = match self.found.clone() {
            Some(found) => {
                self.dns_line(target, format_args!("as above"));
                found
            }
            None => self.look_up(target).map(Rc::new),
        };
        self.found = Some(found.clone());
        found.and_then(|found| self.dial(service, target, &found)).map_err(Cause::Refused)
    }

    fn who(&self) -> Who<'static> {
        Who { address: self.client, user: None }
    }

    /// The addresses of a host, and a line about them.
    fn look_up(&mut self, target: &Target) -> Result<Found, Refusal> {
        let begun = self.wire.now();
        let found = self.wire.resolve(target).map_err(|error| resolve_refusal(&error));
        let ms = self.wire.now().since(begun);
        let mut answer = String::new();
        match &found {
            Ok(found) => {
                for address in &found.addresses {
                    let comma = if answer.is_empty() { "" } else { ", " };
                    // Writing to a String cannot fail.
                    let _ = write!(answer, "{comma}{address}");
                }
                if let Some(name) = &found.completed {
                    answer.push_str(" for ");
                    answer.push_str(name);
                }
            }
            Err(refusal) => answer.push_str(&refusal.details()),
        }
        match self.wire.last_asked() {
            Some(server) => {
                self.dns_line(target, format_args!("{answer} (nameserver {server}, {ms} ms)"));
            }
            None if found.is_ok() => {
                self.dns_line(target, format_args!("{answer} (hosts file or localhost)"));
            }
            None => self.dns_line(target, format_args!("{answer}")),
        }
        found
    }

    /// Judges and tries every address in the proxy's own order, one after the other: those that accept connections.
    /// Without one, it is refused as a client would be.
    fn dial(&mut self, service: Service, target: &Target, found: &Found) -> Result<Vec<SocketAddr>, Refusal> {
        // Not the time of day: each attempt is over before the next is due.
        let mut clock = Tick(0);
        let mut eyeballs = Eyeballs::new(self.config.families, clock);
        eyeballs.add(found.addresses.clone(), true, clock);
        let mut connected = Vec::new();
        let width = found.addresses.iter().map(|ip| ip.to_string().len()).max().unwrap_or(0);
        while let Some(ip) = eyeballs.next_candidate(clock) {
            let completed = found.completed.as_deref();
            match self.rules.judge_address(self.who(), target, completed, ip, service) {
                Verdict::Deny(refusal, rule) => {
                    let why = refusal.details();
                    self.line("tcp", format_args!("{ip:width$}  rule={rule}  not tried: {why}"));
                    eyeballs.note_denied(refusal, rule);
                }
                Verdict::Allow(rule) => {
                    let address = SocketAddr::new(ip, target.port);
                    let result = self.connect("tcp", format_args!("{ip:width$}  rule={rule}"), address);
                    eyeballs.begin(address, rule, clock);
                    eyeballs.started();
                    match result {
                        Ok(()) => {
                            eyeballs.take(FIRST_PLACE);
                            connected.push(address);
                        }
                        Err(failure) => eyeballs.failed(FIRST_PLACE, failure, clock),
                    }
                    clock = clock.after(ATTEMPT_DELAY_MS);
                }
            }
        }
        if !connected.is_empty() {
            return Ok(connected);
        }
        Err(match eyeballs.verdict() {
            Some(eyeballs::Verdict::Failed(failure)) => failure.refusal(),
            Some(eyeballs::Verdict::Denied(refusal, _)) => refusal,
            Some(eyeballs::Verdict::Excluded) => Refusal::FamilyExcluded,
            Some(eyeballs::Verdict::Nothing) | None => Refusal::NameNotFound { rcode: 0 },
        })
    }

    /// The address at which the proxy of `--through` accepts connections. No rule of ours speaks of it.
    fn reach(&mut self, proxy: &Target) -> Result<SocketAddr, Cause> {
        let found =
            self.look_up(proxy).map_err(|_| Cause::ProxyUnreachable("its name leads to no address"))?;
        let mut why = "its name leads to no address";
        for ip in found.addresses {
            let address = SocketAddr::new(ip, proxy.port);
            match self.connect("proxy", format_args!("{address}"), address) {
                Ok(()) => return Ok(address),
                Err(failure) => why = failure_word(failure),
            }
        }
        Err(Cause::ProxyUnreachable(why))
    }

    /// One attempt, and a line about it.
    fn connect(&mut self, label: &str, what: fmt::Arguments<'_>, address: SocketAddr) -> Result<(), Failure> {
        let begun = self.wire.now();
        let connected = self.dial_once(address).map(|_| ());
        let result = match connected {
            Ok(()) => "connected",
            Err(failure) => failure_word(failure),
        };
        self.timed_line(label, format_args!("{what}  {result}"), begun);
        connected
    }

    fn dial_once(&mut self, address: SocketAddr) -> Result<TcpStream, Failure> {
        // The proxy of `--through` may well be the very one that these options are for.
        let rules = if self.check.through.is_none() { Some(self.rules) } else { None };
        self.wire.connect(address, rules)
    }

    /// A connection to whom the route leads first. Nothing is said about it: somebody went that way before.
    fn open_first(&mut self, route: Route<'_>) -> Result<Opened, Cause> {
        match self.dial_once(route.address) {
            Ok(stream) => Ok((stream, Vec::new())),
            Err(failure) if self.proxy.is_some() => Err(Cause::ProxyUnreachable(failure_word(failure))),
            Err(failure) => Err(Cause::Refused(failure.refusal())),
        }
    }

    /// A connection to the destination itself.
    fn open(&mut self, route: Route<'_>) -> Result<Opened, Cause> {
        let mut opened = self.open_first(route)?;
        if self.proxy.is_some() {
            self.tunnel(&mut opened, route.target)?;
        }
        Ok(opened)
    }

    /// An address needs none.
    fn dns_line(&mut self, target: &Target, text: fmt::Arguments<'_>) {
        match target.host {
            Host::Name(_) => self.line("dns", text),
            Host::Ip(_) => {}
        }
    }

    /// With the time that has passed.
    fn timed_line(&mut self, label: &str, text: fmt::Arguments<'_>, begun: Tick) {
        let ms = self.wire.now().since(begun);
        if !self.muted {
            // As in text().
            let _ = Out(self.out).write_fmt(format_args!("  {label:7} {}{text} in {ms} ms\n", self.at));
        }
    }

    /// Labels stand in a column.
    fn line(&mut self, label: &str, text: fmt::Arguments<'_>) {
        if !self.muted {
            self.text(format_args!("  {label:7} {text}\n"));
        }
    }

    fn text(&mut self, text: fmt::Arguments<'_>) {
        // What is not taken is lost.
        let _ = Out(self.out).write_fmt(text);
    }
}

struct Out<'a>(&'a mut dyn FnMut(&str));

impl fmt::Write for Out<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        (self.0)(text);
        Ok(())
    }
}

/// Attempts are over before others begin, so that each has the same place.
const FIRST_PLACE: u8 = 0;

fn cut_word(cut: Cut) -> &'static str {
    match cut {
        Cut::Reset => "reset",
        Cut::Closed => "closed",
        Cut::Silence => "silence",
    }
}

fn failure_word(failure: Failure) -> &'static str {
    match failure {
        Failure::Refused => "refused",
        Failure::Unreachable => "unreachable",
        Failure::TimedOut => "timed out",
        Failure::Reset | Failure::BrokenPipe => "reset",
        Failure::Forbidden => "forbidden by a packet filter of this machine",
        Failure::NoDescriptors | Failure::NoResources => "this machine has no resources left for it",
        Failure::OwnListener => "not tried: it is a listener of the proxy itself",
        Failure::Other(_) => "failed",
    }
}
