//! `adit check [OPTIONS] [--tls] [--through http://PROXY:PORT] HOST[:PORT]`: what it takes besides the options of the proxy.

use super::usage::UsageError;
use crate::proto::base64;
use crate::proto::target::{BadTarget, Host, Target};

/// Its part of `--help`.
pub(super) const HELP: &str = "\
adit check says why a destination is, or is not, reachable with these options:
rules, names, addresses, TCP, and what a ClientHello or a request gets. Without
PORT both 80 and 443 are probed.
      --tls                   send a ClientHello to another port than 443 too
      --through http://[USER:PASSWORD@]PROXY:PORT
                              ask the same through a running proxy
  Its exit code is 0 if all that was probed works, else it names the cause:
    10 a --deny, 11 --default, 12 the port, 13 the guard, 14 the proxy itself
    20 no such name, 21 nameservers fail, 22 or are silent, 23 --family
    30 refused, 31 unreachable, 32 timed out, 33 reset or failed in another way
    40 TLS alert, 41 reset, 42 closed, 43 silence in the handshake, 44 not TLS
    45 certificate for another name, 46 expired or not yet valid, 47 self-signed
    50 reset, 51 closed, 52 silence after the request, 53 not HTTP
    54 an error, of the destination or of the proxy of --through
    60 the proxy of --through refuses, 61 wants credentials, 62 is not reached,
    63 is none
";
/// The word that stands first.
const WORD: &str = "check";
const THROUGH: &str = "through";
const EXPECTED: &str = "http://PROXY:PORT or http://USER:PASSWORD@PROXY:PORT";

/// What is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Who is to be reached.
    pub host: Host,
    /// As in [`Target::is_absolute`].
    pub is_absolute: bool,
    /// Without one, 80 and 443 are probed.
    pub port: Option<u16>,
    /// `--tls`
    pub tls: TlsProbe,
    /// `--through`
    pub through: Option<Through>,
}

/// When a ClientHello is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProbe {
    /// To port 443.
    ByPort,
    /// `--tls`: to any port.
    Always,
}

/// `--through`: the proxy that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// Where it listens.
    pub proxy: Target,
    /// `user:password` in Base64 (RFC 7617), if they were given.
    pub basic: Option<Box<str>>,
}

/// The words that only `adit check` has.
pub(super) struct Asked {
    tls: TlsProbe,
    through: Option<Through>,
}

impl Asked {
    /// Takes them out of the command line, if this is one for `adit check`. The others are the proxy's.
    pub(super) fn take(words: &mut Vec<String>) -> Result<Option<Asked>, UsageError> {
        if words.first().is_none_or(|word| word != WORD) {
            return Ok(None);
        }
        let mut asked = Asked { tls: TlsProbe::ByPort, through: None };
        let mut rest = std::mem::take(words).into_iter().skip(1);
        while let Some(word) = rest.next() {
            let proxy = match &*word {
                "--tls" => {
                    asked.tls = TlsProbe::Always;
                    continue;
                }
                "--through" => rest.next().ok_or(UsageError::NoValue { option: word })?,
                _ => match word.strip_prefix("--through=") {
                    Some(proxy) => proxy.to_owned(),
                    None => {
                        words.push(word);
                        continue;
                    }
                },
            };
            // The value is not repeated: it may hold a password.
            let through = through(&proxy).ok_or_else(|| UsageError::Wrong {
                option: THROUGH,
                value: "...".to_owned(),
                expected: EXPECTED.to_owned(),
            })?;
            if asked.through.replace(through).is_some() {
                return Err(UsageError::Twice { option: ["--", THROUGH].concat() });
            }
        }
        Ok(Some(asked))
    }

    /// With the words that belong to no option.
    pub(super) fn complete(self, free: &[String]) -> Result<Box<Check>, UsageError> {
        let word = match free {
            [word] => word,
            [] => return Err(UsageError::NoDestination),
            [_, word, ..] => return Err(UsageError::Stray { word: word.clone() }),
        };
        let bad = |why: BadTarget| UsageError::BadDestination { word: word.clone(), why: why.details() };
        // Which of two defaults comes out tells whether there is a port.
        let target = Target::from_authority_or_port(word.as_bytes(), 1).map_err(bad)?;
        let other = Target::from_authority_or_port(word.as_bytes(), 2).map_err(bad)?;
        Ok(Box::new(Check {
            port: (target.port == other.port).then_some(target.port),
            host: target.host,
            is_absolute: target.is_absolute,
            tls: self.tls,
            through: self.through,
        }))
    }
}

fn through(url: &str) -> Option<Through> {
    let authority = url.strip_prefix("http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (credentials, authority) = match authority.rsplit_once('@') {
        Some((credentials, authority)) => (Some(credentials), authority),
        None => (None, authority),
    };
    Some(Through {
        proxy: Target::from_authority(authority.as_bytes()).ok()?,
        basic: credentials.map(|credentials| base64::encode(credentials.as_bytes())),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::{Command, Config, from_args};
    use super::*;
    use std::ffi::OsString;
    use std::path::Path;

    fn command(args: &[&str]) -> Result<Command, UsageError> {
        from_args(args.iter().map(OsString::from), &|path: &Path| match path.to_str() {
            Some("adit.conf") => Ok(b"deny .example.com\n".to_vec()),
            Some(_) | None => Err(std::io::ErrorKind::NotFound.into()),
        })
    }

    fn check(args: &[&str]) -> Check {
        with_config(args).1
    }

    fn with_config(args: &[&str]) -> (Config, Check) {
        match command(&[&["check"], args].concat()) {
            Ok(Command::Check(config, check)) => (*config, *check),
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn error(args: &[&str]) -> String {
        match command(&[&["check"], args].concat()) {
            Err(error) => error.to_string(),
            Ok(command) => panic!("{args:?}: {command:?}"),
        }
    }

    #[test]
    fn a_destination_with_or_without_a_port() {
        for (word, host, port) in [
            ("example.org", "example.org", None),
            ("Example.ORG.:443", "example.org", Some(443)),
            ("example.org:1", "example.org", Some(1)),
            ("example.org:2", "example.org", Some(2)),
            ("192.0.2.1", "192.0.2.1", None),
            ("[2001:db8::1]:22", "[2001:db8::1]", Some(22)),
        ] {
            let check = check(&[word]);
            assert_eq!((check.host.to_string().as_str(), check.port), (host, port), "{word}");
            assert_eq!((check.tls, check.through), (TlsProbe::ByPort, None));
        }
    }

    #[test]
    fn its_own_words_stand_anywhere_among_the_options_of_the_proxy() {
        for args in [
            &["--deny", ".example.com", "--tls", "--through", "http://p.test:8080", "a.test:8443"][..],
            &["a.test:8443", "--through=http://p.test:8080/", "--config", "adit.conf", "--tls"],
        ] {
            let (config, check) = with_config(args);
            assert_eq!(config.policy.deny.len(), 1);
            assert_eq!((check.host.to_string().as_str(), check.port), ("a.test", Some(8443)));
            assert_eq!(check.tls, TlsProbe::Always);
            let through = check.through.unwrap();
            assert_eq!((through.proxy.to_string().as_str(), through.basic), ("p.test:8080", None));
        }
    }

    #[test]
    fn credentials_go_to_the_proxy_and_into_no_message() {
        let through = check(&["--through", "http://alice:s:e@c@p.test:8080", "a.test"]).through.unwrap();
        assert_eq!(through.proxy.to_string(), "p.test:8080");
        assert_eq!(through.basic.as_deref(), Some("YWxpY2U6czplQGM="));
        let error = error(&["--through", "http://alice:secret@p.test", "a.test"]);
        assert!(!error.contains("secret") && error.contains("--through"), "{error}");
    }

    #[test]
    fn check_config_probes_nothing() {
        let command = command(&["check", "--check-config", "a.test"]);
        assert!(matches!(command, Ok(Command::CheckConfig(_))), "{command:?}");
        assert_eq!(error(&["--check-config"]), "adit check needs a destination: HOST or HOST:PORT");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (args, said) in [
            (&[][..], "adit check needs a destination: HOST or HOST:PORT"),
            (
                &["a.test", "b.test"],
                "\"b.test\" belongs to no option: all settings are options (see adit --help)",
            ),
            (
                &["https://a.test/"],
                "\"https://a.test/\" is no HOST or HOST:PORT: the target is not host:port: it has a scheme, a path or a query",
            ),
            (
                &["a.test:0"],
                "\"a.test:0\" is no HOST or HOST:PORT: the port of the target is not 1 to 65535 in plain digits",
            ),
            (&["a.test", "--through"], "option --through needs a value"),
            (
                &["a.test", "--through=http://a.test:1", "--through=http://a.test:1"],
                "option --through is given more than once",
            ),
            (&["a.test", "--nonsense"], "unknown option --nonsense (see adit --help)"),
        ] {
            assert_eq!(error(args), said);
        }
        for bad in ["p.test:8080", "https://p.test:1", "socks5://p.test:1", "http://p.test:1/x"] {
            assert!(error(&["--through", bad, "a.test"]).contains("expected http://PROXY:PORT"), "{bad}");
        }
        assert!(matches!(command(&["--tls"]), Err(UsageError::Unknown { .. })), "only behind check");
    }
}
